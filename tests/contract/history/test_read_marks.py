"""What a user has read and has not: marks that only move forward, the inbox, and what it costs."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson
import pytest

from parley_events import facts as f
from parley_events.body import ThreadSeed
from parley_history.migrate import migrate
from parley_history.reads import answers
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, random_story, thread, workspace

WS = workspace(1)
MINE: dict[str, Any] = {"user_id": "ada", "agent_id": "assistant"}


def answered(writer: Writer, stream: str, name: str, **more: Any) -> int:
    """A question with its answer; the answer's seq."""
    run = writer.post(stream, WS, f"{name}?", command=f"{stream}-{name}", **more)
    writer.turn(stream, WS, run, name)
    return writer.complete(stream, WS, run).seq or 0


async def inbox(client: Client, **params: Any) -> list[str]:
    found = await client.get(f"/workspaces/{WS}/inbox", **{**MINE, **params})
    assert len(found["items"]) == min(found["unread"], params.get("limit", 50))
    return [item["content"] for item in found["items"]]


async def test_a_mark_only_moves_forward_and_is_its_users(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    first = [answered(writer, thread(1), name) for name in ("a", "b", "c")]
    answered(writer, thread(2), "d")
    async with running(settings, log) as client:

        async def after(user: str, up_to: int) -> list[str]:
            writer.write(thread(1), WS, f.ThreadRead(user_id=user, up_to=up_to))
            await client.caught_up(log)
            return await inbox(client)

        assert await after("ada", 0) == ["a", "b", "c", "d"]
        assert await after("bob", first[2]) == ["a", "b", "c", "d"], "somebody else read it"
        assert await after("ada", first[1]) == ["c", "d"]
        assert await after("ada", first[0]) == ["c", "d"], "back it does not go"
        assert await after("ada", first[2] - 1) == ["c", "d"]
        assert await after("ada", first[2]) == ["d"]
        answered(writer, thread(1), "e")
        await client.caught_up(log)
        assert await inbox(client) == ["d", "e"]
        assert await inbox(client, limit=1) == ["e"], "the newest"
        unread = (await client.get(f"/workspaces/{WS}/unread", **MINE))["items"]
        assert [item["thread_id"] for item in unread] == [thread(1), thread(2)]


async def test_what_was_cleared_or_deleted_is_not_unread_and_only_ones_own_is(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    seeds = {
        thread(1): ThreadSeed(user_id="ada", agent_id="assistant"),
        thread(2): ThreadSeed(user_id="bob", agent_id="assistant"),
        thread(3): ThreadSeed(user_id="ada", agent_id="other"),
        thread(4): ThreadSeed(user_id=None, agent_id="assistant"),
        thread(5): ThreadSeed(user_id="ada", agent_id="assistant", end_user="a customer"),
        thread(6): ThreadSeed(user_id="ada", agent_id="assistant"),
    }
    for stream, seed in seeds.items():
        answered(writer, stream, stream[-1], opened=seed)
    late = writer.post(thread(1), WS, "?", command="late")
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert await inbox(client) == ["1", "6"]
        writer.write(thread(1), WS, f.ThreadCleared())
        writer.turn(thread(1), WS, late, "posted before the clear")
        writer.complete(thread(1), WS, late)
        await client.caught_up(log)
        assert await inbox(client) == ["6"]
        assert (await client.get(f"/workspaces/{WS}/unread", **MINE))["items"][0]["thread_id"] == thread(6)
        writer.write(thread(6), WS, f.ThreadDeleted())
        answered(writer, thread(1), "after the clear")
        await client.caught_up(log)
        assert await inbox(client) == ["after the clear"]
        assert await client.get(f"/workspaces/{workspace(2)}/inbox", **MINE) == {"items": [], "unread": 0}
        counted: dict[str, Any] = {"user_id": "ada", "agent_id": "assistant", "channel": "threads"}
        assert await client.get(f"/workspaces/{WS}/deleted", **counted) == {"count": 1}
        for other in ({"channel": "x"}, {"user_id": "bob"}, {"agent_id": "other"}):
            assert await client.get(f"/workspaces/{WS}/deleted", **{**counted, **other}) == {"count": 0}


async def test_a_fork_of_a_default_conversation_is_not_a_second_one(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    seed = ThreadSeed(user_id="ada", agent_id="assistant", channel="default")
    answered(writer, thread(1), "a", opened=seed)
    writer.write(thread(2), WS, f.ThreadForked(source_thread_id=thread(1), at=4, seed=seed))
    answered(writer, thread(2), "b")
    async with running(settings, log) as client:
        await client.caught_up(log)
        said = (await client.get(f"/workspaces/{WS}/said", channel="default", **MINE))["items"]
        assert [item["content"] for item in said] == ["a?", "a"]
        writer.write(thread(2), WS, f.ThreadDeleted())
        await client.caught_up(log)
        assert await client.get(f"/workspaces/{WS}/deleted", channel="default", **MINE) == {"count": 0}


async def test_reading_keeps_no_session_from_expiring(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    seq = answered(writer, thread(1), "a", opened=ThreadSeed(user_id="ada", agent_id="assistant", idle_s=60))
    ended_ms = writer.now_ms
    writer.now_ms += 30_000
    writer.write(thread(1), WS, f.ThreadRead(user_id="ada", up_to=seq))
    async with running(settings, log) as client:
        await client.caught_up(log)
        dues = [await client.get("/due", partitions=p, until_ms=2**60) for p in range(4)]
        assert [due["due_at_ms"] for one in dues for due in one["items"]] == [ended_ms + 60_000]


async def test_a_view_that_was_there_before_says_what_a_rebuild_would(settings: Settings) -> None:
    """The columns taken away and filled again by their migration are what the fold made of the same log."""
    log = ListLog(4)
    writer = random_story(6, log, 400)
    for number in (50, 51):
        answered(writer, thread(number), "x")
    writer.write(thread(51), WS, f.ThreadRead(user_id="ada", up_to=2))
    writer.write(thread(51), WS, f.ThreadRead(user_id="nul\x00", up_to=9))
    columns = "SELECT id, read_seq, answered_seq FROM threads WHERE NOT deleted ORDER BY id"
    async with running(settings, log) as client:
        await client.caught_up(log)
        before = await client.rows(columns)
    assert sum(row["read_seq"] > 0 for row in before) > 1 and sum(row["answered_seq"] > 0 for row in before) > 2
    assert settings.postgres is not None
    owner = await asyncpg.connect(settings.postgres)
    try:
        await owner.execute(
            f"SET search_path TO {settings.schema}; DROP INDEX threads_of_channel, messages_answers;"
            "ALTER TABLE threads DROP COLUMN unread, DROP COLUMN read_seq, DROP COLUMN answered_seq;"
            "DELETE FROM migrations WHERE number = 9"
        )
    finally:
        await owner.close()
    await migrate(settings)
    async with running(settings, log) as client:
        assert await client.rows(columns) == before


@pytest.mark.parametrize("query", ["inbox", "inbox_total", "unread"])
async def test_an_inbox_does_not_look_at_conversations_in_which_all_was_read(settings: Settings, query: str) -> None:
    """3000 of them, and three with something unread: under the reader's row policy, by an index that has the three."""
    thread_row = f"'t' || n, '{WS}', 'assistant', 'ada', 'x', false, false, '{{}}', n, n, n, 2, 0, false, false"
    message_row = f"'t' || n, s, 1, 'm' || n || s, '{WS}', n * 10 + s, 'assistant', 'hi', '[]', '{{}}', n"
    log = ListLog(4)
    async with running(settings, log) as client:
        owner = await asyncpg.connect(settings.postgres)
        try:
            await owner.execute(
                f"""SET search_path TO {settings.schema}; SET ROLE parley_projector;
                INSERT INTO threads (id, workspace_id, agent_id, user_id, channel, pinned, archived, metadata,
                    created_ms, updated_ms, active_ms, message_count, cleared_seq, expired, deleted,
                    answered_seq, read_seq)
                SELECT {thread_row}, 4, CASE WHEN n <= 3 THEN 2 ELSE 4 END FROM generate_series(1, 3000) AS n;
                INSERT INTO messages (thread_id, seq, part, id, workspace_id, number, role, content, attachments,
                    metadata, created_ms)
                SELECT {message_row} FROM generate_series(1, 3000) AS n, generate_series(1, 4) AS s;
                RESET ROLE; ANALYZE threads, messages"""
            )
        finally:
            await owner.close()
        arguments = {"inbox": (50,), "inbox_total": (), "unread": ("", 200)}[query]
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {answers.SQL[query]}"
        async with client.history.scoped.transaction(workspace=WS, snapshot=True) as con:
            plan = await con.value(explained, WS, "ada", "assistant", *arguments)
        found = list(_nodes(orjson.loads(plan)[0]["Plan"]))
        assert [node["Actual Rows"] for node in found if node.get("Index Name") == "threads_unread"] == [3], plan
        looked_at = [
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in found
            if "Scan" in node["Node Type"] and node.get("Relation Name") == "messages"
        ]
        assert sum(looked_at) <= 3 * 4, plan


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)

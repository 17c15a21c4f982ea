"""Promise 4: the view is a pure fold. Whatever the batches, live or from the start, it says what the reference says."""

from __future__ import annotations

import random
from typing import Any

import pytest

from parley_events import facts as f
from parley_events import ids, reads
from parley_events.body import Note
from parley_history.migrate import migrate
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import START_MS, Writer, random_story, thread, workspace
from tests.support.postgres import Server

STEPS = 260
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'migrations'"


@pytest.mark.parametrize("seed", range(8))
async def test_the_view_says_what_the_reference_says(settings: Settings, seed: int) -> None:
    log = ListLog(4)
    writer = random_story(seed, log, STEPS)
    batch = random.Random(seed).choice([1, 3, 20, 1000])
    now_ms = writer.now_ms + random.Random(seed).choice([0, 700, 30_000, 10**6])
    async with running(settings, log, batch=batch, clock=lambda: now_ms) as client:
        await client.caught_up(log)
        await _compare(client, writer, log, now_ms)


async def test_folding_while_the_story_goes_on_gives_the_same(settings: Settings) -> None:
    log = ListLog(4)
    now_ms = 0
    async with running(settings, log, clock=lambda: now_ms) as client:
        for part in range(4):
            writer = random_story(99, ListLog(4), (part + 1) * 80)
            # The same story from its start, longer each time: what is new of it is appended.
            for own, story in zip(log.records, writer.log.records, strict=True):
                for record in story[len(own) :]:
                    own.append(record)
            for tail_news in list(log._news):
                tail_news.set()
            await client.caught_up(log)
            now_ms = writer.now_ms + 1000
            await _compare(client, writer, log, now_ms)


async def test_twice_is_once(settings: Settings) -> None:
    """Positions lost, everything read again from the start: the same rows."""
    log = ListLog(4)
    writer = random_story(5, log, STEPS)
    async with running(settings, log) as client:
        await client.caught_up(log)
        before = await _dump(client)
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert await _dump(client) == before
        async with client.history.writer.transaction() as con:
            await con.run("UPDATE positions SET next_offset = 0, epoch = -1")
    async with running(settings, log, batch=7, clock=lambda: 0) as client:
        await client.caught_up(log)
        await _positions_at_end(client, log)
        assert await _dump(client) == before
        await _compare(client, writer, log, 0)


async def test_a_skill_learned_twice_is_the_later_one_whatever_is_folded_first(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    first, second = (
        thread(1),
        next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != writer.partition(thread(1))),
    )
    async with running(settings, log) as client:
        for stream, name, time_ms in ((second, "later", START_MS + 9000), (first, "earlier", START_MS)):
            writer.now_ms = time_ms
            run = writer.post(stream, workspace(1))
            note = Note(kind="skill", id=f"n-{name}", slug="fold-paper", name=name, body="B")
            fields = {"run_id": run, "call": 1, "index": 0, "tool_call_id": "t", "name": "learn_skill", "note": note}
            writer.write(stream, workspace(1), f.ToolReturned.model_validate({**fields, "status": "ok", "result": ""}))
            await client.caught_up(log)
        assert (await client.get(f"/workspaces/{workspace(1)}/skills/fold-paper"))["name"] == "later"


async def test_a_given_and_a_learned_skill_of_one_slug_are_the_later_one_on_every_database(
    settings: Settings, postgres: Server
) -> None:
    """Also on one that begins empty, and folds the same log in other batches."""
    log = ListLog(4)
    writer = Writer(log)
    stream, ws = thread(1), workspace(1)
    run = writer.post(stream, ws)

    def learn(slug: str, index: int) -> None:
        note = Note(kind="skill", id=f"n{index}", slug=slug, name="learned", description="By doing.", body="Learned.")
        fields = {"run_id": run, "call": 1, "index": index, "tool_call_id": f"t{index}", "name": "learn_skill"}
        body = f.ToolReturned.model_validate({**fields, "status": "ok", "result": "", "note": note})
        writer.write(stream, ws, body)

    def give(slug: str, name: str = "given") -> None:
        body = f.SkillChanged(agent_id="assistant", slug=slug, name=name, description="By a file.", body="Given.")
        writer.write(ids.workspace_stream(ws), ws, body)

    give("boat")
    learn("boat", 0)
    learn("tea", 1)
    give("tea")
    for version in range(12):
        # All in one millisecond: the last one of the stream counts.
        writer.now_ms = START_MS + 10_000
        give("eggs", f"version {version}")

    async def folded(settings: Settings, batch: int) -> list[Any]:
        async with running(settings, log, batch=batch) as client:
            await client.caught_up(log)
            items = (await client.get(f"/workspaces/{ws}/skills"))["items"]
            assert {one["slug"]: (one["name"], one["description"]) for one in items} == {
                "boat": ("learned", "By doing."),
                "tea": ("given", "By a file."),
                "eggs": ("version 11", "By a file."),
            }
            return (await _dump(client))["skills"]

    live = await folded(settings, 1)
    again = await settings_for(postgres)
    await migrate(again)
    assert await folded(again, 1000) == live


async def _positions_at_end(client: Client, log: ListLog) -> None:
    found = (await client.get("/positions"))["partitions"]
    assert {one["partition"]: one["next_offset"] for one in found} == await log.ends("parley.events")


async def _dump(client: Client) -> dict[str, list[Any]]:
    tables = [row["tablename"] for row in await client.rows(_TABLES)]
    return {
        table: sorted((tuple(row.values()) for row in await client.rows(f"SELECT * FROM {table}")), key=repr)
        for table in tables
    }


async def _compare(client: Client, writer: Writer, log: ListLog, now_ms: int) -> None:
    reference = Reference(writer.written, now_ms)
    for number in range(2):
        ws = workspace(number)
        await _compare_threads(client, reference, ws)
        await _compare_workspace(client, reference, ws)
        await _compare_numbered(client, reference, ws)
        await _compare_read(client, reference, ws)
        await _compare_parked(client, reference, ws)
    for stream, run in reference.runs():
        expected = reference.run(stream, run)
        found = await client.get(f"/workspaces/{expected['workspace_id']}/runs/{run}")
        assert found == expected
        reads.RunView.model_validate(found)
    await _compare_facts(client, reference)
    open_threads, waiting = reference.open_threads()
    parts = [await client.get(f"/partitions/{p}") for p in range(log.partitions)]
    assert {stream for part in parts for stream in part["open_threads"]} == open_threads
    assert {stream for part in parts for stream in part["waiting_threads"]} == waiting
    dues = [await client.get("/due", partitions=p, until_ms=2**60) for p in range(log.partitions)]
    assert {(due["stream"], due["due_key"], due["due_at_ms"]) for one in dues for due in one["items"]} == (
        reference.dues()
    )
    for part in parts:
        reads.PartitionView.model_validate(part)
        numbers = [
            number
            for fact in reference.facts
            if writer.partition(fact.stream) == part["partition"]
            for number in getattr(fact.body, "numbers", ())
        ]
        assert part["last_number"] == max(numbers, default=0)
        assert part["epoch"] == writer.epochs.get(part["partition"], -1)


async def _compare_threads(client: Client, reference: Reference, ws: str) -> None:
    expected = reference.threads(ws)
    for archived in (False, True):
        wanted = [
            {name: value for name, value in thread.items() if name != "active"}
            for thread in expected
            if thread["archived"] is archived
        ]
        page = await client.get(f"/workspaces/{ws}/threads", archived=str(archived).lower())
        reads.ThreadPage.model_validate(page)
        assert page == {"items": wanted, "next_cursor": None, "total": len(wanted)}
    for one in expected:
        messages = [
            {name: value for name, value in message.items() if name != "time_ms"}
            for message in reference.messages(one["id"])
        ]
        found: list[Any] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await client.get(f"/workspaces/{ws}/threads/{one['id']}/messages", limit=7, **cursor)
            reads.MessagePage.model_validate(page)
            found += page["items"]
            assert page["total"] == len(messages) == one["message_count"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert found == messages
        await _compare_files(client, reference, ws, one["id"])
    for stream, facts in reference.streams.items():
        if not stream.startswith("ws:") and facts[0].workspace_id == ws and reference.thread(stream) is None:
            await client.get(f"/workspaces/{ws}/threads/{stream}", status=404)
            await client.get(f"/workspaces/{ws}/threads/{stream}/messages", status=404)
            await client.get(f"/workspaces/{ws}/threads/{stream}/files", status=404)


async def _compare_read(client: Client, reference: Reference, ws: str) -> None:
    """What was said, one by one and in pages; what is unread, and in which threads."""
    threads = reference.threads(ws)
    forks = {fact.stream for fact in reference.facts if isinstance(fact.body, f.ThreadForked)}
    for user in ("ada", "bob", "eve"):
        ours = [one["id"] for one in threads if (one["user_id"], one["end_user"]) == (user, None)]
        mine: dict[str, Any] = {"user_id": user, "agent_id": "assistant"}
        # A fork keeps its source's channel, and is nobody's default conversation.
        said = [_timeless(row) for row in reference.said([one for one in ours if one not in forks])]
        found: list[Any] = []
        more: dict[str, Any] = {}
        while True:
            page = await client.get(f"/workspaces/{ws}/said", limit=5, channel=["threads", "x"], **mine, **more)
            reads.MessageList.model_validate(page)
            found = page["items"] + found
            if len(page["items"]) < 5:
                break
            more = {"before": found[0]["number"]}
        assert found == said
        assert (await client.get(f"/workspaces/{ws}/said", channel="x", **mine))["items"] == []
        unread = [_timeless(row) for row in reference.unread(user, ours)]
        inbox = await client.get(f"/workspaces/{ws}/inbox", limit=200, **mine)
        reads.Inbox.model_validate(inbox)
        assert inbox == {"items": unread, "unread": len(unread)}
        newest = await client.get(f"/workspaces/{ws}/inbox", limit=2, **mine)
        assert newest == {"items": unread[-2:], "unread": len(unread)}
        answered = {row["thread_id"]: row["seq"] for row in sorted(unread, key=lambda row: row["seq"])}
        wanted = [{"thread_id": stream, "answered_seq": seq} for stream, seq in sorted(answered.items())]
        assert await client.get(f"/workspaces/{ws}/unread", **mine) == {"items": wanted}
        for place, one in enumerate(wanted):
            page = await client.get(f"/workspaces/{ws}/unread", limit=1, after=one["thread_id"], **mine)
            assert page == {"items": wanted[place + 1 :][:1]}
    for one in threads:
        for row in reference.messages(one["id"])[:3]:
            path = f"/workspaces/{ws}/threads/{one['id']}/messages/{row['id']}"
            assert await client.get(path) == _timeless(row)
        rows = [_timeless(row) for row in reference.said([one["id"]])]
        page = await client.get(f"/workspaces/{ws}/said", limit=200, thread_id=one["id"])
        assert page == {"items": rows}


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "time_ms"}


async def _compare_numbered(client: Client, reference: Reference, ws: str) -> None:
    """Both ways through all messages: of each thread, and of all that a user has with an agent."""
    threads = reference.threads(ws)
    streams = [one["id"] for one in threads]
    ours = [one["id"] for one in threads if (one["user_id"], one["end_user"]) == ("ada", None)]
    asked: list[tuple[list[str], dict[str, Any]]] = [([stream], {"thread_id": stream}) for stream in streams]
    asked.append((ours, {"user_id": "ada", "agent_id": "assistant"}))
    for own, which in asked:
        for tools in (False, True):
            which = {**which, "tools": str(tools).lower()}
            expected = [
                {name: value for name, value in row.items() if name != "time_ms"}
                for row in reference.numbered(own, tools)
            ]
            for cursor, at in (("before", 0), ("after", -1)):
                found: list[Any] = []
                more: dict[str, Any] = {"after": 0} if cursor == "after" else {}
                while True:
                    page = await client.get(f"/workspaces/{ws}/messages", limit=5, **which, **more)
                    reads.NumberedPage.model_validate(page)
                    assert page["total"] == len(expected)
                    found = found + page["items"] if cursor == "after" else page["items"] + found
                    if not page["has_more"]:
                        break
                    more = {cursor: page["items"][at]["number"]}
                assert found == expected


async def _compare_files(client: Client, reference: Reference, ws: str, stream: str) -> None:
    expected, found = reference.files(stream), []
    cursor: dict[str, Any] = {}
    while True:
        page = await client.get(f"/workspaces/{ws}/threads/{stream}/files", limit=2, **cursor)
        reads.FilePage.model_validate(page)
        found += page["items"]
        assert page["total"] == len(expected)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == expected


async def _compare_parked(client: Client, reference: Reference, ws: str) -> None:
    """Approvals and open runs, whole, filtered and page by page."""
    expected = reference.approvals(ws)
    for status in (None, "open", "approved", "denied", "expired", "closed"):
        asked = {} if status is None else {"status": status}
        wanted = [one for one in expected if status in (None, one["status"])]
        assert await _all(client, f"/workspaces/{ws}/approvals", reads.ApprovalPage, len(wanted), **asked) == wanted
    for one in expected:
        assert await client.get(f"/workspaces/{ws}/approvals/{one['id']}") == one
    for user in ("ada", "eve"):
        mine = [one for one in expected if one["user_id"] in (None, user)]
        may = [one for one in expected if not one["who"] or user in one["who"]]
        path, page = f"/workspaces/{ws}/approvals", reads.ApprovalPage
        assert await _all(client, path, page, len(mine), user_id=user) == mine
        assert await _all(client, path, page, len(may), answerer=user) == may
        either = [one for one in expected if one in mine or one in may]
        assert await _all(client, path, page, len(either), user_id=user, answerer=user) == either
    runs = reference.open_runs(ws)
    assert await _all(client, f"/workspaces/{ws}/runs", reads.OpenRunPage, None) == runs
    for user in ("ada", "bob"):
        wanted = [one for one in runs if one["user_id"] == user]
        assert await _all(client, f"/workspaces/{ws}/runs", reads.OpenRunPage, None, user_id=user) == wanted


async def _all(client: Client, path: str, shape: type[Any], total: int | None, **asked: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        answer = await client.http.get(f"/internal{path}", params={"limit": 3, **asked})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        shape.model_validate(page)
        assert total is None or page["total"] == total
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]


async def _compare_workspace(client: Client, reference: Reference, ws: str) -> None:
    expected = reference.workspace(ws)
    if expected is not None:
        assert await client.get(f"/workspaces/{ws}") == expected
    keys = reference.keys(ws)
    found = (await client.get(f"/workspaces/{ws}/keys"))["items"]
    for key in found:
        assert key == keys.pop(key["id"])
    assert not keys
    keys = reference.keys(ws)
    for key in keys.values():
        assert await client.get(f"/workspaces/{ws}/keys/by-hash/{key['key_hash']}") == key
    agents = reference.agents(ws)
    for (name, version), agent in agents.items():
        assert await client.get(f"/workspaces/{ws}/agents/{name}", version=version) == agent
    newest = {name: agents[(name, max(v for n, v in agents if n == name))] for name, _ in agents}
    listed = (await client.get(f"/workspaces/{ws}/agents"))["items"]
    assert {agent["id"]: agent for agent in listed} == {
        name: agent for name, agent in newest.items() if not agent["deleted"]
    }
    for name, agent in newest.items():
        assert await client.get(f"/workspaces/{ws}/agents/{name}") == agent
        assert await client.get(f"/workspaces/{ws}/agents/{ids.agent_uuid(ws, name)}") == agent
    teams = (await client.get(f"/workspaces/{ws}/teams"))["items"]
    assert {team["id"]: team for team in teams} == reference.teams(ws)
    notes = (await client.get(f"/workspaces/{ws}/notes", limit=200))["items"]
    assert notes == reference.notes(ws)
    skills = (await client.get(f"/workspaces/{ws}/skills"))["items"]
    assert {(skill["agent_id"], skill["slug"], skill["updated_at"]) for skill in skills} == reference.skills(ws)
    await _compare_documents(client, reference, ws)


async def _compare_documents(client: Client, reference: Reference, ws: str) -> None:
    documents = reference.documents(ws)
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await client.get(f"/workspaces/{ws}/knowledge", limit=2, **cursor)
        reads.DocumentPage.model_validate(page)
        found += page["items"]
        assert page["total"] == len(documents)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert {one["id"]: one for one in found} == {
        name: {field: value for field, value in one.items() if field != "content"} for name, one in documents.items()
    }
    assert found == sorted(found, key=lambda one: (one["created_at"], one["id"]), reverse=True)
    for name, one in documents.items():
        assert await client.get(f"/workspaces/{ws}/knowledge/{name}") == one
    for number in range(3):
        if f"document-{number}" not in documents:
            await client.get(f"/workspaces/{ws}/knowledge/document-{number}", status=404)


async def _compare_facts(client: Client, reference: Reference) -> None:
    for stream, told in reference.streams.items():
        facts = [fact for fact in told if (fact.seq or 0) > 0]
        page = await client.get(f"/streams/{stream}/facts")
        reads.FactsPage.model_validate(page)
        assert page["last_seq"] == facts[-1].seq
        assert [(item["offset"], item["headers"]["ce_type"]) for item in page["items"]] == [
            (fact.offset, fact.type) for fact in facts
        ]
        assert [item["body"] for item in page["items"]] == [fact.body.model_dump(mode="json") for fact in facts]

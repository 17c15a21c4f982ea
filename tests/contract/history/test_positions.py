"""What an answer says of its age: never more than it has, and as much as can be had for nothing."""

from __future__ import annotations

from typing import Any

from parley_events.ids import workspace_stream
from parley_events.positions import PartitionPosition, StreamPosition, parse_positions
from parley_events.reads import POSITION_HEADER
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, random_story, thread, workspace
from tests.contract.history.test_projector import until

WS, T1 = workspace(1), thread(1)


async def position(client: Client, path: str, **params: Any) -> str:
    answer = await client.http.get(f"/internal{path}", params=params)
    assert answer.status_code == 200, answer.text
    return str(answer.headers[POSITION_HEADER])


async def test_what_is_read_of_one_thread_is_at_a_fact_of_it(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    async with running(settings, log) as client:
        await client.caught_up(log)
        for seq in range(1, 5):
            assert writer.seqs[T1] == seq
            for path in (
                f"/workspaces/{WS}/threads/{T1}",
                f"/workspaces/{WS}/threads/{T1}/messages",
                f"/workspaces/{WS}/runs/{run}",
                f"/streams/{T1}/facts",
            ):
                assert await position(client, path) == f"{T1}@{seq}"
            writer.post(T1, WS, command=f"c{seq + 1}")
            await client.caught_up(log)


async def test_other_reads_say_how_far_their_partition_is_or_the_whole_view(settings: Settings) -> None:
    log = ListLog(4)
    writer = random_story(3, log, 120)
    async with running(settings, log) as client:
        await client.caught_up(log)
        ends = await log.ends("parley.events")
        of_workspace = writer.partition(workspace_stream(WS))
        for path in ("", "/agents", "/keys", "/teams", "/knowledge"):
            expected = str(PartitionPosition(of_workspace, ends[of_workspace]))
            assert await position(client, f"/workspaces/{WS}{path}") == expected
        for path in ("/threads", "/runs", "/approvals", "/notes", "/skills"):
            found = parse_positions(await position(client, f"/workspaces/{WS}{path}"))
            assert dict(found) == ends, path
        at = f"{T1}@1"
        found = parse_positions(await position(client, f"/workspaces/{WS}/threads", min_position=at))
        assert StreamPosition(T1, 1) in found, "what was waited for is said, too"


async def test_a_position_that_was_given_out_is_taken_back_whole(settings: Settings) -> None:
    log = ListLog(4)
    random_story(3, log, 60)
    async with running(settings, log) as client:
        await client.caught_up(log)
        given = await position(client, f"/workspaces/{WS}/threads")
        assert given.count(",") == 3
        await client.get(f"/workspaces/{WS}/threads", min_position=given, wait_ms=0)
        ahead = given.rpartition(".")[0] + ".999999"
        await client.get(f"/workspaces/{WS}/threads", 503, min_position=ahead, wait_ms=50)
        await client.get(f"/workspaces/{WS}/threads", 400, min_position=",".join(["0.1"] * 301))


async def test_an_answer_never_says_more_than_it_has(settings: Settings) -> None:
    """A replica that folds nothing itself says what it has heard, which is committed, and at most a second late."""
    log = ListLog(4)
    writer = Writer(log)
    async with running(settings, log) as first, running(settings, log) as second:
        await until(first.ready)
        await until(second.ready)
        for number in range(1, 20):
            stream = thread(number)
            writer.post(stream, WS)
            for client in (first, second):
                said = {
                    p.partition: p.next_offset
                    for p in parse_positions(await position(client, f"/workspaces/{WS}/threads"))
                    if isinstance(p, PartitionPosition)
                }
                stood = await client.get("/positions")
                has = {row["partition"]: row["next_offset"] for row in stood["partitions"]}
                assert all(offset <= has[p] for p, offset in said.items())
        # Nobody waits for a position here: that would teach it to the one that does not fold.
        ends = await log.ends("parley.events")

        async def told(client: Client) -> bool:
            return dict(parse_positions(await position(client, f"/workspaces/{WS}/threads"))) == ends

        for client in (first, second):
            await until(lambda client=client: told(client))  # type: ignore[misc]

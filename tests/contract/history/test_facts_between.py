"""Facts of many threads by their places on the log: all that a user sees, nothing else, in pages of any size."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events.body import ThreadSeed
from parley_events.codec import EVENTS_TOPIC, Fact
from parley_history.reads import streams
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, random_story, thread, workspace

WS, OTHER = workspace(1), workspace(2)


async def between(client: Client, ws: str, p: int, first: int, below: int, **params: Any) -> list[tuple[str, int, int]]:
    """(thread, seq, offset) of all pages."""
    found: list[tuple[str, int, int]] = []
    while first < below:
        asked = {"partition": p, "from": first, "below": below, **params}
        page = await client.get(f"/workspaces/{ws}/facts", **asked)
        heads = [(item["headers"], item["offset"]) for item in page["items"]]
        found += [(head["ce_subject"], int(head["ce_seq"]), offset) for head, offset in heads]
        assert first < page["next_offset"] <= below
        assert all(first <= item["offset"] < page["next_offset"] for item in page["items"])
        first = page["next_offset"]
    return found


def expected(writer: Writer, log: ListLog, ws: str, p: int, first: int, below: int) -> list[tuple[str, int, int]]:
    """The same, looked up in what was written: of deleted threads the deletion and what follows it."""
    deleted: dict[str, int] = {}
    for fact in writer.written:
        if isinstance(fact.body, f.ThreadDeleted) and fact.seq is not None:
            deleted[fact.stream] = fact.seq
    places = {}
    for fact in writer.written:
        counts = fact.workspace_id == ws and not fact.stream.startswith("ws:") and fact.seq is not None
        if counts and writer.partition(fact.stream) == p and (fact.seq or 0) >= deleted.get(fact.stream, 0):
            places[fact.stream, fact.seq or 0] = offset_of(writer, log, fact)
    return sorted(
        ((stream, seq, at) for (stream, seq), at in places.items() if first <= at < below), key=lambda place: place[2]
    )


def offset_of(writer: Writer, log: ListLog, fact: Fact) -> int:
    """Where it stands first."""
    record = writer.record(fact)
    return next(
        found.offset
        for found in log.records[writer.partition(fact.stream)]
        if found.value == record.value and dict(found.headers) == dict(record.headers)
    )


async def test_every_cut_gives_what_was_written_there_in_pages_of_any_size(settings: Settings) -> None:
    log = ListLog(4)
    writer = random_story(11, log, 400)
    async with running(settings, log) as client:
        await client.caught_up(log)
        ends = await log.ends(EVENTS_TOPIC)
        some = 0
        for ws in (WS, OTHER):
            for p, end in ends.items():
                for first, below, limit in ((0, end, 1000), (0, end, 3), (end // 3, end - end // 4, 2)):
                    found = await between(client, ws, p, first, below, limit=limit)
                    assert found == expected(writer, log, ws, p, first, below)
                    some += len(found)
        assert some > 200


async def test_what_was_sent_twice_is_told_once_where_it_stands_first(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    t = thread(1)
    writer.post(t, WS)
    twice = writer.written[-1]
    writer.resend(twice)
    async with running(settings, log) as client:
        await client.caught_up(log)
        p = writer.partition(t)
        end = (await log.ends(EVENTS_TOPIC))[p]
        assert await between(client, WS, p, 0, end) == [(t, 1, offset_of(writer, log, twice))]
        for below, seq in ((end - 2, 0), (end - 1, 1), (end, 1)):
            owners = await client.get(f"/workspaces/{WS}/owners", at=[f"{t}@{below}", f"{thread(2)}@{below}"])
            assert [(owner["id"], owner["seq"]) for owner in owners["items"]] == [(t, seq)]


async def test_a_user_gets_their_own_threads_and_shared_ones_and_threads_may_be_named(settings: Settings) -> None:
    log = ListLog(1)
    writer = Writer(log)
    mine, yours, ours = (thread(number) for number in (1, 2, 3))
    for stream, user in ((mine, "ann"), (yours, "bob"), (ours, None)):
        seed = ThreadSeed(channel="threads", agent_id=None, user_id=user)
        writer.write(stream, WS, f.ThreadCreated(seed=seed))
        writer.post(stream, WS)
    theirs = thread(4)
    writer.write(theirs, OTHER, f.ThreadCreated(seed=ThreadSeed(channel="threads", agent_id=None, user_id="ann")))
    async with running(settings, log) as client:
        await client.caught_up(log)
        end = (await log.ends(EVENTS_TOPIC))[0]

        async def threads(ws: str = WS, **params: Any) -> set[str]:
            return {stream for stream, _, _ in await between(client, ws, 0, 0, end, **params)}

        assert await threads() == {mine, yours, ours}
        assert await threads(user_id="ann") == {mine, ours}
        assert await threads(thread=[yours, ours]) == {yours, ours}
        assert await threads(thread=[yours, mine], user_id="ann") == {mine}
        assert await threads(thread=[theirs]) == set()
        assert await threads(OTHER) == {theirs}
        owners = (await client.get(f"/workspaces/{WS}/owners", at=[f"{t}@9" for t in (mine, ours, theirs)]))["items"]
        assert {owner["id"]: owner["user_id"] for owner in owners} == {mine: "ann", ours: None}
        for at in ("x", "0.1", f"{mine}@"):
            assert (await client.get(f"/workspaces/{WS}/owners", 400, at=at))["error"] == "bad_at"
        refused = await client.get(f"/workspaces/{WS}/facts", 400, **{"partition": 0, "from": 0})
        assert refused["error"] == "bad_below"


async def test_of_a_deleted_thread_its_deletion_is_told_and_what_follows(settings: Settings) -> None:
    log = ListLog(1)
    writer = Writer(log)
    t = thread(1)
    run = writer.post(t, WS)
    writer.write(t, WS, f.ThreadDeleted())
    writer.complete(t, WS, run)
    async with running(settings, log) as client:
        await client.caught_up(log)
        end = (await log.ends(EVENTS_TOPIC))[0]
        assert [seq for _, seq, _ in await between(client, WS, 0, 0, end)] == [2, 3]
        assert [seq for _, seq, _ in await between(client, WS, 0, 0, end, thread=t)] == [2, 3]
        (owner,) = (await client.get(f"/workspaces/{WS}/owners", at=f"{t}@{end}"))["items"]
        assert owner["seq"] == 3


async def test_a_page_looks_at_so_many_facts_even_if_nobody_sees_them(settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "EXAMINED", 5)
    log = ListLog(1)
    writer = Writer(log)
    for number in range(20):
        user = "ann" if number % 10 == 9 else "bob"
        seed = ThreadSeed(channel="threads", agent_id=None, user_id=user)
        writer.write(thread(number), WS, f.ThreadCreated(seed=seed))
    async with running(settings, log) as client:
        await client.caught_up(log)
        end = (await log.ends(EVENTS_TOPIC))[0]
        asked: dict[str, Any] = {"partition": 0, "from": 0, "below": end, "user_id": "ann"}
        page = await client.get(f"/workspaces/{WS}/facts", **asked)
        assert page["items"] == [] and page["next_offset"] < end
        assert {t for t, _, _ in await between(client, WS, 0, 0, end, user_id="ann")} == {thread(9), thread(19)}

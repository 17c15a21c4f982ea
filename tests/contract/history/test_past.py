"""A thread as it was: at every fact of it, and at every time, what the reference says of the facts up to there."""

from __future__ import annotations

from typing import Any

import pytest

from parley_events import facts as f
from parley_events import reads
from parley_events.body import ThreadSeed
from parley_history.reads import past
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import Writer, random_story, thread, workspace

STEPS = 160
WS, T1 = workspace(1), thread(1)


@pytest.mark.parametrize("seed", [2, 5, 11])
async def test_at_every_fact_of_every_thread_it_is_what_the_reference_says(settings: Settings, seed: int) -> None:
    log = ListLog(4)
    writer = random_story(seed, log, STEPS)
    whole = Reference(writer.written)
    compared = runs = 0
    async with running(settings, log) as client:
        await client.caught_up(log)
        for stream in [stream for stream in whole.streams if not stream.startswith("ws:")]:
            facts = [fact for fact in writer.written if fact.stream == stream and fact.seq is not None]
            ws = facts[0].workspace_id
            for place, fact in enumerate(facts):
                if whole.thread(stream) is None:
                    for path in (f"/threads/{stream}", f"/threads/{stream}/messages"):
                        await client.get(f"/workspaces/{ws}{path}", 404, as_of_seq=fact.seq)
                    continue
                then = Reference(facts[: place + 1], fact.time_ms)
                compared += 1
                runs += await _compare(client, then, ws, stream, as_of_seq=fact.seq)
                if place + 1 == len(facts) or facts[place + 1].time_ms > fact.time_ms:
                    await _compare(client, then, ws, stream, as_of_ms=fact.time_ms)
    assert compared > 60 and runs > 100, (compared, runs)


async def _compare(client: Client, then: Reference, ws: str, stream: str, **as_of: Any) -> int:
    expected = then.thread(stream)
    assert expected is not None
    del expected["active"]
    found = await client.get(f"/workspaces/{ws}/threads/{stream}", **as_of)
    assert found == expected
    reads.ThreadView.model_validate(found)
    messages = [{name: value for name, value in row.items() if name != "time_ms"} for row in then.messages(stream)]
    path = f"/workspaces/{ws}/threads/{stream}/messages"
    assert await client.get(path, limit=200, **as_of) == {
        "items": messages,
        "next_cursor": None,
        "total": len(messages),
    }
    assert (await client.get(path, limit=200, order="desc", **as_of))["items"] == messages[::-1]
    own = [run for of, run in then.runs() if of == stream]
    for run in own:
        assert await client.get(f"/workspaces/{ws}/runs/{run}", **as_of) == then.run(stream, run)
    return len(own)


async def test_messages_come_in_pages_both_ways_and_by_role(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for number in range(5):
        writer.turn(T1, WS, writer.post(T1, WS, f"m{number}", command=f"c{number}"), "answer")
    seq = writer.seqs[T1]
    writer.post(T1, WS, "later", command="c9")
    path = f"/workspaces/{WS}/threads/{T1}/messages"
    async with running(settings, log) as client:
        await client.caught_up(log)
        whole = (await client.get(path, as_of_seq=seq))["items"]
        for order in ("asc", "desc"):
            found: list[Any] = []
            cursor: dict[str, Any] = {}
            while True:
                page = await client.get(path, limit=3, order=order, as_of_seq=seq, **cursor)
                assert page["total"] == len(whole)
                found += page["items"]
                if page["next_cursor"] is None:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert found == (whole if order == "asc" else whole[::-1])
        users = await client.get(path, as_of_seq=seq, roles="user")
        assert [row["content"] for row in users["items"]] == [f"m{number}" for number in range(5)]
        await client.get(path, 400, as_of_seq=seq, cursor="x")


async def test_a_clear_is_a_fact_as_any_and_before_it_everything_is_there(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS, "said")
    writer.write(T1, WS, f.ThreadCleared())
    async with running(settings, log) as client:
        await client.caught_up(log)
        path = f"/workspaces/{WS}/threads/{T1}"
        assert (await client.get(path, as_of_seq=1))["message_count"] == 1
        assert (await client.get(f"{path}/messages", as_of_seq=1))["items"][0]["content"] == "said"
        assert (await client.get(f"{path}/messages", as_of_seq=2))["items"] == []
        writer.write(T1, WS, f.ThreadDeleted())
        await client.caught_up(log)
        await client.get(path, 404, as_of_seq=1)
        await client.get(f"{path}/messages", 404, as_of_seq=1)


async def test_before_the_thread_ahead_of_it_and_elsewhere(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    later = writer.post(T1, WS, command="c2")
    born = writer.written[0].time_ms
    async with running(settings, log) as client:
        await client.caught_up(log)
        for path in (f"/threads/{T1}", f"/threads/{T1}/messages", f"/runs/{run}"):
            at = f"/workspaces/{WS}{path}"
            await client.get(at, 404, as_of_ms=born - 1)
            await client.get(at, as_of_ms=born)
            assert (await client.get(at, 400, as_of_seq=3))["error"] == "as_of_ahead"
            for bad in ("0", "-1", "x", ""):
                await client.get(at, 400, as_of_seq=bad)
            await client.get(f"/workspaces/{workspace(2)}{path}", 404, as_of_seq=1)
        await client.get(f"/workspaces/{WS}/runs/{later}", 404, as_of_seq=1)
        assert (await client.get(f"/workspaces/{WS}/runs/{later}", as_of_seq=2))["status"] == "running"


async def test_more_than_a_request_folds_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST_FACTS", 5)
    log = ListLog(4)
    writer = Writer(log)
    for number in range(6):
        writer.post(T1, WS, "x" * 1000, command=f"c{number}")
    at = f"/workspaces/{WS}/threads/{T1}"
    async with running(settings, log) as client:
        await client.caught_up(log)
        await client.get(at, as_of_seq=5)
        assert (await client.get(at, 413, as_of_seq=6))["error"] == "too_much_history"
        assert (await client.get(at, 413, as_of_ms=writer.now_ms))["error"] == "too_much_history"
        monkeypatch.setattr(past, "MOST_BYTES", 3000)
        assert (await client.get(at, 413, as_of_seq=5))["error"] == "too_much_history"
        await client.get(at)


async def test_a_long_thread_is_folded_a_slice_at_a_time_to_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ListLog(4)
    writer = random_story(2, log, STEPS)
    streams = {fact.stream: fact.seq for fact in writer.written if fact.seq and not fact.stream.startswith("ws:")}
    stream = max(streams, key=lambda name: streams[name] or 0)
    ws = next(fact.workspace_id for fact in writer.written if fact.stream == stream)
    path = f"/workspaces/{ws}/threads/{stream}/messages"
    async with running(settings, log) as client:
        await client.caught_up(log)
        before = await client.get(path, as_of_seq=streams[stream])
        monkeypatch.setattr(past, "_SLICE", 1)
        assert await client.get(path, as_of_seq=streams[stream]) == before == await client.get(path)


async def test_an_idle_thread_had_expired_once_it_was_due(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.write(T1, WS, f.ThreadCreated(seed=ThreadSeed(user_id="ada", agent_id="assistant", idle_s=30)))
    born = writer.now_ms
    writer.now_ms += 40_000
    writer.write(T1, WS, f.ThreadUpdated(title="late", changes=("title",)))
    async with running(settings, log, clock=lambda: writer.now_ms) as client:
        await client.caught_up(log)
        path = f"/workspaces/{WS}/threads/{T1}"
        for since_ms, expired in ((0, False), (29_999, False), (30_000, True), (39_000, True)):
            assert (await client.get(path, as_of_ms=born + since_ms))["expired"] is expired
        assert (await client.get(path, as_of_seq=1))["expired"] is False
        assert (await client.get(path, as_of_seq=2))["expired"] is False

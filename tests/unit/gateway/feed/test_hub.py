"""The hub: who hears what, what is believed, what is kept, and what is let go of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Block, ThreadSeed, Usage
from parley_events.clock import system_clock
from parley_events.codec import EVENTS_TOPIC, Fact, encode_fact
from parley_events.contents import Contents
from parley_events.errors import ObjectsUnavailable
from parley_events.large import LARGE_BYTES
from parley_events.log import Outgoing
from parley_events.log.embedded import EmbeddedLog
from parley_events.objects import Objects, open_objects
from parley_events.partition import partition_of
from parley_events.pieces import Piece, encode_pieces
from parley_events.reads import PartitionPositionView, Positions
from parley_gateway.errors import Unavailable
from parley_gateway.feed.hub import Hub, every_thread
from parley_gateway.feed.listener import Counts, HubLimits, Listener

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
OTHER = "0f0f0f0f-1111-4222-8333-444444444445"
RUN = ids.run_id(THREAD, "c")
PARTITIONS = 2
HERE = partition_of(THREAD.encode(), PARTITIONS)
NEIGHBOUR = next(
    thread
    for thread in (f"0f0f0f0f-1111-4222-8333-{number:012d}" for number in range(99))
    if partition_of(thread.encode(), PARTITIONS) == HERE
)
"""Another thread of the same partition."""


class Bench:
    """A hub on a memory log, and a writer of facts and pieces."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log
        self.rows: list[PartitionPositionView] = []
        self.hubs: list[tuple[Hub, asyncio.Task[None]]] = []
        self.answers = True
        self.objects: Objects = open_objects("memory:")

    async def start(self, **limits: int) -> Hub:
        async def opened() -> EmbeddedLog:
            return self.log

        async def positions() -> Positions:
            if not self.answers:
                raise Unavailable("away")
            return Positions(partitions=tuple(self.rows))

        hub = Hub(opened, positions, system_clock, HubLimits(**limits), Contents(self.objects))
        self.hubs.append((hub, asyncio.create_task(hub.run())))
        if self.answers:
            await until(lambda: hub.ready)
        return hub

    async def close(self) -> None:
        for _, task in self.hubs:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.log.close()

    async def write(self, *records: Outgoing) -> int:
        producer = await self.log.producer()
        offsets = [await producer.send(record) for record in records]
        await producer.close()
        return offsets[-1]

    async def claim(self, partition: int = HERE) -> int:
        body = f.PartitionClaimed(owner="test")
        return await self.write(encode_fact(Fact(body.type, "", None, -1, "", 0, body), partition))

    async def fact(self, seq: int | None, body: f.FactBody, epoch: int, stream: str = THREAD, **more: Any) -> None:
        fact = Fact(body.type, stream, seq, epoch, "w", 0, body, run_id=getattr(body, "run_id", None), **more)
        await self.write(encode_fact(fact, partition_of(stream.encode(), PARTITIONS)))

    async def piece(self, call: int, at: int, text: str, epoch: int, stream: str = THREAD) -> None:
        piece = Piece(stream, call, 0, "text", at, text)
        await self.write(encode_pieces(partition_of(stream.encode(), PARTITIONS), epoch, [piece]))


async def until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.002)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(await EmbeddedLog.open(None, partitions=PARTITIONS))
    yield made
    await made.close()


def created() -> f.FactBody:
    return f.ThreadCreated(seed=ThreadSeed())


def called(attempt: int = 1) -> f.ModelCalled:
    return f.ModelCalled(run_id=RUN, turn=0, attempt=attempt, agent_id="a", agent_version=1, model="m", shown=1)


def returned(call: int, text: str) -> f.ModelReturned:
    return f.ModelReturned(
        run_id=RUN, call=call, turn=0, blocks=(Block(kind="text", text=text),), stop_reason="end", usage=Usage()
    )


async def heard(listener: Any, count: int) -> list[Any]:
    items: list[Any] = []
    async with asyncio.timeout(5):
        while len(items) < count:
            items += await listener.take(1)
    return items


async def test_a_listener_hears_its_own_stream_alone(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(THREAD)
    await bench.fact(1, created(), 0, OTHER)
    await bench.fact(1, created(), epoch)
    await bench.piece(2, 0, "x", epoch)
    items = await heard(listener, 2)
    assert {type(item) for item in items} == {Fact, Piece}
    assert all(getattr(item, "stream", THREAD) == THREAD for item in items)
    hub.leave(listener)
    await bench.fact(2, called(), epoch)
    await until(lambda: hub.end_of(THREAD) == f"{HERE}.3")
    assert await listener.take(0.01) == []
    assert hub.listening == 0


async def test_what_a_superseded_writer_says_is_never_heard(bench: Bench) -> None:
    old = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(THREAD)
    await bench.fact(1, created(), old)
    new = await bench.claim()
    await bench.fact(2, f.ThreadDeleted(), old)
    await bench.piece(9, 0, "old", old)
    await bench.fact(2, called(), new)
    await bench.piece(2, 0, "new", new)
    items = await heard(listener, 3)
    assert [item.type for item in items if isinstance(item, Fact)] == ["thread.created", "model.called"]
    assert [item.text for item in items if isinstance(item, Piece)] == ["new"]
    assert [piece.text for piece in hub.kept(THREAD)] == ["new"]


async def test_pieces_of_a_newer_writer_silence_the_older_before_the_claim_is_read(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(THREAD)
    await bench.piece(5, 0, "from the future", epoch + 50)
    await bench.piece(5, 0, "old", epoch)
    await bench.fact(1, created(), epoch)
    items = await heard(listener, 2)
    assert [item.text for item in items if isinstance(item, Piece)] == ["from the future"]
    assert [item.type for item in items if isinstance(item, Fact)] == ["thread.created"], "the counters do not mix"


async def test_it_starts_where_history_stands_with_the_epoch_in_force(bench: Bench) -> None:
    epoch = await bench.claim()
    await bench.fact(1, created(), epoch)
    bench.rows = [PartitionPositionView(partition=HERE, next_offset=2, epoch=epoch, last_number=0)]
    hub = await bench.start()
    assert hub.end_of(THREAD) == f"{HERE}.2"
    listener = hub.listen(THREAD)
    await bench.fact(2, f.ThreadDeleted(), epoch - 1)
    await bench.fact(2, called(), epoch)
    [fact] = await heard(listener, 1)
    assert fact.type == "model.called"


async def test_it_waits_for_history_before_it_starts(bench: Bench) -> None:
    bench.answers = False
    hub = await bench.start()
    assert not hub.ready and hub.log is None
    bench.answers = True
    await until(lambda: hub.ready)


async def test_whoever_joins_in_mid_call_gets_its_beginning(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    await bench.fact(1, called(), epoch)
    await bench.piece(1, 0, "ab", epoch)
    await bench.piece(1, 2, "cd", epoch)
    await until(lambda: len(hub.kept(THREAD)) == 2)
    late = await bench.start()
    await until(lambda: len(late.kept(THREAD)) == 2)
    assert [piece.text for piece in late.kept(THREAD)] == ["ab", "cd"], "two minutes back, also in another process"


async def test_pieces_are_let_go_of_when_their_turn_is_on_record(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    await bench.fact(1, called(), epoch)
    await bench.piece(1, 0, "one", epoch)
    failed = f.ModelFailed(run_id=RUN, call=1, turn=0, attempt=1, kind="cut", message="", usage=Usage(), retry=True)
    await bench.fact(2, failed, epoch, call=1)
    await bench.fact(3, called(2), epoch)
    await bench.piece(3, 0, "one two", epoch)
    await until(lambda: hub.unfinished.sizes()["calls"] == 2)
    await bench.fact(4, returned(3, "one two"), epoch, call=3)
    await until(lambda: hub.unfinished.sizes()["calls"] == 0)
    listener = hub.listen(THREAD)
    await bench.piece(3, 0, "late", epoch)
    await bench.piece(9, 0, "another", epoch)
    [piece] = await heard(listener, 1)
    assert piece.text == "another"
    assert hub.unfinished.sizes()["calls"] == 1


async def test_what_is_kept_is_bounded(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start(kept_bytes=100_000)
    for call in range(1, 40):
        await bench.piece(call, 0, "x" * 2000, epoch)
    await until(lambda: hub.kept(THREAD) and hub.kept(THREAD)[-1].call == 39)
    assert hub.unfinished.sizes()["bytes"] <= 100_000
    assert hub.kept(THREAD)[0].call > 1, "the oldest went first"


async def test_a_slow_listener_loses_pieces_first_and_is_then_closed(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start(queue_items=10)
    listener = hub.listen(THREAD)
    for n in range(12):
        await bench.piece(1, n, "x", epoch)
    await until(lambda: len(hub.kept(THREAD)) == 12)
    for seq in range(1, 10):
        await bench.fact(seq, created(), epoch)
    await until(lambda: hub.end_of(THREAD) == f"{HERE}.10")
    items = await listener.take(0)
    assert [item.seq for item in items if isinstance(item, Fact)] == list(range(1, 10)), "no fact is lost"
    assert not listener.closed
    for seq in range(10, 22):
        await bench.fact(seq, created(), epoch)
    await until(lambda: listener.closed)
    left = await listener.take(0)
    assert [item.seq for item in left if isinstance(item, Fact)] == list(range(10, 20)), (
        "what was queued is whole; the rest is fetched again"
    )


async def test_large_facts_that_wait_are_bounded_by_what_they_take(bench: Bench) -> None:
    """Also after pieces were left out to make room: what is counted of a fact stays what it takes."""
    epoch = await bench.claim()
    hub = await bench.start(queue_bytes=100_000)
    listener = hub.listen(THREAD)
    for n in range(600):
        await bench.piece(1, n, "x", epoch)
    for seq in range(1, 20):
        await bench.fact(seq, f.ThreadUpdated(title="t" * 10_000, changes=("title",)), epoch)
    await until(lambda: listener.closed)
    items = await listener.take(0)
    assert [item.seq for item in items if isinstance(item, Fact)] == [1, 2], "each takes more than 40,000"


def test_where_nothing_may_wait_a_fact_does_until_the_next() -> None:
    counts = Counts()
    listener = Listener(THREAD, HubLimits(queue_bytes=0), "", True, counts)
    listener.put(Piece(THREAD, 1, 0, "text", 0, "x"), 204)
    fact = Fact("thread.created", THREAD, 1, 0, "w", 0, created())
    listener.put(fact, 1000)
    assert listener.grab() == [fact] and counts.pieces == 1
    listener.put(fact, 1000)
    listener.put(fact, 1000)
    assert listener.grab() == [fact] and listener.closed


async def test_two_who_wait_for_one_command_get_an_outcome_each(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    first, second = hub.expect("cmd", "req-1"), hub.expect("cmd", "req-2")
    repeated = f.CommandRepeated(
        command_type="thread.create", outcome_type="thread.created", outcome_seq=1, outcome_time_ms=0, first={}
    )
    await bench.fact(1, created(), epoch, causation_id="cmd", correlation_id="req-2")
    await bench.fact(None, repeated, epoch, causation_id="cmd", correlation_id="req-1")
    async with asyncio.timeout(5):
        assert (await second).type == "thread.created"
        assert (await first).type == "command.repeated"
    hub.forget("cmd", first)
    hub.forget("cmd", second)
    assert not hub._waiting


async def test_a_record_that_is_no_fact_is_passed_over(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(THREAD)
    await bench.write(Outgoing(EVENTS_TOPIC, HERE, b"x", b"{", ()))
    await bench.fact(1, created(), epoch)
    [fact] = await heard(listener, 1)
    assert fact.seq == 1


async def test_draining_ends_every_feed_now_and_later(bench: Bench) -> None:
    await bench.claim()
    hub = await bench.start()
    before = hub.listen(THREAD)
    waiting = asyncio.create_task(before.take(5))
    await asyncio.sleep(0)
    hub.drain()
    async with asyncio.timeout(1):
        assert await waiting == []
    assert before.closed and hub.listen(THREAD).closed


# ---- facts whose contents lie in the object store


class Store:
    """The bench's objects; `away`: it raises instead of an answer; `silent`: it gives none."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self.away, self.silent = objects, False, False
        self.asked = 0

    async def put(self, workspace_id: str, data: bytes) -> str:
        return await self._objects.put(workspace_id, data)

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.away:
            raise ObjectsUnavailable("away")
        return await self._objects.get(workspace_id, sha256)


LARGE = "x" * (LARGE_BYTES + 1)
WORKSPACE = "11111111-2222-4333-8444-555555555555"


async def large(
    bench: Bench, seq: int, epoch: int, stream: str = THREAD, body: f.FactBody | None = None, **more: Any
) -> None:
    """A fact that refers to its text."""
    contents, body = Contents(bench.objects), body or returned(2, LARGE)
    await contents.keep(WORKSPACE, body)
    run, call = (RUN, 2) if isinstance(body, f.ModelReturned) else (None, None)
    fact = Fact(body.type, stream, seq, epoch, WORKSPACE, 0, body, run_id=run, call=call, **more)
    await bench.write(encode_fact(fact, partition_of(stream.encode(), PARTITIONS), contents.stored))


async def test_a_fact_that_waits_for_its_contents_holds_up_its_own_stream_alone(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener, other = hub.listen(THREAD), hub.listen(NEIGHBOUR)
    outcome = hub.expect("cmd", None)
    store.away = True
    await bench.fact(1, called(), epoch)
    await large(bench, 2, epoch, causation_id="cmd")
    await bench.fact(3, called(2), epoch)
    await bench.fact(1, created(), epoch, NEIGHBOUR)
    assert [fact.seq for fact in await heard(other, 1)] == [1]
    assert [fact.seq for fact in await heard(listener, 1)] == [1]
    assert await listener.take(0.02) == [] and not outcome.done()
    store.away = False
    facts = await heard(listener, 2)
    assert [fact.seq for fact in facts] == [2, 3], "in order"
    assert facts[0].body.blocks[0].text == LARGE
    async with asyncio.timeout(5):
        assert (await outcome).body == facts[0].body
    await until(lambda: not hub._held)


async def test_what_nobody_wants_is_not_fetched(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    await large(bench, 1, epoch)
    await bench.fact(2, created(), epoch)
    await until(lambda: hub.end_of(THREAD) == f"{HERE}.3")
    assert store.asked == 0 and not hub._held


@pytest.mark.parametrize("how", ["away", "silent"])
async def test_who_waits_too_long_for_contents_is_closed_and_resumes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("parley_gateway.feed.hub.CONTENTS_S", 0.05)
    monkeypatch.setattr("parley_gateway.feed.hub._CONTENTS_LOOK_S", 0.01)
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(THREAD)
    setattr(store, how, True)
    await large(bench, 1, epoch)
    await until(lambda: listener.closed)
    assert await listener.take(0) == [], "never the next fact without this one"
    setattr(store, how, False)
    again = hub.listen(THREAD)
    await until(lambda: not hub._held)
    await bench.fact(2, created(), epoch)
    assert [fact.seq for fact in await heard(again, 1)] == [2]


@pytest.mark.parametrize("how", ["away", "silent"])
async def test_what_is_held_behind_a_fact_that_waits_is_bounded_in_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("parley_gateway.feed.hub._CONTENTS_LOOK_S", 0.01)
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start(queue_bytes=100_000)
    listener = hub.listen(THREAD)
    setattr(store, how, True)
    await large(bench, 1, epoch)
    await bench.fact(2, returned(2, "x" * 50_000), epoch)
    await until(lambda: listener.closed and not hub._held)
    assert await listener.take(0) == []


async def test_who_follows_all_threads_hears_a_fact_with_its_contents(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(every_thread(WORKSPACE), pieces=False)
    await large(bench, 1, epoch)
    (fact,) = await heard(listener, 1)
    assert fact.body.blocks[0].text == LARGE


async def test_who_follows_all_threads_never_misses_a_fact_silently(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_gateway.feed.hub.CONTENTS_S", 0.05)
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener = hub.listen(every_thread(WORKSPACE), pieces=False)
    store.away = True
    await large(bench, 1, epoch)
    await until(lambda: listener.closed)
    assert await listener.take(0) == []


async def test_a_revoked_key_does_not_wait_for_the_contents_of_what_came_before_it(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    stream = ids.workspace_stream(WORKSPACE)
    epoch = await bench.claim(partition_of(stream.encode(), PARTITIONS))
    hub = await bench.start()
    heard_of: list[str] = []
    for kind in (f.WorkspaceChanged.type, f.KeyRevoked.type):
        hub.watch(kind, lambda fact: heard_of.append(fact.type))
    store.away = True
    await large(bench, 1, epoch, stream, body=f.WorkspaceChanged(context=LARGE))
    await bench.fact(2, f.KeyRevoked(key_id="k"), epoch, stream)
    await until(lambda: heard_of == [f.KeyRevoked.type])
    store.away = False
    await until(lambda: heard_of == [f.KeyRevoked.type, f.WorkspaceChanged.type])


async def test_one_fact_is_taken_however_large_it_is(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start(queue_bytes=1000)
    listener = hub.listen(THREAD)
    await large(bench, 1, epoch)
    assert [fact.seq for fact in await heard(listener, 1)] == [1]
    assert not listener.closed


async def test_who_waits_for_a_position_waits_until_it_has_been_read_and_no_longer_than_said(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    here = hub.end_of(THREAD)
    await hub.come_to(here, 0)
    partition, _, offset = here.partition(".")
    waiting = asyncio.create_task(hub.come_to(f"{partition}.{int(offset) + 2}", 5))
    await bench.fact(1, created(), epoch)
    await until(lambda: hub.end_of(THREAD) != here)
    assert not waiting.done(), "one of two"
    await bench.fact(2, created(), epoch)
    await waiting
    with pytest.raises(TimeoutError):
        await hub.come_to(f"{partition}.{int(offset) + 3}", 0.01)
    assert not hub._coming

"""Sending facts: in order, kept until acknowledged, and again byte for byte after an unknown outcome."""

from __future__ import annotations

import asyncio
import gc
from asyncio import Future
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_dispatcher.sender import Sender
from parley_events.errors import LogUnavailable, ProducerBroken
from parley_events.log import Incoming, Outgoing
from parley_events.log.embedded import EmbeddedLog
from tests.unit.dispatcher.world import LIMIT_S, GatedLog, eventually, within


class FlakyLog(GatedLog):
    """A log of which producers break where a test says: `script` has one letter per send: `.` it lands, `l` it lands
    and nobody learns of it, `x` it is lost. After `l` and `x` the producer is broken."""

    def __init__(self, log: EmbeddedLog, script: str = "", down: int = 0) -> None:
        super().__init__(log)
        self.script, self.down = list(script), down
        self.landed: list[Outgoing] = []
        self.producers = 0
        self.producer = self._producer  # type: ignore[assignment]

    async def _producer(self) -> FlakyProducer:
        if self.down:
            self.down -= 1
            raise LogUnavailable("away")
        self.producers += 1
        return FlakyProducer(self)


class FlakyProducer:
    def __init__(self, log: FlakyLog) -> None:
        self._log = log
        self._flying: list[Future[int]] = []
        self.broken = False

    def send(self, record: Outgoing, *, now: bool = False) -> Future[int]:
        if self.broken:
            raise ProducerBroken("broken")
        future: Future[int] = asyncio.get_running_loop().create_future()
        fate = self._log.script.pop(0) if self._log.script else "."
        if fate in ".l":
            self._log.landed.append(record)
        if fate == ".":
            asyncio.get_running_loop().call_later(0.002, self._land, future, len(self._log.landed) - 1)
            self._flying.append(future)
        else:
            self.broken = True
            for flying in (*self._flying, future):
                asyncio.get_running_loop().call_soon(self._fail, flying)
        return future

    def _land(self, future: Future[int], offset: int) -> None:
        if not future.done():
            future.set_result(offset)

    def _fail(self, future: Future[int]) -> None:
        if not future.done():
            future.set_exception(LogUnavailable("unknown"))

    async def close(self, grace_s: float = 5.0) -> None:
        self.broken = True


def record(number: int, partition: int = 0) -> Outgoing:
    return Outgoing("parley.events", partition, b"k", b"%d" % number, (("h", b"%d" % number),))


@pytest.fixture
async def memory() -> AsyncIterator[EmbeddedLog]:
    log = await EmbeddedLog.open(None, 2)
    yield log
    await log.close()


def firsts(landed: list[Outgoing]) -> list[Outgoing]:
    """What a reader makes of it: each record at its first place."""
    return list(dict.fromkeys(landed))


async def test_records_land_in_order_and_each_is_told_its_offset(memory: EmbeddedLog) -> None:
    log, told = FlakyLog(memory), dict[int, int]()
    sender = Sender(log)
    await sender.start()
    for n in range(5):
        sender.send(record(n), lambda offset, n=n: told.update({n: offset}))  # type: ignore[misc]
    assert sender.backlog > 0
    await eventually(lambda: len(told) == 5)
    assert (log.landed, told) == ([record(n) for n in range(5)], {n: n for n in range(5)})
    assert sender.backlog == 0
    await sender.close()


@pytest.mark.parametrize("fate", ["l", "x"])
async def test_after_an_unknown_outcome_all_that_is_unacknowledged_goes_again_in_order(
    memory: EmbeddedLog, fate: str
) -> None:
    log, told = FlakyLog(memory, f"..{fate}"), list[int]()
    sender = Sender(log)
    await sender.start()
    for n in range(3):
        sender.send(record(n), lambda _, n=n: told.append(n))  # type: ignore[misc]
    sender.send(record(3), lambda _: told.append(3))
    await eventually(lambda: len(told) == 4)
    assert firsts(log.landed) == [record(n) for n in range(4)]
    assert (told, log.producers, sender.backlog) == ([0, 1, 2, 3], 2, 0)
    await sender.close()


async def test_a_broken_producer_is_one_event_and_not_one_for_each_record_in_flight(
    memory: EmbeddedLog, caplog: pytest.LogCaptureFixture
) -> None:
    log = FlakyLog(memory, "....x")
    sender = Sender(log)
    await sender.start()
    for n in range(5):
        sender.send(record(n))
    await eventually(lambda: sender.backlog == 0)
    gc.collect()
    assert [entry.name for entry in caplog.records] == ["parley_dispatcher.sender"]
    await sender.close()


async def test_what_is_handed_over_while_there_is_no_producer_waits_its_turn(memory: EmbeddedLog) -> None:
    log = FlakyLog(memory, "x", down=0)
    sender = Sender(log)
    await sender.start()
    log.down = 2
    sender.send(record(0))
    await eventually(lambda: sender._producer is None)
    for n in range(1, 4):
        sender.send(record(n))
    await eventually(lambda: sender.backlog == 0)
    assert log.landed == [record(n) for n in range(4)]
    assert log.producers == 2
    await sender.close()


@settings(max_examples=60)
@given(st.lists(st.sampled_from([".", ".", ".", "l", "x"]), max_size=25), st.integers(1, 15), st.integers(0, 1))
def test_whatever_breaks_readers_see_every_record_once_and_in_order(script: list[str], count: int, down: int) -> None:
    async def play() -> None:
        memory = await EmbeddedLog.open(None, 1)
        log, told = FlakyLog(memory, "".join(script)), list[int]()
        sender = Sender(log)
        await sender.start()
        log.down = down
        for n in range(count):
            sender.send(record(n), lambda _, n=n: told.append(n))  # type: ignore[misc]
            if n % 4 == 3:
                await asyncio.sleep(0)
        await within(drained(sender))
        assert firsts(log.landed) == [record(n) for n in range(count)]
        assert sorted(told) == list(range(count)), "each is acknowledged once"
        await sender.close()
        await memory.close()

    asyncio.run(play())


async def drained(sender: Sender) -> None:
    while sender.backlog:
        await asyncio.sleep(0.001)


async def test_what_is_forgotten_is_not_sent_again(memory: EmbeddedLog) -> None:
    log = FlakyLog(memory, "x")
    sender = Sender(log)
    await sender.start()
    log.down = 1
    for n in range(4):
        sender.send(record(n, n % 2))
    sender.forget(1)
    await eventually(lambda: sender.backlog == 0)
    assert log.landed == [record(0), record(2, 0)]
    await sender.close()


async def test_a_commit_that_fails_in_sqlite_is_made_good(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, 1)
    sender = Sender(log)
    await sender.start()
    log.fail_next_commit = True
    for n in range(20):
        sender.send(record(n))
    await eventually(lambda: sender.backlog == 0)
    tail = await log.tail("parley.events", {0: 0})
    found: list[Incoming] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < 20:
            found += await tail.batch()
    assert [(kept.value, kept.headers, kept.offset) for kept in found] == [
        (record(n).value, record(n).headers, n) for n in range(20)
    ]
    await tail.close()
    await sender.close()
    await log.close()


async def test_closing_waits_for_what_was_handed_over_and_not_for_ever(memory: EmbeddedLog) -> None:
    sender = Sender(FlakyLog(memory, "x", down=0))
    await sender.start()
    sender.send(record(0))
    await within(sender.close(0.1), 5.0)

"""Unknown outcomes in the embedded log: a write that fails takes down all of its producer, and order survives."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from parley_events.errors import LogUnavailable, ProducerBroken
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.embedded_producer import EmbeddedProducer
from tests.contract.log.conftest import Place
from tests.contract.log.reading import LIMIT_S, TOPIC, read, record, texts, until, write, written

CANNOT_FAIL = pytest.param(
    "memory", marks=pytest.mark.xfail(strict=True, reason="memory has no commit that could fail", raises=AssertionError)
)


def embedded(place: Place) -> EmbeddedLog:
    assert isinstance(place.log, EmbeddedLog)
    return place.log


@pytest.mark.parametrize("place", ["embedded", CANNOT_FAIL], indirect=True)
async def test_a_failed_write_breaks_the_producer_and_a_new_one_goes_on(place: Place) -> None:
    log = embedded(place)
    producer = await log.producer()
    assert await producer.send(record(0, "a")) == 0
    log.fail_next_commit = True
    futures = [producer.send(record(p, str(p))) for p in (0, 1, 2)]
    async with asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
    assert producer.broken
    with pytest.raises(ProducerBroken):
        producer.send(record(0, "refused"))
    again = await log.producer()
    assert await written(again, [record(p, str(p)) for p in (0, 1, 2)]) == [1, 0, 0]
    tail = await log.tail(TOPIC, {0: 0, 1: 0, 2: 0})
    found = await read(tail, 4)
    assert [texts(found, p) for p in (0, 1, 2)] == [["a", "0"], ["1"], ["2"]]
    await tail.close()
    await producer.close()
    await again.close()


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
async def test_what_was_sent_after_a_failed_write_does_not_land_before_it(place: Place) -> None:
    """The writing thread goes on before the loop has heard of the failure: what it finds queued behind must not be
    written, or the order would be lost when the rest is sent again."""
    log = embedded(place)
    producer, other = await log.producer(), await log.producer()
    assert await producer.send(record(0, "before")) == 0
    started = _hold_the_writer(log)
    log.fail_next_commit = True
    first = producer.send(record(0, "first"))
    started.release()
    _wait_here_until_failed(producer)  # the loop has not run since
    second = producer.send(record(0, "second"))
    others = other.send(record(0, "another's"))
    async with asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
        assert await others == 1
    again = await log.producer()
    assert await written(again, [record(0, "first"), record(0, "second")]) == [2, 3]
    tail = await log.tail(TOPIC, {0: 0})
    assert texts(await read(tail, 4)) == ["before", "another's", "first", "second"]
    await tail.close()


class _Hold:
    """Keeps the writing thread busy until it is let go."""

    def __init__(self) -> None:
        self.held, self.go = threading.Event(), threading.Event()

    def __call__(self, _: object) -> None:
        self.held.set()
        self.go.wait(LIMIT_S)

    def release(self) -> None:
        self.go.set()


def _hold_the_writer(log: EmbeddedLog) -> _Hold:
    hold = _Hold()
    log._jobs.put(hold)
    assert hold.held.wait(LIMIT_S)
    return hold


def _wait_here_until_failed(producer: EmbeddedProducer) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not producer.failed:
        assert time.monotonic() < until_s
        time.sleep(0.001)


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
async def test_a_write_that_fails_in_any_way_is_said_to_everyone_who_waits(place: Place) -> None:
    """Also to those behind the one that failed, and the writing thread lives on."""
    log = embedded(place)
    hold = _hold_the_writer(log)
    producer = await log.producer()
    one = producer.send(record(0, "one"))
    group = await log.group(TOPIC, "g", _nothing, _nothing)

    def fail(_: object) -> None:
        raise RuntimeError("not even an error of SQLite")

    log._jobs.put(fail)
    committing = asyncio.create_task(group.commit({0: 0}))
    await asyncio.sleep(0)
    two = producer.send(record(0, "two"))
    hold.release()
    async with asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(one, two, committing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LogUnavailable] * 3
    assert await write(log, [record(0, "later")]) == [0]
    await group.commit({0: 1})
    await group.close()


async def _nothing(_: frozenset[int]) -> None: ...


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
async def test_a_folder_that_is_still_written_to_is_not_let_go_of(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_events.log.embedded._CLOSE_S", 0.05)
    log = embedded(place)
    hold = _hold_the_writer(log)
    async with asyncio.timeout(LIMIT_S):
        await log.close()
    assert log._lock is not None
    hold.release()
    assert log._thread is not None
    await asyncio.to_thread(log._thread.join, LIMIT_S)
    log._drop_lock()
    await until(lambda: not log._thread.is_alive() if log._thread else True)

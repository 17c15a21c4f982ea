"""Pieces: the first of a block at once, the rest once per tick and partition, and none that a fact has overtaken."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator

import pytest

from parley_dispatcher.deltas import Deltas
from parley_events.errors import LogUnavailable, RecordTooLarge
from parley_events.log import Incoming, Outgoing
from parley_events.log.embedded import EmbeddedLog
from parley_events.pieces import Kind, Piece, decode_pieces, pieces_epoch
from tests.unit.dispatcher.world import GatedLog, eventually

NEVER_MS = 3_600_000


class Kept:
    """A producer that keeps what it is given; with `failing` it refuses, with `losing` nothing arrives."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.hurried: list[bool] = []
        self.failing: Exception | None = None
        self.losing = self.broken = False

    def send(self, record: Outgoing, *, now: bool = False) -> Future[int]:
        if self.failing is not None:
            raise self.failing
        future: Future[int] = asyncio.get_running_loop().create_future()
        if self.losing:
            self.broken = True
            future.set_exception(LogUnavailable("away"))
        else:
            self.records.append(record)
            self.hurried.append(now)
            future.set_result(len(self.records))
        return future

    async def close(self, grace_s: float = 5.0) -> None:
        self.broken = True

    def batches(self) -> list[tuple[int, int, list[Piece]]]:
        """(partition, epoch, pieces) of every record."""
        incoming = [Incoming(r.topic, r.partition, 0, 0, r.key, r.value, r.headers) for r in self.records]
        return [(record.partition, pieces_epoch(record), decode_pieces(record)) for record in incoming]


class KeptLog(GatedLog):
    def __init__(self, log: EmbeddedLog) -> None:
        super().__init__(log)
        self.made: list[Kept] = []
        self.producer = self._producer  # type: ignore[assignment]

    async def _producer(self) -> Kept:
        self.made.append(Kept())
        return self.made[-1]


@pytest.fixture
async def log() -> AsyncIterator[KeptLog]:
    memory = await EmbeddedLog.open(None, 2)
    yield KeptLog(memory)
    await memory.close()


async def started(log: KeptLog, tick_ms: int = NEVER_MS) -> tuple[Deltas, Kept]:
    deltas = Deltas(log, tick_ms)
    await deltas.start()
    return deltas, log.made[-1]


def piece(at: int, text: str, thread: str = "t", call: int = 2, block: int = 0, kind: Kind = "text") -> Piece:
    return Piece(thread, call, block, kind, at, text)


async def test_the_first_piece_of_a_block_goes_at_once_and_takes_along_what_waits_of_its_call(log: KeptLog) -> None:
    deltas, kept = await started(log)
    deltas.add(0, 5, piece(0, "one "))
    deltas.add(0, 5, piece(4, "two "))
    assert kept.batches() == [(0, 5, [piece(0, "one ")])]
    deltas.add(0, 5, piece(9, "other", "u"))
    deltas.add(0, 5, piece(9, "other", call=9))
    deltas.add(0, 5, piece(0, "hm", block=1, kind="thought"))
    assert kept.batches()[1:] == [(0, 5, [piece(4, "two "), piece(0, "hm", block=1, kind="thought")])]
    await deltas.close()


async def test_later_pieces_wait_for_the_tick_and_go_merged_in_one_record_per_partition(log: KeptLog) -> None:
    deltas, kept = await started(log, tick_ms=20)
    for thread in ("t", "u"):
        deltas.add(0, 5, piece(0, "a", thread))
    deltas.add(1, 6, piece(0, "a", "v"))
    del kept.records[:]
    for thread in ("t", "u"):
        deltas.add(0, 5, piece(1, "b", thread))
        deltas.add(0, 5, piece(2, "cd", thread))
    deltas.add(1, 6, piece(1, "x", "v"))
    assert kept.records == []
    await eventually(lambda: len(kept.records) >= 2)
    assert kept.hurried == [False, False, False, True, True], "the tick does not wait for others"
    assert sorted(kept.batches()) == [(0, 5, [piece(1, "bcd"), piece(1, "bcd", "u")]), (1, 6, [piece(1, "x", "v")])]
    deltas.add(0, 5, piece(4, "e"))
    await eventually(lambda: len(kept.records) == 3)
    await deltas.close()


async def test_what_waits_of_a_call_that_ended_is_dropped_and_nothing_else(log: KeptLog) -> None:
    deltas, kept = await started(log)
    for thread, call in (("t", 2), ("t", 9), ("u", 2)):
        deltas.add(0, 5, piece(1, "b", thread, call))
        deltas.add(0, 5, piece(1, "c", thread, call, block=1))
    deltas.finish(0, 5, "t", 2)
    deltas._flush()
    [(_, _, pieces)] = kept.batches()
    assert [(one.thread_id, one.call, one.block) for one in pieces] == [
        ("t", 9, 0),
        ("t", 9, 1),
        ("u", 2, 0),
        ("u", 2, 1),
    ]
    await deltas.close()


async def test_epochs_are_never_mixed_in_one_record(log: KeptLog) -> None:
    deltas, kept = await started(log)
    deltas.add(0, 5, piece(1, "old"))
    deltas.add(0, 8, piece(1, "new"))
    deltas._flush()
    assert sorted((epoch, pieces[0].text) for _, epoch, pieces in kept.batches()) == [(5, "old"), (8, "new")]
    await deltas.close()


async def test_what_cannot_be_sent_is_dropped_and_the_next_goes_over_a_new_producer(log: KeptLog) -> None:
    deltas, kept = await started(log)
    kept.losing = True
    deltas.add(0, 5, piece(0, "lost"))
    await eventually(lambda: len(log.made) == 2 and deltas._producer is log.made[1])
    assert deltas.dropped == 1
    deltas.add(0, 5, piece(0, "shown", call=3))
    assert log.made[1].batches() == [(0, 5, [piece(0, "shown", call=3)])]
    await deltas.close()


async def test_a_batch_that_is_refused_stops_nobody(log: KeptLog) -> None:
    deltas, kept = await started(log)
    kept.failing = RecordTooLarge("too large")
    deltas.add(0, 5, piece(0, "x"))
    assert deltas.dropped == 1
    await eventually(lambda: len(log.made) == 2 and deltas._producer is log.made[1])
    await deltas.close()

"""Tails: from a position and from a time, partitions that come, go and move while it reads, and gaps."""

from __future__ import annotations

import asyncio

import pytest

from parley_events.errors import RetentionGap
from parley_events.log import Incoming, Log, Tail
from parley_events.log import embedded as embedded_log
from tests.contract.log.conftest import PARTITIONS, Place
from tests.contract.log.reading import LIMIT_S, TOPIC, read, read_until, record, texts, write, written


async def ten_each(log: Log, partitions: int = PARTITIONS) -> None:
    await write(log, [record(p, f"{p}:{n}") for n in range(10) for p in range(partitions)])


async def test_a_tail_starts_where_it_is_told_and_goes_on_with_what_comes(log: Log) -> None:
    await ten_each(log)
    tail = await log.tail(TOPIC, {0: 7, 2: 10, 3: 0})
    assert [tail.position(p) for p in (0, 2, 3)] == [7, 10, 0]
    found = await read(tail, 13)
    assert texts(found, 0) == ["0:7", "0:8", "0:9"]
    assert texts(found, 3) == [f"3:{n}" for n in range(10)]
    assert [tail.position(p) for p in (0, 2, 3)] == [10, 10, 10]
    await write(log, [record(2, "new"), record(1, "not asked for")])
    assert texts(await read(tail, 1)) == ["new"]
    assert tail.position(2) == 11
    await tail.close()


async def test_two_tails_read_for_themselves(log: Log) -> None:
    await ten_each(log, 1)
    one, two = await log.tail(TOPIC, {0: 0}), await log.tail(TOPIC, {0: 5})
    assert texts(await read(one, 10)) == [f"0:{n}" for n in range(10)]
    assert texts(await read(two, 5)) == [f"0:{n}" for n in range(5, 10)]
    await one.close()
    await two.close()


async def test_a_limit_is_kept_and_nothing_is_passed_over(log: Log) -> None:
    await ten_each(log)
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    found: list[Incoming] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < 10 * PARTITIONS:
            batch = await tail.batch(timeout_s=0.5, limit=3)
            assert len({r.partition for r in batch}) <= PARTITIONS
            assert all(sum(1 for r in batch if r.partition == p) <= 3 for p in range(PARTITIONS))
            found.extend(batch)
    for partition in range(PARTITIONS):
        assert texts(found, partition) == [f"{partition}:{n}" for n in range(10)]
    await tail.close()


@pytest.mark.parametrize("place", ["embedded", "memory"], indirect=True)
async def test_a_partition_with_much_to_read_does_not_hold_up_the_others(log: Log) -> None:
    """Of Kafka the broker sees to this: it gives something of every partition with each fetch."""
    await write(log, [record(0, str(n)) for n in range(2000)])
    await write(log, [record(3, "waits")])
    tail = await log.tail(TOPIC, {0: 0, 3: 0})
    found: list[Incoming] = []
    async with asyncio.timeout(LIMIT_S):
        while "waits" not in texts(found, 3):
            found.extend(await tail.batch(timeout_s=0.5, limit=20))
    assert len(texts(found, 0)) < 2000
    await tail.close()


async def test_nothing_new_is_said_in_time(log: Log) -> None:
    tail = await log.tail(TOPIC, {0: 0})
    empty = await log.tail(TOPIC, {})
    async with asyncio.timeout(LIMIT_S):
        assert list(await tail.batch(timeout_s=0.05)) == []
        assert list(await empty.batch(timeout_s=0.05)) == []
    await tail.close()
    await empty.close()


async def test_partitions_come_and_go_while_it_reads(log: Log) -> None:
    await ten_each(log)
    tail = await log.tail(TOPIC, {})
    tail.add(1, 8)
    assert texts(await read(tail, 2)) == ["1:8", "1:9"]
    tail.add(2, 9)
    assert texts(await read(tail, 1)) == ["2:9"]
    tail.remove(1)
    tail.remove(1)
    await write(log, [record(1, "not read any more"), record(2, "read")])
    assert texts(await read(tail, 1)) == ["read"]
    tail.add(1, 0)
    assert texts(await read(tail, 11)) == [f"1:{n}" for n in range(10)] + ["not read any more"]
    tail.remove(1)
    tail.remove(2)
    assert list(await tail.batch(timeout_s=0.05)) == []
    tail.add(3, 9)
    assert texts(await read(tail, 1)) == ["3:9"]
    await tail.close()


@pytest.mark.parametrize("to", [0, 5, 95])
async def test_a_moved_partition_is_read_from_there_and_nothing_that_was_fetched_before(log: Log, to: int) -> None:
    await write(log, [record(0, str(n)) for n in range(100)])
    tail = await log.tail(TOPIC, {0: 40, 1: 0})
    first = await read_until(tail, lambda found: len(found) > 0)
    assert (first[0].value or b"") == b"40"
    tail.add(0, to)
    assert tail.position(0) == to
    found = await read(tail, 100 - to)
    assert texts(found) == [str(n) for n in range(to, 100)]
    await tail.close()


async def test_a_partition_moved_or_removed_in_the_middle_of_a_read_is_not_returned(log: Log) -> None:
    await ten_each(log)
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    reading = asyncio.create_task(tail.batch(timeout_s=0.5))
    await asyncio.sleep(0)
    tail.remove(0)
    tail.add(1, 5)
    found = list(await asyncio.wait_for(reading, LIMIT_S))
    found += await read_until(tail, lambda more: tail.position(1) == 10 and tail.position(3) == 10)
    if texts(found, 0):  # it was read before it was removed
        assert texts(found, 0) == [f"0:{n}" for n in range(10)]
    assert texts(found, 1)[-5:] == [f"1:{n}" for n in range(5, 10)]
    assert texts(found, 1)[:-5] in ([], [f"1:{n}" for n in range(10)])
    assert texts(found, 3) == [f"3:{n}" for n in range(10)]
    await tail.close()


async def test_a_reader_that_is_cancelled_loses_nothing(log: Log) -> None:
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    found: list[Incoming] = []
    producer = await log.producer()
    sending = asyncio.create_task(written(producer, [record(n % PARTITIONS, str(n)) for n in range(400)]))
    async with asyncio.timeout(LIMIT_S):
        while len(found) < 400:
            reading = asyncio.create_task(tail.batch(timeout_s=0.5))
            await asyncio.sleep(0)
            await asyncio.sleep(0.001 * (len(found) % 3))
            if not reading.done():
                reading.cancel()
            try:
                found.extend(await reading)
            except asyncio.CancelledError:
                found.extend(await tail.batch(timeout_s=0.2, limit=50))
    await sending
    for partition in range(PARTITIONS):
        assert texts(found, partition) == [str(n) for n in range(partition, 400, PARTITIONS)]
    await tail.close()
    await producer.close()


async def test_a_time_is_turned_into_the_position_of_the_first_record_from_then_on(log: Log) -> None:
    """The log's own times are taken: they are written until the clock has moved on."""
    tail = await log.tail(TOPIC, {0: 0})
    times: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        while len(set(times)) < 4:
            await write(log, [record(0, "tick")])
            times.extend(r.time_ms for r in await tail.batch(timeout_s=0.5))
    end = len(times)
    assert times == sorted(times)
    for time_ms in sorted(set(times)):
        assert (await log.at_time(TOPIC, time_ms))[0] == times.index(time_ms)
    assert (await log.at_time(TOPIC, 0)) == dict.fromkeys(range(PARTITIONS), 0)
    later = await log.at_time(TOPIC, times[-1] + 1)
    assert later == dict.fromkeys(range(PARTITIONS), 0) | {0: end}
    between = sorted(set(times))[1] + 1
    assert (await log.at_time(TOPIC, between))[0] == next(n for n, t in enumerate(times) if t >= between)
    await tail.close()


async def test_a_position_that_is_gone_is_a_gap_and_no_other_partition_loses_a_record(place: Place) -> None:
    log = place.log
    await ten_each(log)
    await write(log, [record(2, "newest")])
    await place.forget_below(TOPIC, 2, 10)
    assert (await log.begins(TOPIC))[2] == 10
    starts = {0: (await log.begins(TOPIC))[0], 2: 3, 3: (await log.begins(TOPIC))[3]}
    tail = await log.tail(TOPIC, starts)
    found: list[Incoming] = []
    with pytest.raises(RetentionGap) as gap:
        await _read_on(tail, found)
    assert (gap.value.topic, gap.value.partition, gap.value.wanted, gap.value.oldest) == (TOPIC, 2, 3, 10)
    with pytest.raises(RetentionGap):
        await _read_on(tail, found)
    tail.add(2, 10)
    async with asyncio.timeout(LIMIT_S):
        while [tail.position(p) for p in (0, 2, 3)] != [10, 11, 10]:
            found.extend(await tail.batch(timeout_s=0.5))
    assert texts(found, 0) == [f"0:{n}" for n in range(starts[0], 10)]
    assert texts(found, 2) == ["newest"]
    assert texts(found, 3) == [f"3:{n}" for n in range(starts[3], 10)]
    await tail.close()


async def _read_on(tail: Tail, found: list[Incoming]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            found.extend(await tail.batch(timeout_s=0.5))


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
async def test_what_memory_has_let_go_of_is_read_from_the_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ring of a few records, everything else must come from SQLite: the same bytes, times and order."""
    monkeypatch.setattr(embedded_log, "_RING_BYTES", 4000)
    monkeypatch.setattr(embedded_log, "_FALLBACK_ROWS", 7)
    log = place.log
    quick = await log.tail(TOPIC, {0: 0, 1: 0})
    producer = await log.producer()
    seen: list[Incoming] = []
    for n in range(60):
        place.clock.ahead_ms += 1000
        await producer.send(record(n % 2, str(n)))
        seen.extend(await quick.batch(timeout_s=0.5))
    assert texts(seen) == [str(n) for n in range(60)]
    slow = await log.tail(TOPIC, {0: 0, 1: 0})
    found = await read(slow, 60)
    for partition in (0, 1):
        assert [r for r in found if r.partition == partition] == [r for r in seen if r.partition == partition]
        for one in (r for r in seen if r.partition == partition):
            assert (await log.at_time(TOPIC, one.time_ms))[partition] == one.offset
    await slow.close()
    await quick.close()
    await producer.close()


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
async def test_a_partition_moved_while_the_disk_is_read_is_not_returned(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_log, "_RING_BYTES", 1)
    await ten_each(place.log)
    tail = await place.log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    reading = asyncio.create_task(tail.batch(timeout_s=0.5))
    await asyncio.sleep(0)  # it has begun: partition 0 is being read
    tail.remove(0)
    tail.add(1, 5)
    found = list(await asyncio.wait_for(reading, LIMIT_S))
    assert texts(found, 0) == []
    async with asyncio.timeout(LIMIT_S):
        while [tail.position(p) for p in (1, 2, 3)] != [10, 10, 10]:
            found.extend(await tail.batch(timeout_s=0.5))
    assert texts(found, 1) == [f"1:{n}" for n in range(5, 10)]
    await tail.close()


@pytest.mark.parametrize("place", ["embedded", "memory"], indirect=True)
async def test_pieces_that_were_retired_are_a_gap_and_not_silence(place: Place) -> None:
    """`parley.deltas` lies in memory alone: nothing below what is left can come from the disk."""
    await write(place.log, [record(0, str(n), "parley.deltas") for n in range(5)])
    await place.forget_below("parley.deltas", 0, 4)
    tail = await place.log.tail("parley.deltas", {0: 1})
    with pytest.raises(RetentionGap):
        await tail.batch(timeout_s=0.5)
    tail.add(0, 4)
    assert texts(await read(tail, 1)) == ["4"]
    await tail.close()

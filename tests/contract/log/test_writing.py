"""Writing: order, offsets, what a record may hold, how large it may be."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from parley_events.errors import LogError, LogUnavailable, ProducerBroken, RecordTooLarge
from parley_events.log import Log, Outgoing
from parley_events.topics import MAX_RECORD_BYTES
from tests.contract.log.conftest import PARTITIONS, Place
from tests.contract.log.reading import LIMIT_S, TOPIC, read, record, texts, write, written


async def test_records_of_a_partition_stand_in_the_order_in_which_they_were_sent(log: Log) -> None:
    producer = await log.producer()
    sent = [record(n % PARTITIONS, str(n)) for n in range(4000)]
    offsets = await written(producer, sent)
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    found = await read(tail, len(sent))
    assert len(found) == len(sent)
    for partition in range(PARTITIONS):
        assert texts(found, partition) == [str(n) for n in range(partition, 4000, PARTITIONS)]
        assert [r.offset for r in found if r.partition == partition] == list(range(1000))
    by_place = {(r.partition, r.offset): r.value for r in found}
    assert [by_place[(one.partition, offset)] for one, offset in zip(sent, offsets, strict=True)] == [
        one.value for one in sent
    ]
    await tail.close()
    await producer.close()


async def test_many_writers_at_once_each_keep_their_order(log: Log) -> None:
    producer = await log.producer()
    other = await log.producer()

    async def writer(name: int) -> list[int]:
        return [await (producer, other)[name % 2].send(record(0, f"{name}:{n}")) for n in range(40)]

    async with asyncio.timeout(LIMIT_S):
        offsets = await asyncio.gather(*(writer(name) for name in range(25)))
    tail = await log.tail(TOPIC, {0: 0})
    found = await read(tail, 1000)
    assert [r.offset for r in found] == list(range(1000))
    assert sorted(texts(found)) == sorted(f"{name}:{n}" for name in range(25) for n in range(40))
    for name in range(25):
        assert offsets[name] == sorted(offsets[name])
        assert [texts([found[offset]])[0] for offset in offsets[name]] == [f"{name}:{n}" for n in range(40)]
    await tail.close()
    await producer.close()
    await other.close()


@pytest.mark.parametrize("topic", ["parley.commands", "parley.events", "parley.deltas", "parley.rejected"])
async def test_a_record_is_read_as_it_was_written(place: Place, topic: str) -> None:
    sent = [
        Outgoing(topic, 2, b"key", b"value", (("a", b"1"), ("b", b"2"))),
        Outgoing(topic, 2, None, b"no key"),
        Outgoing(topic, 2, b"no value", None),
        Outgoing(topic, 2, None, None),
        Outgoing(topic, 2, b"", b"", (("", b""), ("empty", b""))),
        Outgoing(topic, 2, bytes(range(256)), bytes(range(256)), (("名", bytes(range(256))), ("a", b"1"), ("a", b"2"))),
    ]
    before = place.clock()
    await write(place.log, sent)
    tail = await place.log.tail(topic, {2: 0})
    found = await read(tail, len(sent))
    after = place.clock()
    assert [Outgoing(r.topic, r.partition, r.key, r.value, r.headers) for r in found] == sent
    assert all(before <= r.time_ms <= after for r in found)
    assert all(one.time_ms <= two.time_ms for one, two in pairwise(found))
    assert found[-1].header("a") == b"2"
    assert found[0].header("none") is None
    await tail.close()


async def test_the_largest_record_fits_and_a_larger_one_is_refused_before_anything_is_written(log: Log) -> None:
    producer = await log.producer()
    room = MAX_RECORD_BYTES - len(b"key") - len("name") - len(b"value")
    largest = Outgoing(TOPIC, 1, b"key", bytes(room), (("name", b"value"),))
    with pytest.raises(RecordTooLarge, match=str(MAX_RECORD_BYTES + 1)):
        producer.send(Outgoing(TOPIC, 1, b"key", bytes(room + 1), (("name", b"value"),)))
    assert not producer.broken
    assert await written(producer, [record(1, "before"), largest, record(1, "after")]) == [0, 1, 2]
    tail = await log.tail(TOPIC, {1: 0})
    found = await read(tail, 3)
    assert [len(r.value or b"") for r in found] == [6, room, 5]
    await tail.close()
    await producer.close()


async def test_the_ends_are_where_the_next_record_goes(log: Log) -> None:
    assert log.partitions == PARTITIONS
    nothing = dict.fromkeys(range(PARTITIONS), 0)
    assert await log.ends(TOPIC) == await log.begins(TOPIC) == nothing
    await write(log, [record(1, "a"), record(3, "b"), record(3, "c")])
    assert await log.ends(TOPIC) == nothing | {1: 1, 3: 2}
    assert await log.begins(TOPIC) == nothing
    assert await log.ends("parley.events") == nothing
    assert await write(log, [record(3, "d")]) == [2]


async def test_a_closed_producer_refuses_and_has_sent_what_it_was_given(log: Log) -> None:
    producer = await log.producer()
    futures = [producer.send(record(0, str(n))) for n in range(100)]
    async with asyncio.timeout(LIMIT_S):
        await producer.close()
    assert [future.result() for future in futures] == list(range(100))
    assert producer.broken
    with pytest.raises(ProducerBroken):
        producer.send(record(0, "late"))
    async with asyncio.timeout(LIMIT_S):
        await producer.close()
    assert (await log.ends(TOPIC))[0] == 100


async def test_a_producer_closed_without_grace_leaves_no_send_in_doubt_for_ever(log: Log) -> None:
    producer = await log.producer()
    futures = [producer.send(record(0, str(n))) for n in range(100)]
    async with asyncio.timeout(LIMIT_S):
        await producer.close(0.0)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(outcome, int | LogUnavailable) for outcome in outcomes)


async def test_a_closed_log_says_so(place: Place) -> None:
    await place.log.close()
    await place.log.close()
    log = place.log
    for asked in (log.ends(TOPIC), log.begins(TOPIC), log.at_time(TOPIC, 0), log.committed(TOPIC, "g")):
        with pytest.raises(LogError):
            await asked

"""What breaks inside aiokafka is said or mended: a record that it cannot read, tasks of its own that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiokafka.consumer.fetcher as fetcher
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from parley_events.errors import LogUnavailable
from parley_events.log.kafka import KafkaLog
from parley_events.log.kafka_group import KafkaGroup
from parley_events.log.kafka_producer import KafkaProducer
from parley_events.log.kafka_tail import KafkaTail
from parley_events.log.kafka_topics import apply_topics
from parley_standalone.parts.kafka import Kafka
from tests.contract.log.conftest import PARTITIONS
from tests.contract.log.reading import LIMIT_S, TOPIC, read, record, texts, write


class BadName(str):
    """A header's name as a producer in C may write it."""

    def encode(self, *_: Any) -> bytes:
        return b"na\xefve"


async def nothing(_: frozenset[int]) -> None: ...


@pytest.fixture
async def log(kafka: Kafka, request: pytest.FixtureRequest) -> AsyncIterator[KafkaLog]:
    prefix = f"{request.node.name.split('[')[0][-40:]}."
    await apply_topics(kafka.bootstrap, PARTITIONS, prefix=prefix)
    opened = await KafkaLog.open(kafka.bootstrap, prefix=prefix)
    yield opened
    await asyncio.wait_for(opened.close(), 20)


@pytest.fixture(autouse=True)
def aiokafkas_own_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was forgiven before the test, and nothing is after it."""
    monkeypatch.setattr("parley_events.log.kafka_records._until", 0.0)
    yield
    fetcher.MemoryRecords = MemoryRecords


async def put_batch(log: KafkaLog, partition: int, *names: str) -> None:
    """One batch; the record `bad` in it has a header whose name is not UTF-8."""
    producer = AIOKafkaProducer(bootstrap_servers=log._bootstrap, acks="all")
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(
            2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 20
        )
        for text in names:
            headers = [(BadName("x") if text == "bad" else "n", text.encode())]
            assert batch.append(timestamp=None, key=b"key", value=text.encode(), headers=headers)
        batch.close()
        await (await producer.send_batch(batch, log._prefix + TOPIC, partition=partition))
    finally:
        await producer.stop()


async def test_a_header_name_that_is_no_utf8_holds_nobody_up(log: KafkaLog) -> None:
    """Neither the records around it in its batch, nor those behind it, nor other partitions; in a group and a tail."""
    await write(log, [record(1, "1:0"), record(0, "0:0")])
    await put_batch(log, 0, "before", "bad", "after")
    await write(log, [record(0, "0:1"), record(1, "1:1"), record(2, "2:0")])
    group = await log.group(TOPIC, "readers", nothing, nothing)
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    try:
        for reader in (group, tail):
            found = {(r.partition, r.offset): r for r in await read(reader, 8)}
            assert texts([found[key] for key in sorted(found)]) == [
                "0:0", "before", "bad", "after", "0:1", "1:0", "1:1", "2:0",
            ]  # fmt: skip
            assert found[(0, 2)].headers == (("na\\xefve", b"bad"),)
    finally:
        await group.close()
        await tail.close()


async def killed(task: asyncio.Task[Any]) -> None:
    """End a task of aiokafka's as a mistake in it would."""
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.done()


async def broken(reader: KafkaGroup | KafkaTail) -> str:
    """What a reader says once it knows; fails when it goes on idling."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await reader.batch(timeout_s=0.2)
            except LogUnavailable as error:
                return str(error)


@pytest.mark.parametrize("part", ["fetch task", "group coordination task"])
async def test_a_dead_task_of_a_group_is_said(log: KafkaLog, part: str) -> None:
    group = await log.group(TOPIC, "readers", nothing, nothing)
    try:
        consumer = group._consumer
        task = consumer._fetcher._fetch_task if part == "fetch task" else consumer._coordinator._coordination_task
        await killed(task)
        assert part in await broken(group)
    finally:
        await group.close()


async def test_a_dead_fetch_task_of_a_tail_is_said(log: KafkaLog) -> None:
    tail = await log.tail(TOPIC, {0: 0})
    try:
        await killed(tail._consumer._fetcher._fetch_task)
        assert "fetch task" in await broken(tail)
    finally:
        await tail.close()


async def test_a_producer_whose_sending_task_has_died_breaks_at_once(log: KafkaLog) -> None:
    """Not after the time that an acknowledgement may take: its user makes a new one and sends everything again."""
    producer = await log.producer()
    assert isinstance(producer, KafkaProducer)
    try:
        await producer.send(record(0, "first"))
        await killed(producer._producer._sender._sender_task)
        sent = producer.send(record(0, "second"))
        with pytest.raises(LogUnavailable, match="sending task"):
            async with asyncio.timeout(5.0):
                await sent
        assert producer.broken
    finally:
        await producer.close(0.0)


async def test_whom_the_group_does_not_count_any_more_owns_nothing(log: KafkaLog) -> None:
    """Which is how a member that was away finds out before it claims what others have by now. Asking has no effect."""
    group = await log.group(TOPIC, "readers", nothing, nothing)
    try:
        async with asyncio.timeout(LIMIT_S):
            while not group.assignment():
                await group.batch(timeout_s=0.2)
        assert await group.committed(0) == 0
        assert await group.owns(0) and not await group.owns(PARTITIONS + 1)
        coordinator = group._consumer._coordinator
        was = coordinator.generation, coordinator.member_id
        coordinator.generation += 7
        assert not await group.owns(0)
        coordinator.generation = was[0]
        assert await group.owns(0) and (coordinator.generation, coordinator.member_id) == was
    finally:
        await group.close()


async def test_a_partition_moves_when_its_owner_gives_it_and_not_before(log: KafkaLog) -> None:
    wanted: list[frozenset[int]] = []
    first = await log.group(TOPIC, "readers", nothing, nothing, wanted.append)
    second: KafkaGroup | None = None

    async def poll(group: KafkaGroup) -> None:
        while True:
            await group.batch(timeout_s=0.2)

    polling = [asyncio.create_task(poll(first))]
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(first.assignment()) < PARTITIONS:
                await asyncio.sleep(0.01)
        second = await log.group(TOPIC, "readers", nothing, nothing, wanted.append)
        polling.append(asyncio.create_task(poll(second)))
        async with asyncio.timeout(LIMIT_S):
            while not any(wanted):
                await asyncio.sleep(0.01)
        asked = next(partitions for partitions in wanted if partitions)
        assert len(asked) == PARTITIONS // 2
        assert first.assignment() == frozenset(range(PARTITIONS)) and second.assignment() == frozenset()
        first.give(asked)
        async with asyncio.timeout(LIMIT_S):
            while second.assignment() != asked or first.assignment() != frozenset(range(PARTITIONS)) - asked:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(LIMIT_S):
            while wanted[-1] or wanted[-2]:  # each member is told that nothing more is wanted of it
                await asyncio.sleep(0.01)
    finally:
        for task in polling:
            task.cancel()
        await asyncio.gather(*polling, return_exceptions=True)
        for group in (first, second):
            if group is not None:
                await group.close()

"""Kafka away: nothing hangs, outcomes are unknown and said so, and everything goes on once it is back."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio import Future
from collections.abc import Awaitable

import pytest

from parley_events.errors import LogUnavailable, ProducerBroken
from parley_events.log import Log, Outgoing
from parley_events.log.kafka import KafkaLog
from parley_events.log.kafka_producer import KafkaProducer
from parley_events.log.kafka_topics import apply_topics, check_topics
from parley_events.log.pace import Pace
from parley_standalone.parts.kafka import Kafka
from tests.contract.log.conftest import PARTITIONS
from tests.contract.log.reading import TOPIC, read, read_until, record, texts, written

BOUND_S = 60.0
"""Far above every limit of the port: what is not over by then hangs."""

ACKNOWLEDGE_S = 2.0


async def nothing(_: frozenset[int]) -> None: ...


async def all_of(*works: Awaitable[object]) -> None:
    """Do all of it at once, within the bound."""
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*works)


async def all_unavailable(*works: Awaitable[object]) -> None:
    """Each of them says that the log is away, and in time."""
    async with asyncio.timeout(BOUND_S):
        outcomes = await asyncio.gather(*works, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LogUnavailable] * len(works)


async def outcomes_of(futures: list[Future[int]]) -> list[int | BaseException]:
    async with asyncio.timeout(BOUND_S):
        return await asyncio.gather(*futures, return_exceptions=True)


async def impatient(log: Log, broker: Kafka, prefix: str) -> KafkaProducer:
    """A producer as `log.producer()` makes it, but for how long it waits."""
    producer = KafkaProducer(broker.bootstrap, "test", prefix, Pace(), acknowledge_s=ACKNOWLEDGE_S)
    await producer.start()
    return producer


async def back(log: Log) -> None:
    """Wait until the broker answers again."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await log.ends(TOPIC)
                return
            except LogUnavailable:
                await asyncio.sleep(0.1)


async def send_again(log: Log, records: list[Outgoing]) -> list[int]:
    """What every user of a producer does after a failure: a new one, and all of it again, in order."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                producer = await log.producer()
                try:
                    return await written(producer, records)
                finally:
                    await producer.close()
            except (LogUnavailable, ProducerBroken):
                await asyncio.sleep(0.1)


async def test_a_broker_that_stops_answering_leaves_outcomes_unknown_and_order_whole(own_broker: Kafka) -> None:
    """Stopped in the middle of sends, the broker may yet write what it has received: sent again, it stands there
    twice, but never out of order and never with a hole."""
    prefix = "frozen."
    await apply_topics(own_broker.bootstrap, PARTITIONS, prefix=prefix)
    log = await KafkaLog.open(own_broker.bootstrap, prefix=prefix)
    producer = await impatient(log, own_broker, prefix)
    spare = await impatient(log, own_broker, prefix)
    idle = await log.producer()
    other = await log.group("parley.rejected", "other", nothing, nothing)
    tail = await log.tail(TOPIC, {0: 0})
    group = await log.group(TOPIC, "g", nothing, nothing)
    await written(producer, [record(0, "0")])
    await written(spare, [record(1, "0")])
    await read(group, 2)

    os.kill(own_broker.pid, signal.SIGSTOP)
    try:
        sent = [record(0, str(n)) for n in range(1, 200)]
        futures = [producer.send(one) for one in sent]
        outcomes = await outcomes_of(futures)
        assert any(isinstance(outcome, LogUnavailable) for outcome in outcomes)
        assert producer.broken
        with pytest.raises(ProducerBroken):
            producer.send(record(0, "refused"))
        await all_unavailable(log.ends(TOPIC), group.commit({0: 1}), group.rewind(0))
        assert texts(await tail.batch(timeout_s=0.2)) in ([], ["0"])
        hanging = spare.send(record(1, "1"))
        await all_of(producer.close(), spare.close(0.2), idle.close(), other.close(), tail.close())
        assert isinstance((await outcomes_of([hanging]))[0], LogUnavailable)
    finally:
        os.kill(own_broker.pid, signal.SIGCONT)

    await back(log)
    missing = [one for one, outcome in zip(sent, outcomes, strict=True) if isinstance(outcome, LogUnavailable)]
    await send_again(log, missing)
    end = (await log.ends(TOPIC))[0]
    tail = await log.tail(TOPIC, {0: 0})
    found = await read(tail, end)
    seen: list[int] = []
    for text in texts(found):
        if int(text) not in seen:  # readers drop what they have
            assert int(text) == len(seen)
            seen.append(int(text))
    assert seen == list(range(200))
    await all_of(tail.close(), group.close(), log.close())


async def test_everything_goes_on_after_a_crash_of_the_broker(own_broker: Kafka) -> None:
    prefix = "crash."
    await apply_topics(own_broker.bootstrap, PARTITIONS, prefix=prefix)
    log = await KafkaLog.open(own_broker.bootstrap, prefix=prefix, session_ms=30_000)
    producer = await impatient(log, own_broker, prefix)
    idle, other_tail = await log.producer(), await log.tail(TOPIC, {0: 0})
    other_group = await log.group("parley.rejected", "other", nothing, nothing)
    short = await KafkaLog.open(own_broker.bootstrap, prefix=prefix)
    tail = await log.tail(TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    group = await log.group(TOPIC, "g", nothing, nothing)
    first = [record(p, str(n)) for n in range(5) for p in range(PARTITIONS)]
    await written(producer, first)
    await read(tail, len(first))
    await read(group, len(first))
    await group.commit(dict.fromkeys(range(PARTITIONS), 5))

    own_broker.kill()
    sent = [record(p, str(n)) for n in range(5, 30) for p in range(PARTITIONS)]
    outcomes = await outcomes_of([producer.send(one) for one in sent])
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
    assert producer.broken
    await all_unavailable(
        log.ends(TOPIC),
        log.begins(TOPIC),
        log.at_time(TOPIC, 0),
        log.committed(TOPIC, "g"),
        group.commit({0: 5}),
        log.producer(),
        log.tail(TOPIC, {0: 0}),
        log.group(TOPIC, "late", nothing, nothing),
        KafkaLog.open(own_broker.bootstrap, prefix=prefix),
        check_topics(own_broker.bootstrap, prefix),
    )
    assert list(await tail.batch(timeout_s=0.2)) == []
    assert list(await group.batch(timeout_s=0.2)) == []
    await all_of(idle.close(), other_tail.close(), other_group.close(), short.close(), producer.close())

    own_broker.start()
    await send_again(log, sent)
    found = await read_until(tail, lambda found: all(tail.position(p) >= 30 for p in range(PARTITIONS)))
    taken = await read_until(group, lambda taken: all(texts(taken, p)[-1:] == ["29"] for p in range(PARTITIONS)))
    for partition in range(PARTITIONS):
        assert list(dict.fromkeys(texts(found, partition))) == [str(n) for n in range(5, 30)]
        assert list(dict.fromkeys(texts(taken, partition))) == [str(n) for n in range(5, 30)]
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await group.commit(dict.fromkeys(range(PARTITIONS), 30))
                break
            except LogUnavailable:
                await group.batch(timeout_s=0.2)
    await all_of(tail.close(), group.close(), log.close())

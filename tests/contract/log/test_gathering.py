"""Kafka's producer with many records to send: they leave together, and nobody waits for longer than was said."""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import Any

from parley_events.log import Outgoing
from parley_events.log.kafka_producer import KafkaProducer
from parley_events.log.kafka_topics import apply_topics
from parley_events.log.pace import FULL, Pace
from parley_standalone.parts.kafka import Kafka
from tests.contract.log.conftest import PARTITIONS
from tests.contract.log.reading import LIMIT_S, TOPIC

AN_HOUR = 1 / 3600
"""A turn an hour: what waits for one never leaves within a test."""


class Counted(KafkaProducer):
    """A producer that knows how many records each batch had."""

    batches: list[int]

    async def start(self) -> None:
        await super().start()
        self.batches = []
        hand_over = self._producer.send_batch

        async def send_batch(builder: Any, topic: str, *, partition: int) -> Any:
            self.batches.append(builder.record_count())
            return await hand_over(builder, topic, partition=partition)

        self._producer.send_batch = send_batch


async def producer(kafka: Kafka, prefix: str, per_s: float) -> Counted:
    await apply_topics(kafka.bootstrap, PARTITIONS, prefix=prefix)
    made = Counted(kafka.bootstrap, "test", prefix, Pace(per_s, at_once=1))
    await made.start()
    return made


def of(stream: str) -> Outgoing:
    return Outgoing(TOPIC, 0, stream.encode(), b"")


async def all_of(futures: list[Future[int]]) -> list[int]:
    async with asyncio.timeout(LIMIT_S):
        return list(await asyncio.gather(*futures))


async def some_turns_of_the_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_sent_while_a_turn_is_waited_for_leaves_with_it(kafka: Kafka) -> None:
    made = await producer(kafka, "gathered.", 2)
    assert await all_of([made.send(of("a"))]) == [0]
    waiting = []
    for stream in "bcd":
        waiting.append(made.send(of(stream)))
        await some_turns_of_the_loop()
    assert await all_of(waiting) == [1, 2, 3]
    assert made.batches == [1, 3]
    await made.close()


async def test_what_must_leave_now_takes_along_what_waits(kafka: Kafka) -> None:
    made = await producer(kafka, "hurried.", AN_HOUR)
    await all_of([made.send(of("a"))])
    waiting = [made.send(of("b"))]
    await some_turns_of_the_loop()
    assert made.batches == [1], "it waits for the next turn"
    assert await all_of([*waiting, made.send(of("c"), now=True)]) == [1, 2]
    assert await all_of([made.send(of("d"), now=True)]) == [3]
    await made.close()


async def test_what_fills_a_turn_leaves_at_once(kafka: Kafka) -> None:
    made = await producer(kafka, "full.", AN_HOUR)
    await all_of([made.send(of("a"))])
    waiting = [made.send(of(f"b{number}")) for number in range(FULL)]
    await some_turns_of_the_loop()
    assert made.batches == [1], "one more is needed"
    assert await all_of([*waiting, made.send(of("c"))]) == list(range(1, FULL + 2))
    await made.close()


async def test_a_producer_that_is_closed_sends_what_waits(kafka: Kafka) -> None:
    made = await producer(kafka, "closed.", AN_HOUR)
    await all_of([made.send(of("a"))])
    waiting = made.send(of("b"))
    await made.close(LIMIT_S)
    assert await all_of([waiting]) == [1]

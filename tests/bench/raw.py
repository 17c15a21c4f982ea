"""The yardstick: the raw two-hop round trip, client → topic → echo process → topic → client, on plain aiokafka.

`python -m tests.bench.raw echo BOOTSTRAP` is the echo; `measure` is the client. Nothing of Parley's is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from itertools import count
from time import perf_counter
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

_ASK, _ANSWER = "bench.ask", "bench.answer"
_PARTITIONS = 8
_VALUE = b"x" * 300


async def _open(bootstrap: str, topic: str) -> tuple[Any, Any]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", linger_ms=0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="latest", enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    parts = [TopicPartition(topic, p) for p in range(_PARTITIONS)]
    consumer.assign(parts)
    await consumer.seek_to_end(*parts)
    for part in parts:
        await consumer.position(part)
    return producer, consumer


async def _make_topics(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        with contextlib.suppress(TopicAlreadyExistsError):
            await admin.create_topics([NewTopic(name, _PARTITIONS, 1) for name in (_ASK, _ANSWER)])
    finally:
        await admin.close()


async def echo(bootstrap: str) -> None:
    """Send back what comes, until this process is ended."""
    producer, consumer = await _open(bootstrap, _ASK)
    print("ready", flush=True)
    while True:
        batches = await consumer.getmany(timeout_ms=500)
        for records in batches.values():
            for record in records:
                headers = list(record.headers)
                await producer.send(_ANSWER, value=record.value, partition=record.partition, headers=headers)


async def measure(bootstrap: str, in_flight: int, rounds: int) -> list[float]:
    """Round trips with that many in flight, in seconds."""
    await _make_topics(bootstrap)
    helper = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.raw", "echo", bootstrap], stdout=subprocess.PIPE, text=True
    )
    try:
        assert helper.stdout is not None
        await asyncio.wait_for(asyncio.to_thread(helper.stdout.readline), 30)
        producer, consumer = await _open(bootstrap, _ANSWER)
        loop = asyncio.get_running_loop()
        waiting: dict[bytes, asyncio.Future[None]] = {}
        numbers = count()

        async def receive() -> None:
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        future = waiting.pop(dict(record.headers)["n"], None)
                        if future is not None:
                            future.set_result(None)

        receiver = asyncio.create_task(receive())
        times: list[float] = []

        async def client() -> None:
            for round_number in range(rounds):
                number = b"%d" % next(numbers)
                waiting[number] = loop.create_future()
                began = perf_counter()
                await producer.send(_ASK, value=_VALUE, partition=int(number) % _PARTITIONS, headers=[("n", number)])
                await asyncio.wait_for(waiting[number], 30)
                if round_number >= rounds // 10:
                    times.append(perf_counter() - began)

        await asyncio.gather(*(client() for _ in range(in_flight)))
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        await producer.stop()
        await consumer.stop()
        return times
    finally:
        helper.terminate()
        helper.wait(10)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(echo(sys.argv[2]))

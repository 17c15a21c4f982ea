"""Writing and reading in tests, with a limit on every wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from parley_events.log import Group, Incoming, Log, Outgoing, Producer, Tail

TOPIC = "parley.commands"
LIMIT_S = 30.0


def record(partition: int, text: str, topic: str = TOPIC) -> Outgoing:
    return Outgoing(topic, partition, b"key", text.encode(), (("n", text.encode()),))


async def written(producer: Producer, records: Iterable[Outgoing]) -> list[int]:
    """The offsets of records that were all sent before the first was waited for."""
    futures = [producer.send(one) for one in records]
    async with asyncio.timeout(LIMIT_S):
        return list(await asyncio.gather(*futures))


async def write(log: Log, records: Iterable[Outgoing]) -> list[int]:
    """The same, with a producer of its own."""
    producer = await log.producer()
    try:
        return await written(producer, records)
    finally:
        await producer.close()


async def read(reader: Tail | Group, count: int) -> list[Incoming]:
    """The next `count` records; fails when there are more in the last batch, or fewer within the limit."""
    return await read_until(reader, lambda found: len(found) >= count)


async def read_until(reader: Tail | Group, enough: Callable[[Sequence[Incoming]], bool]) -> list[Incoming]:
    found: list[Incoming] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            while not enough(found):
                found.extend(await reader.batch(timeout_s=0.5))
    except TimeoutError:
        raise AssertionError(f"only these came: {[(r.partition, r.offset) for r in found]}") from None
    return found


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody signals."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.01)


def texts(records: Iterable[Incoming], partition: int | None = None) -> list[str]:
    return [(r.value or b"").decode() for r in records if partition in (None, r.partition)]

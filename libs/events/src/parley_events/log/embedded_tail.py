"""Reading the embedded log from given offsets: the ring first, and SQLite for what is older."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from parley_events.log.port import Incoming

if TYPE_CHECKING:
    from parley_events.log.embedded import EmbeddedLog


class EmbeddedTail:
    """See `port.Tail`."""

    def __init__(self, log: EmbeddedLog, topic: str) -> None:
        self._log, self._topic = log, topic
        self._positions: dict[int, int] = {}
        self._grown = log.subscribe(topic)

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        found = await self._read(limit)
        if found:
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._grown.wait()
        return await self._read(limit)

    async def _read(self, limit: int) -> Sequence[Incoming]:
        self._grown.clear()
        found: list[tuple[int, int, Sequence[Incoming]]] = []
        room = limit
        for partition, position in list(self._positions.items()):
            if room <= 0:
                self._grown.set()
                break
            records = self._log.read(self._topic, partition, position, room)
            if records is None:
                records = await asyncio.to_thread(self._log.read_older, self._topic, partition, position, room)
                self._grown.set()
            if records:
                found.append((partition, position, records))
                room -= len(records)
        # Nothing waits or fails from here on, so that no position moves on without its records being returned.
        # Meanwhile a partition may have been moved or removed.
        answer: list[Incoming] = []
        for partition, position, records in found:
            if self._positions.get(partition) == position:
                # To the end of the line, so that a partition with much to read does not hold up the others.
                del self._positions[partition]
                self._positions[partition] = records[-1].offset + 1
                answer.extend(records)
        return answer

    def add(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset
        self._grown.set()

    def remove(self, partition: int) -> None:
        self._positions.pop(partition, None)

    def position(self, partition: int) -> int:
        return self._positions[partition]

    async def close(self) -> None:
        self._log.unsubscribe(self._topic, self._grown)

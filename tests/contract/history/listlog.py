"""A log of lists, for tests that place records by hand: a zombie's, one sent twice, one that is no fact at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from parley_events.codec import EVENTS_TOPIC
from parley_events.log.port import Group, Incoming, OnAssigned, OnRevoked, Outgoing, Producer, Tail


class ListLog:
    """Only what a projector asks of a log: tails and ends."""

    def __init__(self, partitions: int = 4) -> None:
        self.records: list[list[Incoming]] = [[] for _ in range(partitions)]
        self.time_ms = 1_750_000_000_000
        self._news: set[asyncio.Event] = set()

    @property
    def partitions(self) -> int:
        return len(self.records)

    def append(self, record: Outgoing) -> int:
        """The record's offset."""
        partition = self.records[record.partition]
        self.time_ms += 1
        offset = len(partition)
        partition.append(
            Incoming(EVENTS_TOPIC, record.partition, offset, self.time_ms, record.key, record.value, record.headers)
        )
        for news in self._news:
            news.set()
        return offset

    async def tail(self, topic: str, starts: Mapping[int, int]) -> Tail:
        assert topic == EVENTS_TOPIC
        tail = ListTail(self)
        for partition, offset in starts.items():
            tail.add(partition, offset)
        self._news.add(tail.news)
        return tail

    async def ends(self, topic: str) -> dict[int, int]:
        return {partition: len(records) for partition, records in enumerate(self.records)}

    async def begins(self, topic: str) -> dict[int, int]:
        return dict.fromkeys(range(self.partitions), 0)

    async def committed(self, topic: str, group_id: str) -> dict[int, int]:
        raise NotImplementedError

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        raise NotImplementedError

    async def producer(self) -> Producer:
        raise NotImplementedError

    async def group(self, topic: str, group_id: str, on_assigned: OnAssigned, on_revoked: OnRevoked) -> Group:
        raise NotImplementedError

    async def close(self) -> None:
        return None


class ListTail:
    def __init__(self, log: ListLog) -> None:
        self._log, self._at = log, dict[int, int]()
        self.news = asyncio.Event()

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        self.news.clear()
        found = self._take(limit)
        if not found:
            try:
                await asyncio.wait_for(self.news.wait(), timeout_s)
            except TimeoutError:
                return ()
            found = self._take(limit)
        return found

    def _take(self, limit: int) -> list[Incoming]:
        found: list[Incoming] = []
        for partition, offset in self._at.items():
            records = self._log.records[partition][offset : offset + limit - len(found)]
            self._at[partition] = offset + len(records)
            found.extend(records)
        return found

    def add(self, partition: int, offset: int) -> None:
        self._at[partition] = offset
        self.news.set()

    def remove(self, partition: int) -> None:
        self._at.pop(partition, None)

    def position(self, partition: int) -> int:
        return self._at[partition]

    async def close(self) -> None:
        self._at.clear()

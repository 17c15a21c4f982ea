"""How what is recorded is read: by one gateway, at its own pace (`Reading`), and by history (`Past`). Beside it:
`recorded`, which has what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from parley_events.codec import EVENTS_TOPIC, Fact
from parley_events.log import Incoming
from parley_events.reads import OwnerView, PartitionPositionView, Positions
from parley_gateway.errors import Behind, GatewayError, Missing, Unavailable
from tests.unit.gateway.feed.recorded import PARTITIONS, Place, Topics, part_of
from tests.unit.gateway.feed.stories import Story


class Reading:
    """The log as one gateway reads it: each partition of a topic as far as it was let (`release`). `lost`: the places
    of facts that never come to it."""

    partitions = PARTITIONS

    def __init__(self, topics: Topics, lost: frozenset[Place], pieces_from: int) -> None:
        self._topics, self.lost, self._pieces_from = topics, lost, pieces_from
        self._released: dict[tuple[str, int], int] = {}
        self._wakes: dict[str, asyncio.Future[None]] = {}

    def release(self, topic: str, partition: int, count: int) -> None:
        """Let it read so many more of the records that were written."""
        so_far = self._released.get((topic, partition), 0)
        self._released[topic, partition] = min(so_far + count, self._topics.end(partition, topic))
        wake = self._wakes.pop(topic, None)
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def tail(self, topic: str, starts: Mapping[int, int]) -> _Tail:
        return _Tail(self, topic, dict(starts))

    async def begins(self, topic: str) -> dict[int, int]:
        return dict.fromkeys(range(PARTITIONS), 0)

    async def ends(self, topic: str) -> dict[int, int]:
        return {partition: self._topics.end(partition, topic) for partition in range(PARTITIONS)}

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        return {partition: min(self._pieces_from, end) for partition, end in (await self.ends(topic)).items()}

    async def next(self, topic: str, positions: dict[int, int]) -> list[Incoming]:
        """The records from there on that may be read; the positions move behind them."""
        while True:
            found: list[Incoming] = []
            for partition, position in positions.items():
                until = self._released.get((topic, partition), 0)
                if until > position:
                    found += self._topics.records[topic, partition][position:until]
                    positions[partition] = until
            if found:
                return found
            wake = self._wakes[topic] = asyncio.get_running_loop().create_future()
            await wake


class _Tail:
    def __init__(self, reading: Reading, topic: str, positions: dict[int, int]) -> None:
        self._reading, self._topic, self._positions = reading, topic, positions

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        records = await self._reading.next(self._topic, self._positions)
        lost = self._reading.lost if self._topic == EVENTS_TOPIC else frozenset[Place]()
        return [record for record in records if (record.partition, record.offset) not in lost]

    async def close(self) -> None:
        pass


class Past:
    """History: it has folded all below `position`, and further once someone waits for more. `fails`: what it answers
    next; `held`: nothing is answered until `let_go`."""

    def __init__(self, topics: Topics, stories: Sequence[Story], page: int) -> None:
        self._topics, self._page = topics, page
        self._users = {story.thread: story.user for story in stories}
        self.position = dict.fromkeys(range(PARTITIONS), 0)
        self.fails: list[GatewayError] = []
        self.held = False
        self._waits: list[asyncio.Future[None]] = []

    def let_go(self) -> None:
        self.held = False
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)
        self._waits.clear()

    def fold(self, partition: int, count: int) -> None:
        """Come so much further by itself."""
        self.position[partition] = min(self.position[partition] + count, self._topics.end(partition))

    async def positions(self) -> Positions:
        rows = (
            PartitionPositionView(
                partition=partition, next_offset=at, epoch=self._topics.epoch_at(partition, at), last_number=0
            )
            for partition, at in self.position.items()
        )
        return Positions(partitions=tuple(rows))

    async def facts(
        self,
        workspace_id: str,
        stream: str,
        after: int,
        limit: int = 500,
        order: str = "asc",
        min_position: Sequence[str] = (),
    ) -> tuple[list[Fact], Any]:
        """As `History.facts`."""
        await self._come_to(min_position)
        stored = self._stored(stream)
        if not stored:
            raise Missing(stream)
        last = stored[-1].seq or 0
        if order == "desc":
            return [fact for fact in stored if (fact.seq or 0) < after][::-1][:limit], SimpleNamespace(last_seq=last)
        found = [fact for fact in stored if (fact.seq or 0) > after]
        return found[: min(limit, self._page)], SimpleNamespace(last_seq=last)

    async def facts_between(
        self,
        workspace_id: str,
        partition: int,
        first: int,
        below: int,
        *,
        user_id: str | None,
        threads: Sequence[str] | None,
        limit: int = 500,
        min_position: Sequence[str] = (),
    ) -> tuple[list[Fact], int]:
        """As `History.facts_between`."""
        await self._come_to(min_position)
        found = [
            fact
            for (where, offset), fact in self._topics.facts.items()
            if where == partition and first <= offset < min(below, self.position[partition])
            if (threads is None or fact.stream in threads) and self._users[fact.stream] in (None, user_id)
        ]
        page = found[: min(limit, self._page)]
        return page, below if len(page) == len(found) else found[len(page)].offset or 0

    async def owners(
        self, workspace_id: str, at: Sequence[str], min_position: Sequence[str] = ()
    ) -> dict[str, OwnerView]:
        """As `History.owners`."""
        await self._come_to(min_position)
        found: dict[str, OwnerView] = {}
        for place in at:
            thread, _, below = place.partition("@")
            stored = self._stored(thread)
            if stored:
                seq = max((fact.seq or 0 for fact in stored if (fact.offset or 0) < int(below)), default=0)
                found[thread] = OwnerView(id=thread, user_id=self._users[thread], agent_id=None, team_id=None, seq=seq)
        return found

    def _stored(self, thread: str) -> list[Fact]:
        below = self.position[part_of(thread)]
        return [fact for fact in self._topics.threads[thread] if (fact.offset or 0) < below]

    async def _come_to(self, positions: Sequence[str]) -> None:
        """Answer in its own time, from a view that has come to these positions; or not at all."""
        if self.held:
            self._waits.append(asyncio.get_running_loop().create_future())
            await self._waits[-1]
        if self.fails:
            raise self.fails.pop()
        for position in positions:
            partition, offset = self._place_of(position)
            if offset > self._topics.end(partition):
                raise Behind
            self.position[partition] = max(self.position[partition], offset)

    def _place_of(self, position: str) -> Place:
        thread, at, seq = position.partition("@")
        if not at:
            partition, _, offset = position.partition(".")
            return int(partition), int(offset)
        fact = self._topics.threads[thread][int(seq) - 1] if int(seq) else None
        return part_of(thread), 0 if fact is None else (fact.offset or 0) + 1


FAILURES = (Behind, lambda: Unavailable("away"))
"""What history answers when it does not."""

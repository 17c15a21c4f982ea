"""Reading the embedded log in a group: who has which partitions, and the offsets that it committed.

All members live in one process, so a change of hands is a matter of turns: everybody lets go before anybody is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from parley_events.errors import LogUnavailable
from parley_events.log.embedded_tail import EmbeddedTail
from parley_events.log.port import Incoming, OnAssigned, OnRevoked

if TYPE_CHECKING:
    from parley_events.log.embedded import EmbeddedLog


class Members:
    """The members of one group, and who has what."""

    def __init__(self) -> None:
        self._members: list[EmbeddedGroup] = []
        self._turn = asyncio.Lock()

    async def change(
        self, partitions: int, add: EmbeddedGroup | None = None, remove: EmbeddedGroup | None = None
    ) -> None:
        async with self._turn:
            for member in self._members:
                await member.revoke()
            if add is not None:
                self._members.append(add)
            if remove is not None and remove in self._members:
                self._members.remove(remove)
            for place, member in enumerate(self._members):
                await member.assign(frozenset(range(place, partitions, len(self._members))))


class EmbeddedGroup:
    """See `port.Group`."""

    def __init__(
        self, log: EmbeddedLog, topic: str, group_id: str, on_assigned: OnAssigned, on_revoked: OnRevoked
    ) -> None:
        self._log, self._topic, self._group_id = log, topic, group_id
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._tail = EmbeddedTail(log, topic)
        self._assigned: frozenset[int] = frozenset()
        self._paused: dict[int, int] = {}
        self._left = False

    async def revoke(self) -> None:
        if self._assigned:
            await self._on_revoked(self._assigned)
        for partition in self._assigned:
            self._tail.remove(partition)
        self._paused.clear()

    async def assign(self, partitions: frozenset[int]) -> None:
        self._assigned = partitions
        for partition in partitions:
            self._tail.add(partition, self._log.offset_of(self._group_id, self._topic, partition))
        await self._on_assigned(partitions)

    async def batch(self, timeout_s: float = 1.0, limit: int = 500) -> Sequence[Incoming]:
        return await self._tail.batch(timeout_s, limit)

    def pause(self, partition: int) -> None:
        if partition in self._assigned and partition not in self._paused:
            self._paused[partition] = self._tail.position(partition)
            self._tail.remove(partition)

    def resume(self, partition: int) -> None:
        position = self._paused.pop(partition, None)
        if position is not None:
            self._tail.add(partition, position)

    def give(self, partitions: frozenset[int]) -> None:
        return None

    async def committed(self, partition: int) -> int:
        return self._log.offset_of(self._group_id, self._topic, partition)

    async def owns(self, partition: int) -> bool:
        return partition in self._assigned

    async def rewind(self, partition: int) -> None:
        offset = self._log.offset_of(self._group_id, self._topic, partition)
        if partition in self._paused:
            self._paused[partition] = offset
        elif partition in self._assigned:
            self._tail.add(partition, offset)

    async def commit(self, offsets: Mapping[int, int]) -> None:
        mine = {p: o for p, o in offsets.items() if p in self._assigned}
        if not mine:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._log.commit_offsets(self._group_id, self._topic, mine)
        except TimeoutError:
            raise LogUnavailable("the offsets were not on disk within 5 s") from None

    def assignment(self) -> frozenset[int]:
        return self._assigned

    async def close(self) -> None:
        if self._left:
            return
        self._left = True
        await self._log.leave(self._topic, self._group_id, self)
        self._assigned = frozenset()
        await self._tail.close()

"""Waiting until the view has come as far as a reader asks (`min_position`).

What this process folds wakes its waiters at once; for what another replica folds, one light query for all waiters
runs every 25 ms, only while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping

from parley_events.positions import PartitionPosition, Position
from parley_history.errors import Unavailable

POLL_S = 0.025
_REMEMBERED = 20_000

Reached = tuple[Mapping[int, int], Mapping[str, int]]
"""Next offset per partition, newest seq per stream."""

Ask = Callable[[list[int], list[str]], Awaitable[Reached]]


class Watch:
    """What is known to be in the view, and who waits for more. Knowledge only grows."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._partitions: dict[int, int] = {}
        self._streams: dict[str, int] = {}
        self._waiting: dict[asyncio.Future[None], tuple[Position, ...]] = {}
        self._poll: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    def learn(self, partitions: Mapping[int, int], streams: Mapping[str, int]) -> None:
        """These are in the view (committed): wake whoever waited for them."""
        for partition, offset in partitions.items():
            self._partitions[partition] = max(offset, self._partitions.get(partition, 0))
        for stream, seq in streams.items():
            # The newest last, so that what is forgotten first is what has not changed for longest.
            self._streams[stream] = max(seq, self._streams.pop(stream, 0))
        while len(self._streams) > _REMEMBERED:
            del self._streams[next(iter(self._streams))]
        for waiter, positions in list(self._waiting.items()):
            if not waiter.done() and self._reached(positions):
                waiter.set_result(None)

    def known(self, partition: int | None = None) -> list[Position]:
        """How far the view has come at least: on this partition, or on all of them."""
        wanted = sorted(self._partitions) if partition is None else [partition]
        return [PartitionPosition(p, self._partitions[p]) for p in wanted if p in self._partitions]

    async def wait(self, positions: Iterable[Position], timeout_s: float) -> bool:
        """Whether the view came that far in time. Raises Unavailable when that cannot be asked for the whole time."""
        wanted = tuple(positions)
        if self._reached(wanted):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = wanted
        self._asked.set()
        try:
            await self._look(wanted)
            if self._poll is None or self._poll.done():
                self._poll = asyncio.create_task(self._keep_looking())
            # `wait_for` would lose a cancellation that comes together with the news (Python 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
            return waiter.done() and not waiter.cancelled()
        finally:
            del self._waiting[waiter]

    async def wanted(self, limit_s: float) -> None:
        """Until somebody waits for more than is in the view, at most `limit_s`."""
        if not self._waiting:
            self._asked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._asked.wait()

    async def close(self) -> None:
        """Stop asking."""
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll

    def _reached(self, positions: tuple[Position, ...]) -> bool:
        return all(
            self._partitions.get(position.partition, 0) >= position.next_offset
            if isinstance(position, PartitionPosition)
            else self._streams.get(position.stream, 0) >= position.seq
            for position in positions
        )

    async def _look(self, positions: Iterable[Position]) -> None:
        partitions, streams = set(), set()
        for position in positions:
            if isinstance(position, PartitionPosition):
                partitions.add(position.partition)
            else:
                streams.add(position.stream)
        self.learn(*await self._ask(sorted(partitions), sorted(streams)))

    async def _keep_looking(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(Unavailable):
                await self._look(position for positions in self._waiting.values() for position in positions)

"""One listener's bounded queue, which `hub` fills: with a stream's facts and pieces, or those of many (`many`).

Above it: `join` and `channel`, which take from it. What is full loses pieces first, and then its client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from parley_events.codec import Fact
from parley_events.pieces import Piece

Item = Fact | Piece


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Bytes are what the texts and objects roughly take in memory."""

    queue_items: int = 20_000
    queue_bytes: int = 16 * 1024 * 1024
    kept_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Counts:
    """Plain numbers, to be looked at. `streams`: open now. What slow clients lost: `pieces` left out, feeds `closed`,
    streams `stalled`."""

    streams: int = 0
    pieces: int = 0
    closed: int = 0
    stalled: int = 0


class Listener:
    """One listener's bounded queue of a stream's facts and pieces.

    A listener that lets more than its limit wait loses pieces first (they are hints: the fact carries the text), and
    is closed when that does not help: never is a fact dropped silently. Whoever was closed resumes by its cursor.
    """

    __slots__ = (
        "_bytes",
        "_counts",
        "_fact_bytes",
        "_items",
        "_limits",
        "_wake",
        "call",
        "closed",
        "owner",
        "pieces",
        "stream",
    )

    def __init__(self, stream: str, limits: HubLimits, owner: str, pieces: bool, counts: Counts) -> None:
        self.stream, self.owner, self.pieces, self.closed = stream, owner, pieces, False
        self._limits, self._counts = limits, counts
        self._items: list[Item] = []
        self._bytes = self._fact_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self.call: Callable[[], None] | None = None
        """Called whenever there is something to take, beside waking who waits in `take`."""

    def put(self, item: Item, cost: int) -> None:
        """Queue an item, at once."""
        if self.closed:
            return
        # One fact, however large, leaves room for those that come with it: who resumes would meet it again.
        cost = min(cost, self._limits.queue_bytes // 2 + 1)
        if len(self._items) >= self._limits.queue_items or self._bytes + cost > self._limits.queue_bytes:
            if isinstance(item, Piece):
                self._counts.pieces += 1
                return
            facts: list[Item] = [waiting for waiting in self._items if not isinstance(waiting, Piece)]
            self._counts.pieces += len(self._items) - len(facts)
            self._items, self._bytes = facts, self._fact_bytes
            full = len(self._items) >= self._limits.queue_items or self._bytes + cost > self._limits.queue_bytes
            if self._items and full:
                self._counts.closed += 1
                self.close()
                return
        self._items.append(item)
        self._bytes += cost
        if not isinstance(item, Piece):
            self._fact_bytes += cost
        self._rouse()

    def close(self) -> None:
        """End the feed; what waits is still handed out, and `closed` says that nothing comes after it."""
        self.closed = True
        self._rouse()

    async def take(self, timeout_s: float) -> list[Item]:
        """Everything that waits, in order; [] when nothing came in time, or it was closed."""
        if not self._items and not self.closed:
            loop = asyncio.get_running_loop()
            self._wake = loop.create_future()
            timer = loop.call_later(timeout_s, self._rouse)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None
        return self.grab()

    def grab(self) -> list[Item]:
        """Everything that waits now, in order."""
        items, self._items = self._items, []
        self._bytes = self._fact_bytes = 0
        return items

    @property
    def queued(self) -> tuple[int, int]:
        """How many items wait, and about how many bytes they take."""
        return len(self._items), self._bytes

    @property
    def streams(self) -> tuple[str, ...]:
        """What it hears."""
        return (self.stream,)

    def held(self, partition: int, offset: int) -> None:
        """A fact of what it hears comes later, when its contents are here; only who wants an order must know."""

    def lost(self, partition: int, offset: int) -> None:
        """It does not come."""

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self.call is not None:
            self.call()

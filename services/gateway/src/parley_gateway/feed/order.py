"""A listener of many streams, with the facts of a partition in the order of their offsets. Beside it: the hub.

The hub keeps the order of each stream alone: a fact whose large contents must be fetched comes late, and those of other
streams go before it. Whoever says of a partition "up to here" (`vector`) must not: here they wait for it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from parley_events.codec import Fact
from parley_events.pieces import Piece
from parley_gateway.feed.hub import Hub
from parley_gateway.feed.listener import Item, Listener

_PIECE_COST = 200


class InOrder(Listener):
    """See the module. It hears facts alone; pieces of a thread come with `tap`."""

    __slots__ = ("_late", "_partition", "_streams", "_waiting", "_waiting_bytes")

    def __init__(self, hub: Hub, streams: tuple[str, ...], owner: str) -> None:
        super().__init__(streams[0], hub.limits, owner, False, hub.counts)
        self._streams, self._partition = streams, hub.partition
        self._late: dict[int, list[int]] = {}
        self._waiting: dict[int, list[tuple[int, Fact, int]]] = {}
        self._waiting_bytes = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """What it hears."""
        return self._streams

    def held(self, partition: int, offset: int) -> None:
        """What comes after this place waits for it."""
        insort(self._late.setdefault(partition, []), offset)

    def lost(self, partition: int, offset: int) -> None:
        """There is a gap: whoever listens has to come back, and read."""
        if offset in self._late.get(partition, ()):
            self.close()

    def put(self, item: Item, cost: int) -> None:
        """Queue an item, or keep it until what stands before it is here."""
        if self.closed:
            return
        if not self._late or isinstance(item, Piece):
            super().put(item, cost)
            return
        partition = self._partition(item.stream)
        late = self._late.get(partition)
        assert item.offset is not None
        if late is None or item.offset < late[0]:
            super().put(item, cost)
            return
        waiting = self._waiting.setdefault(partition, [])
        insort(waiting, (item.offset, item, cost), key=lambda one: one[0])
        self._waiting_bytes += cost
        if item.offset in late:
            late.remove(item.offset)
            self._release(partition, late, waiting)
        elif self._waiting_bytes > self._limits.queue_bytes or len(waiting) > self._limits.queue_items:
            self._counts.closed += 1
            self.close()

    def _release(self, partition: int, late: list[int], waiting: list[tuple[int, Fact, int]]) -> None:
        while waiting and (not late or waiting[0][0] < late[0]):
            _, fact, cost = waiting.pop(0)
            self._waiting_bytes -= cost
            super().put(fact, cost)
        if not late:
            del self._late[partition], self._waiting[partition]

    @property
    def empty(self) -> bool:
        """Whether nothing is queued, and nothing late."""
        return not self._items and not self._late

    @property
    def queued(self) -> tuple[int, int]:
        """How many items wait, and about how many bytes they take."""
        items, size = super().queued
        return items + sum(map(len, self._waiting.values())), size + self._waiting_bytes


def tap(hub: Hub, thread_id: str, listener: InOrder) -> Callable[[], None]:
    """Have the thread's pieces given to the listener, too, until the function that comes back is called."""
    hearing = hub.listen(thread_id)

    def pass_on() -> None:
        for item in hearing.grab():
            if isinstance(item, Piece):
                listener.put(item, _PIECE_COST + 4 * len(item.text))

    hearing.call = pass_on
    return lambda: hub.leave(hearing)

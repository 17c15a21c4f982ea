"""The facts of a partition that history may not know yet: from where history stood at the claim, up to now (DESIGN §3).

State = what history answers + this window. The owner's tail fills it, undecoded; as history moves on, it is cut.
"""

from __future__ import annotations

from collections import deque

from parley_events.log import Incoming


class Window:
    """`size` is about what it holds, in bytes; `start` is the offset from which on it has everything."""

    def __init__(self) -> None:
        self.start = 0
        self._order: deque[tuple[int, str]] = deque()
        self._streams: dict[str, deque[tuple[int, Incoming]]] = {}
        self.size = 0

    def add(self, stream: str, seq: int, record: Incoming) -> None:
        """Keep a fact that the tail has read."""
        self._order.append((record.offset, stream))
        self._streams.setdefault(stream, deque()).append((seq, record))
        self.size += len(record.value or b"") + 700

    def since(self, stream: str, seq: int) -> list[Incoming]:
        """The kept facts of a stream beyond `seq`, each seq once, in order."""
        found: dict[int, Incoming] = {}
        for number, record in self._streams.get(stream, ()):
            if number > seq:
                found.setdefault(number, record)
        return list(found.values())

    def trim(self, next_offset: int) -> None:
        """History knows everything below `next_offset`."""
        self.start = max(self.start, next_offset)
        while self._order and self._order[0][0] < next_offset:
            _, stream = self._order.popleft()
            kept = self._streams[stream]
            _, record = kept.popleft()
            self.size -= len(record.value or b"") + 700
            if not kept:
                del self._streams[stream]

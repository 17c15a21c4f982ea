"""What an answer is as new as: noted by whoever writes or reads for it, and said in its head (`Parley-Position`).

Each request has a `Noted` of its own, which `http` begins and `send`, `history` and `workspaces` find without being
handed it. A write's answer has the positions of what it wrote; a read's those that all it read had come to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar

from parley_events.positions import Position, StreamPosition, parse_positions, written

HEADER = "Parley-Position"
MOST_STREAMS = 8
"""Beyond so many streams written, the ends of their partitions are said instead."""

_NOTED: ContextVar[Noted | None] = ContextVar("parley.noted", default=None)


class Noted:
    """What one request wrote, and read."""

    __slots__ = ("_read", "_wrote")

    def __init__(self) -> None:
        self._wrote: dict[str, int] = {}
        self._read: dict[str, None] = {}

    def wrote(self, stream: str, seq: int) -> None:
        """A fact of the stream is the outcome of the request."""
        self._wrote[stream] = max(seq, self._wrote.get(stream, 0))

    def read(self, positions: str) -> None:
        """Something was read from a view that had come to these."""
        self._read[positions] = None

    def text(self, end_of: Callable[[str], str]) -> str | None:
        """What the answer says; None: nothing was written or read. `end_of`: the position of the end of a stream's
        partition, at which what was written is known to be."""
        if not self._wrote:
            return _oldest(self._read)
        if len(self._wrote) <= MOST_STREAMS:
            return written(StreamPosition(stream, seq) for stream, seq in self._wrote.items())
        return ",".join(sorted({end_of(stream) for stream in self._wrote}))


def _oldest(reads: Collection[str]) -> str | None:
    """What all that was read had come to: of two positions in one stream or partition the older one counts."""
    if len(reads) < 2:
        return next(iter(reads), None)  # as nearly always: nothing to take apart
    found: dict[str | int, Position] = {}
    for text in reads:
        for position in parse_positions(text):
            key = position.stream if isinstance(position, StreamPosition) else position.partition
            found[key] = min(position, found.get(key, position))
    return written(found.values())


def begin() -> Noted:
    """Note what is written and read from here on, in this task and in those that it makes."""
    noted = Noted()
    _NOTED.set(noted)
    return noted


def apart() -> None:
    """What this task reads is of no one request."""
    _NOTED.set(None)


def wrote(stream: str, seq: int) -> None:
    """See `Noted.wrote`."""
    noted = _NOTED.get()
    if noted is not None:
        noted.wrote(stream, seq)


def read(positions: str | None) -> None:
    """See `Noted.read`."""
    noted = _NOTED.get()
    if noted is not None and positions:
        noted.read(positions)

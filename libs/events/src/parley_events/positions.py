"""Positions: how far a reader must have come. Opaque strings to clients.

Two forms: `<stream>@<seq>` — that fact of a stream is in the view (what every write answers with; known when the
outcome is decided, and the same whenever it is repeated) — and `<partition>.<next offset>` — everything of the
partition below that offset is in the view (what a follower joins at). Several are joined by commas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parley_events.codec import check_stream
from parley_events.errors import Undecodable


class StreamPosition(NamedTuple):
    """The view contains the stream up to and with `seq`."""

    stream: str
    seq: int

    def __str__(self) -> str:
        return f"{self.stream}@{self.seq}"


class PartitionPosition(NamedTuple):
    """The view contains everything of the partition below `next_offset`."""

    partition: int
    next_offset: int

    def __str__(self) -> str:
        return f"{self.partition}.{self.next_offset}"


Position = StreamPosition | PartitionPosition


MOST_POSITIONS = 300
"""How many may be named at once: every partition, and some streams."""


def written(positions: Iterable[Position]) -> str:
    """Several positions as one text."""
    return ",".join(map(str, positions))


def parse_positions(text: str) -> tuple[Position, ...]:
    """The positions in the text; Undecodable (message for the client) when one is none, or there are too many."""
    parts = text.split(",", MOST_POSITIONS)
    if len(parts) > MOST_POSITIONS:
        raise Undecodable(f"at most {MOST_POSITIONS} positions")
    return tuple(map(parse_position, parts))


def parse_position(text: str) -> Position:
    """The position in the text; Undecodable (message for the client) when it is none."""
    stream, at, seq = text.rpartition("@")
    if at and seq.isdecimal() and len(seq) < 16:
        check_stream(stream)
        return StreamPosition(stream, int(seq))
    partition, dot, offset = text.partition(".")
    if dot and partition.isdecimal() and offset.isdecimal() and len(partition) < 4 and len(offset) < 19:
        return PartitionPosition(int(partition), int(offset))
    raise Undecodable("not a position that Parley gave out")

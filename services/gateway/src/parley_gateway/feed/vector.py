"""The cursor of a feed of many threads: of each partition, up to where all was shown. Beside it: `cursor`, of one.

As clients see it: base64url of a version, how many frames were shown of the fact that comes next (and where that is),
and of each partition that the feed is about its number, as the distance from the one before, and its offset, all as
varints. It names places on the log and nothing else, so it never expires, any replica can serve it, and in another
workspace it says nothing. 256 partitions take less than 2,000 characters, 8 take about 40.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from parley_gateway.feed.cursor import bad_cursor

VERSION = 1
_VERSION = bytes([VERSION])
MAX_PARTITIONS = 256
MAX_OFFSET = 2**62
_MAX_FRAMES = 999_999
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Vector:
    """`next`: partition → the offset below which all was shown. `frames`: how many of the frames of the fact at the
    next offset of `partition` were shown (0: none of any)."""

    next: Mapping[int, int]
    partition: int = 0
    frames: int = 0

    def __str__(self) -> str:
        told = [_VERSION, _number(self.frames)]
        if self.frames:
            told.append(_number(self.partition))
        before = -1
        for partition in sorted(self.next):
            told.append(_number(partition - before - 1))
            told.append(_number(self.next[partition]))
            before = partition
        return base64.urlsafe_b64encode(b"".join(told)).rstrip(b"=").decode()


def parse_vector(text: str) -> Vector:
    """The cursor in the text; a Problem `bad_cursor` unless Parley could have written exactly this."""
    try:
        vector = _parsed(text)
    except (ValueError, StopIteration):
        raise bad_cursor() from None
    if str(vector) != text:
        raise bad_cursor()
    return vector


def _parsed(text: str) -> Vector:
    if len(text) > _MAX_LENGTH:
        raise ValueError("too long")
    told = iter(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if next(told) != VERSION:
        raise ValueError("another version")
    frames = _take(told, _MAX_FRAMES)
    partition = _take(told, MAX_PARTITIONS - 1) if frames else 0
    places: dict[int, int] = {}
    last = -1
    for first in told:
        last += 1 + _take(told, MAX_PARTITIONS, first)
        if last >= MAX_PARTITIONS:
            raise ValueError("no such partition")
        places[last] = _take(told, MAX_OFFSET)
    if not places or (frames and partition not in places):
        raise ValueError("no place")
    return Vector(places, partition, frames)


@lru_cache(maxsize=4096)
def _number(number: int) -> bytes:
    """As a varint. Of a cursor all but one are those of the cursor before it, so they are kept."""
    told = bytearray()
    while number > 127:
        told.append(number & 127 | 128)
        number >>= 7
    told.append(number)
    return bytes(told)


def _take(told: Iterator[int], most: int, first: int | None = None) -> int:
    byte = next(told) if first is None else first
    number, shift = byte & 127, 7
    while byte & 128:
        byte = next(told)
        number |= (byte & 127) << shift
        shift += 7
        if shift > 70:
            raise ValueError("too large")
    if number > most:
        raise ValueError("too large")
    return number

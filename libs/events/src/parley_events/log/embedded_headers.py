"""Headers as the embedded log's rows keep them: after the lengths of each, name and value."""

from __future__ import annotations

import struct

from parley_events.log.port import Headers

_MOST_NAMES = 256
_LONGEST_NAME = 64


def pack(headers: Headers) -> bytes:
    """Headers as one value of a row."""
    parts = []
    for name, value in headers:
        raw = name.encode()
        parts.append(struct.pack(">II", len(raw), len(value)) + raw + value)
    return b"".join(parts)


class _Names(dict[bytes, str]):
    """Names of headers by their bytes: there are few, and each comes with every record."""

    def __missing__(self, raw: bytes) -> str:
        name = raw.decode()
        if len(self) < _MOST_NAMES and len(raw) <= _LONGEST_NAME:
            self[raw] = name
        return name


_names = _Names()
_lengths = struct.Struct(">II").unpack_from


def unpack(data: bytes) -> Headers:
    """Headers as a row keeps them."""
    headers = []
    names, lengths = _names, _lengths
    at, end = 0, len(data)
    while at < end:
        length, size = lengths(data, at)
        middle = at + 8 + length
        name = names[data[at + 8 : middle]]
        at = middle + size
        headers.append((name, data[middle:at]))
    return tuple(headers)

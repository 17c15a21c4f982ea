"""Large bodies of requests, parsed without holding up the event loop. Pure.

A JSON parser holds the interpreter from its first byte to its last: a third of a second for the base64 of 25 MiB, in
which nothing else is served. So the contents of attachments are cut out first: found by the quotes around them, which
costs a few milliseconds, and left as they are; what remains is small. Whatever is not exactly that is parsed whole.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import orjson

LONG = 256 * 1024
"""A string of this many characters is cut out."""
_MOST_QUOTES = 100_000
MARK = f"cut-{secrets.token_hex(8)}"
"""Begins what stands in the place of a string. Nobody outside knows it: a body full of guesses would cost a search for
each of them."""


class Long(NamedTuple):
    """The inside of a long JSON string without escapes, where it lies in the body."""

    view: memoryview


class Parsed(NamedTuple):
    """The JSON value of a body, and the bytes of it that were parsed: all that can hold an escape or a bracket."""

    value: Any
    seen: bytes | bytearray


def parse_large(raw: bytes | bytearray) -> Parsed:
    """The value of a body; each long `content_base64`, its own or of its attachments, is `Long`. ValueError when it is
    no JSON."""
    rest, cuts = _cut(raw)
    if cuts:
        found = _restored(rest, cuts)
        if found is not None:
            return Parsed(found, rest)
    return Parsed(orjson.loads(raw), raw)


def _cut(raw: bytes | bytearray) -> tuple[bytes, dict[str, memoryview]]:
    """The body with a token in the place of each long string, and the strings by their tokens."""
    view = memoryview(raw)
    places: list[tuple[int, int]] = []
    quote, quotes = raw.find(b'"'), 1
    while 0 <= quote < len(raw) and quotes < _MOST_QUOTES:
        end = raw.find(b'"', quote + 1)
        if end - quote > LONG and raw.find(b"\\", quote, end) < 0:
            places.append((quote + 1, end))
            end = raw.find(b'"', end + 1)
        quote, quotes = end, quotes + 1
    starts = [0, *(end for _, end in places)]
    ends = [*(start for start, _ in places), len(raw)]
    kept = [bytes(view[start:end]) for start, end in zip(starts, ends, strict=True)]
    if any(MARK.encode() in part for part in kept):
        return bytes(raw), {}
    tokens = [f"{MARK}-{number}" for number in range(len(places))]
    parts = [piece for pair in zip(kept, (token.encode() for token in tokens), strict=False) for piece in pair]
    cuts = {token: view[start:end] for token, (start, end) in zip(tokens, places, strict=True)}
    return b"".join([*parts, kept[-1]]), cuts


def _restored(rest: bytes, cuts: dict[str, memoryview]) -> Any:
    """The value with its long strings; None when one of them is anything but a field or an attachment's content."""
    try:
        value = orjson.loads(rest)
        left = dict(cuts)
        if type(value) is not dict:
            return None
        for name, text in value.items():
            if type(text) is str and text in left:
                cut = left.pop(text)
                value[name] = Long(cut) if name == "content_base64" else orjson.loads(b'"%s"' % cut)
        files = value.get("attachments")
        for file in files if type(files) is list else ():
            content = file.get("content_base64") if type(file) is dict else None
            if type(content) is str and content in left:
                file["content_base64"] = Long(left.pop(content))
    except ValueError:
        return None
    return value if not left else None

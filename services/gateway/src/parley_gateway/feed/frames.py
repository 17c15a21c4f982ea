"""Frames: what a dialect makes of what is shown, and their bytes. Pure.

One frame = one `data:` line. A frame that carries a fact or a piece has an `id:`, the cursor after it. Above it: `sse`
and `channel`, which write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from parley_gateway.feed.follow import Shown, ShownFact


class Frame(NamedTuple):
    """One frame's JSON object. `bare`: it carries no fact and no piece (a closing word), and so no id; `word` is what
    stands in it then, where that is no JSON."""

    data: dict[str, Any]
    bare: bool = False
    word: bytes | None = None


Show = Callable[[Shown], list[Frame]]
"""A dialect's `outbound`: the frames of one thing shown. It may have a `kind` (hashable): all of one kind that are told
of the same facts in their order make the same frames, so that one of them can speak for all."""


def encode(shown: Shown, frames: list[Frame]) -> Iterable[bytes]:
    """The bytes of each frame, with the cursor after it as its id."""
    if not isinstance(shown, ShownFact):
        for frame in frames:
            yield b"id: %s\ndata: %s\n\n" % (shown.cursor.encode(), orjson.dumps(frame.data))
        return
    fact, tail, skip, again = shown
    marked = sum(not frame.bare for frame in frames)
    number = 0
    for frame in frames:
        if frame.bare:
            yield b"data: %s\n\n" % (orjson.dumps(frame.data) if frame.word is None else frame.word)
            continue
        number += 1
        if again or number <= skip:
            continue
        place = f"{fact.seq}{tail}" if number == marked else f"{fact.seq}-{number}{tail}"
        yield b"id: %s\ndata: %s\n\n" % (place.encode(), orjson.dumps(frame.data))

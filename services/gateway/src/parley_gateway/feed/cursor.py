"""The cursor of a stream, as clients see it in `id:`: `<seq>[-<k>][/<call>.<block>:<chars>]…` (DESIGN §5).

Everything up to and with the fact `seq` was sent; with `-<k>`, only the first k frames of that fact. Then the blocks
that are not finished and already partly sent, with the number of their characters (Unicode code points) that were.
A cursor never expires, and any replica can serve it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from parley_gateway.errors import Problem, invalid

_FORM = re.compile(r"(0|[1-9][0-9]{0,14})(?:-([1-9][0-9]{0,5}))?((?:/[0-9]+\.[0-9]+:[0-9]+)*)", re.ASCII)
_BLOCK = re.compile(r"/([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,3}):([1-9][0-9]{0,8})", re.ASCII)
MAX_BLOCKS = 64
MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Cursor:
    """`frames` 0: the fact `seq` was sent whole. `blocks`: (call, block) → characters sent."""

    seq: int = 0
    frames: int = 0
    blocks: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def __str__(self) -> str:
        head = f"{self.seq}-{self.frames}" if self.frames else str(self.seq)
        return head + tail(self.blocks)

    @property
    def done(self) -> int:
        """The seq of the last fact that was sent whole."""
        return self.seq - 1 if self.frames else self.seq


START = Cursor()


def tail(blocks: Mapping[tuple[int, int], int]) -> str:
    """The part of a cursor that names unfinished blocks."""
    return "".join(f"/{call}.{block}:{chars}" for (call, block), chars in sorted(blocks.items()))


def parse_cursor(text: str) -> Cursor:
    """The cursor in the text; a Problem `bad_cursor` unless Parley could have written exactly this."""
    match = _FORM.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise bad_cursor()
    seq, frames = int(match[1]), int(match[2] or 0)
    blocks: dict[tuple[int, int], int] = {}
    last = (0, -1)
    for part in match[3].split("/")[1:]:
        found = _BLOCK.fullmatch("/" + part)
        if found is None or len(blocks) >= MAX_BLOCKS:
            raise bad_cursor()
        place = (int(found[1]), int(found[2]))
        if place <= last or place[0] > seq:
            raise bad_cursor()
        blocks[place] = int(found[3])
        last = place
    if frames and seq == 0:
        raise bad_cursor()
    return Cursor(seq, frames, blocks)


def bad_cursor() -> Problem:
    return invalid("the cursor is not one that this stream gave out", "bad_cursor")


def cursor_ahead() -> Problem:
    return invalid("the cursor lies ahead of the stream's end", "cursor_ahead")

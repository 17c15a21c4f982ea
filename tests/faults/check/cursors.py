"""The ids of frames, read by rules of their own: `<seq>[-<k>][/<call>.<block>:<chars>]…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WHOLE = 10_000
_FORM = re.compile(r"(\d+)(?:-(\d+))?((?:/\d+\.\d+:\d+)*)", re.ASCII)
_BLOCK = re.compile(r"/(\d+)\.(\d+):(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Id:
    """`at`: the fact that was shown last and how many of its frames (a whole one counts more than any part of it);
    `sent`: the characters sent of each block that is not finished, by (call, block)."""

    at: tuple[int, int]
    sent: dict[tuple[int, int], int]

    @property
    def seq(self) -> int:
        return self.at[0]


def parse_id(text: str) -> Id | None:
    """The id in the text; None when it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    sent = {(int(call), int(block)): int(chars) for call, block, chars in _BLOCK.findall(match[3])}
    return Id((int(match[1]), int(match[2]) if match[2] else _WHOLE), sent)

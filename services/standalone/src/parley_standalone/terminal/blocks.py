"""A growing Markdown text, cut into blocks that no later text can change. Pure.

A block ends where a line without indent follows a blank line or a closed fence, or where a list's next item begins.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)]) ")
_MARKED = re.compile(r"[`*_\[\]<>&\\|~#]|^(?: {4}|\t| *(?:[-+=]|[0-9]{1,9}[.)]))", re.MULTILINE)


class Block(NamedTuple):
    """A block's source. `apart`: a blank line stands before it."""

    source: str
    apart: bool


class Blocks:
    """See the module. `tail` is the block that is not finished."""

    def __init__(self) -> None:
        self.tail = ""
        self.apart = False
        self._at = 0
        self._fence: str | None = None
        self._blank = False
        self._list = False

    def feed(self, text: str) -> list[Block]:
        """The blocks that are finished by more text."""
        self.tail += text
        done: list[Block] = []
        while (end := self.tail.find("\n", self._at)) >= 0:
            line = self.tail[self._at : end]
            if self._fence is not None:
                found = _FENCE.match(line)
                if found and found[1].startswith(self._fence) and not line[found.end() :].strip():
                    self._fence, self._blank = None, True
            elif not line.strip():
                self._blank = True
            else:
                item = _ITEM.match(line) is not None
                if self._at and line[0] not in " \t" and (self._blank or (item and self._list)):
                    done.append(Block(self.tail[: self._at], self.apart))
                    self.apart = self._blank
                    self.tail, end, self._at = self.tail[self._at :], end - self._at, 0
                if not self._at:
                    self._list = item
                self._blank = False
                found = _FENCE.match(line)
                self._fence = found[1] if found else None
            self._at = end + 1
        return done

    def end(self) -> list[Block]:
        """The last blocks: the text is whole, and nothing may follow."""
        done = self.feed("\n")
        if self.tail.strip():
            done.append(Block(self.tail[:-1], self.apart))
        return done

    def shorten(self, chars: int) -> None:
        """Take characters from the beginning of the tail away: they are shown for good."""
        self.tail = self.tail[chars:]
        self._at, self.apart = max(0, self._at - chars), False


def is_plain(source: str) -> bool:
    """Whether a text has nothing that Markdown would mark up."""
    return _MARKED.search(source) is None


def chars_of(source: str, rows: list[str]) -> int:
    """How many characters of a plain text these first rows of it show, with the space after them."""
    wanted = sum(len("".join(row.split())) for row in rows)
    for at, char in enumerate(source):
        if not char.isspace():
            if not wanted:
                return at
            wanted -= 1
    return len(source)


def with_breaks(source: str) -> str:
    """The Markdown in which every line end is a line end, as people write in a chat; fences are left alone."""
    lines: list[str] = []
    fence: str | None = None
    for line in source.split("\n"):
        found = _FENCE.match(line)
        if found and (fence is None or found[1].startswith(fence)):
            fence = found[1] if fence is None else None
            lines.append(line)
        else:
            lines.append(line if fence or not line.strip() else line + "  ")
    return "\n".join(lines)

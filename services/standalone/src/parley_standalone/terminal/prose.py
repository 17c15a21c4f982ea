"""Texts and thoughts as they stream: which rows are final, and which may still change. Pure, given how rows are made.

A finished block goes to the scrollback once, drawn whole. Of a long paragraph without marks, the rows before the last
two go there, too: what comes later cannot change them.
"""

from __future__ import annotations

from typing import Literal, Protocol

from parley_standalone.terminal.blocks import Block, Blocks, chars_of, is_plain
from parley_standalone.terminal.region import EMPTY, Row

Kind = Literal["text", "thought"]
_OPEN_ROWS = 2


class Draw(Protocol):
    """Rows of a source at a width."""

    def text(self, source: str, columns: int) -> list[Row]: ...

    def thought(self, source: str, columns: int) -> list[Row]: ...


class Prose:
    """See the module."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._kind: Kind | None = None
        self._blocks = Blocks()
        self._done: list[tuple[Kind, Block]] = []

    def feed(self, kind: Kind, text: str) -> None:
        """More of a text or thought."""
        if kind != self._kind:
            self.close()
            self._kind = kind
        if kind == "thought":
            self._blocks.tail += text
        else:
            self._done += [(kind, block) for block in self._blocks.feed(text)]

    def close(self) -> None:
        """The block is whole."""
        if self._kind is not None:
            self._done += [(self._kind, block) for block in self._blocks.end()]
            self._kind, self._blocks = None, Blocks()

    def drop(self) -> None:
        """Forget what is not final yet."""
        self._kind = None
        self._blocks, self._done = Blocks(), []

    def rows(self, columns: int) -> tuple[list[Row], list[Row]]:
        """The rows that are final since the last call, and those that are not."""
        final: list[Row] = []
        for kind, block in self._done:
            final += self._rows(kind, block.source, block.apart, columns)
        self._done = []
        kind_now, source = self._kind, self._blocks.tail
        if kind_now is None or not source.strip():
            return final, []
        live = self._rows(kind_now, source, self._blocks.apart, columns)
        keep = _OPEN_ROWS
        if len(live) > keep + 1 and (kind_now == "thought" or is_plain(source)):
            while keep < len(live) and kind_now == "text" and not is_plain(live[-keep].plain):
                keep += 1
            final += live[:-keep]
            self._blocks.shorten(chars_of(source, [row.plain for row in live[:-keep]]))
            live = live[-keep:]
        return final, live

    def _rows(self, kind: Kind, source: str, apart: bool, columns: int) -> list[Row]:
        rows = self._draw.text(source, columns) if kind == "text" else self._draw.thought(source, columns)
        return [EMPTY, *rows] if apart and rows else rows

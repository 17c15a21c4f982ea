"""The rows at the end of the screen that may still change, and the rows that leave it for the scrollback. Pure.

What was committed is never touched again, so the scrollback is right whatever happens; of the rest only rows that have
changed are written anew, so nothing flickers. The cursor stands at the end of the last row. After a resize the rows
take as many lines as a terminal that wraps them anew gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_BEGIN, _END = "\x1b[?2026h\x1b[?25l", "\x1b[?2026l"
"""A terminal that knows it shows everything between the two at once."""


class Row(NamedTuple):
    """A row: with its colours, its width in cells, and its text without them."""

    ansi: str
    cells: int
    plain: str


EMPTY = Row("", 0, "")


class Region:
    """What the screen shows below the scrollback."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._columns = 0

    def draw(self, committed: Sequence[Row], live: Sequence[Row], columns: int, lines: int) -> str:
        """What to write so that `committed` goes to the scrollback and `live`, at least one row, stands below it.

        Rows are narrower than `columns`, so that the cursor never waits at the edge.
        """
        shown = list(live)[-max(1, lines - 1) :]
        rows, before = [*committed, *shown], self._rows
        same = 0
        up = sum(max(1, -(-row.cells // max(1, columns))) for row in before) - 1
        if columns == self._columns:
            while same < min(len(before), len(rows)) and before[same] == rows[same]:
                same += 1
            if same == len(before) == len(rows):
                self._rows = shown
                return ""
            same = min(same, len(rows) - 1)
            up = len(before) - 1 - same
        up = min(up, max(0, lines - 1))
        start = "" if not before else "\r\n" if up < 0 else f"\x1b[{up}A\r" if up else "\r"
        text = "\x1b[K\r\n".join(row.ansi for row in rows[same:])
        self._rows, self._columns = shown, columns
        return f"{_BEGIN}{start}{text}\x1b[J{_END}"

    def close(self, committed: Sequence[Row], columns: int, lines: int) -> str:
        """The same with nothing below it; the cursor stands on a fresh line, and is to be seen."""
        out = self.draw(committed, [EMPTY], columns, lines)
        self._rows = []
        return out + "\r\x1b[?25h"

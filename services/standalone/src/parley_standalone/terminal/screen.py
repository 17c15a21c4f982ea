"""Drawing: rows of texts, thoughts and tools, tables and progress. With `markdown` the only importer of rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from parley_standalone.terminal.region import Row

_COLOURS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}


class Screen:
    """A terminal, or what stands for one."""

    def __init__(self, file: IO[str]) -> None:
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=False)
        self._colours = _COLOURS.get(self._console.color_system or "")

    @property
    def columns(self) -> int:
        """One less than there are: where a terminal and we disagree about a wide character, nothing wraps."""
        return max(10, self._console.size.width - 1)

    @property
    def size(self) -> tuple[int, int]:
        return self._console.size.width, self._console.size.height

    def write(self, text: str) -> None:
        """Straight to the terminal."""
        if text:
            self._console.file.write(text)
            self._console.file.flush()

    # ---- rows

    def text(self, source: str, columns: int) -> list[Row]:
        """Markdown."""
        from parley_standalone.terminal.markdown import drawn

        try:
            rows = self._rows(drawn(source), columns)
        except Exception:
            # Whatever the library stumbles over is shown as it was written; an answer is never lost for its looks.
            rows = self._rows(Text(source.strip("\n")), columns)
        while rows and not rows[-1].plain.strip():
            rows.pop()
        while rows and not rows[0].plain.strip():
            rows.pop(0)
        return rows

    def thought(self, source: str, columns: int) -> list[Row]:
        """A thought: dim, with a line at its side."""
        rows = self._rows(Text(source.strip("\n"), style="dim italic"), columns - 2)
        side = self._paint("│ ", Style.parse("dim"))
        return [Row(side + row.ansi, row.cells + 2, row.plain) for row in rows]

    def line(self, *parts: tuple[str, str], columns: int, whole: bool = False) -> list[Row]:
        """A line of parts (text, style); cut at the end unless it is to be seen whole."""
        text = Text(no_wrap=not whole, overflow="fold" if whole else "ellipsis")
        for part, style in parts:
            text.append(part, style=style)
        return self._rows(text, columns)

    def bar(self, what: str, done: int, total: int, columns: int) -> list[Row]:
        """How far something is."""
        bar = self._rows(ProgressBar(total=total, completed=done, width=min(30, columns // 2)), columns)[0]
        [words] = self.line((f"  {what} ", "dim"), columns=max(4, columns - bar.cells))
        return [Row(words.ansi + bar.ansi, words.cells + bar.cells, words.plain + bar.plain)]

    def _rows(self, drawn: RenderableType, columns: int) -> list[Row]:
        options = self._console.options.update(width=max(4, columns), height=None)
        rows: list[Row] = []
        for line in self._console.render_lines(drawn, options, pad=False):
            plain = "".join(segment.text for segment in line)
            ansi = "".join(self._paint(segment.text, segment.style) for segment in line)
            rows.append(Row(ansi, cell_len(plain), plain))
        return rows

    def _paint(self, text: str, style: Style | None) -> str:
        return text if style is None else style.render(text, color_system=self._colours)

    # ---- what is printed at once

    def rows(self, rows: Sequence[Row]) -> None:
        self.write("".join(f"{row.ansi}\n" for row in rows))

    def say(self, text: str, style: str = "") -> None:
        """A line, or more where it is long."""
        self.rows(self.line((text, style), columns=self.columns, whole=True))

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], gives: int, *, wraps: bool = False
    ) -> None:
        """A table of cells (text, style). Where it is narrow, column `gives` gives way: it is cut, or wraps."""
        columns = [[head, *(row[number][0] for row in rows)] for number, head in enumerate(heads)]
        widths = [max(map(cell_len, column)) for column in columns]
        between = 2 * (len(heads) - 1)
        widths[gives] = max(10, min(widths[gives], self.columns - between - sum(widths) + widths[gives]))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(heads))
        for number, head in enumerate(heads):
            cut = not (wraps and number == gives)
            table.add_column(head, width=widths[number], overflow="ellipsis" if cut else "fold", no_wrap=cut)
        for row in rows:
            table.add_row(*(Text(text, style=style) for text, style in row))
        # An id is whole even where the terminal has to wrap it.
        self._console.print(table, width=between + sum(widths), crop=False)

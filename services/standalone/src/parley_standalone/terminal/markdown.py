"""Markdown, as a chat shows it. Beside `screen`, which loads this with the first text: it takes as long as all else."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.syntax import Syntax

from parley_standalone.terminal.blocks import with_breaks


class _Heading(Heading):
    """A heading as a line of the text, not in the middle of the screen."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Code(CodeBlock):
    """Code between blank lines that the text has anyway."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1))


class _Chat(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }


def drawn(source: str) -> Markdown:
    """What draws it. Addresses of links are shown, never hidden behind other words."""
    return _Chat(with_breaks(source.strip("\n")), code_theme="ansi_dark", hyperlinks=False)

"""Reading lines: a prompt with history, several lines, paste and completion. The only importer of prompt_toolkit.

Enter sends; Alt-Enter, or a backslash at the end of a line, begins another one. What is pasted stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, PathCompleter, WordCompleter, merge_completers
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle


class Line:
    """The prompt of a chat. `history`: the file that keeps what was sent, for the one who sent it alone."""

    def __init__(self, history: Path | None, commands: Sequence[str]) -> None:
        completer = merge_completers([WordCompleter(list(commands), sentence=True), _Files()])
        begins_with_colon = Condition(lambda: self._session.default_buffer.text.startswith(":"))
        self._session: PromptSession[str] = PromptSession(
            history=_kept(history),
            multiline=True,
            key_bindings=_bindings(),
            completer=completer,
            complete_while_typing=begins_with_colon,
            complete_style=CompleteStyle.READLINE_LIKE,
            prompt_continuation=lambda width, number, soft: " " * width if soft else " " * (width - 2) + "· ",
            reserve_space_for_menu=0,
        )

    async def read(self, name: str, typed: str = "", *, sent: bool = False) -> str:
        """A message. `typed` stands there already, and is taken as it is when `sent`. Ctrl-C with nothing typed raises
        KeyboardInterrupt, Ctrl-D EOFError."""
        prompt = FormattedText([("ansibrightblack", name), ("bold ansicyan", " › ")])
        return await self._session.prompt_async(prompt, default=typed, accept_default=sent)

    async def choose(self, question: str, fallback: str, typed: str = "", sent: bool = False) -> str:
        """A short answer; `fallback` when nothing is typed."""
        asking: PromptSession[str] = PromptSession(history=InMemoryHistory())
        prompt = FormattedText([("bold", question), ("", " ")])
        return (await asking.prompt_async(prompt, default=typed, accept_default=sent)).strip() or fallback


class _Files(Completer):
    """Paths, after `:attach`."""

    _paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: object):  # type: ignore[no-untyped-def]
        text = document.text_before_cursor
        if text.startswith(":attach "):
            path = text[len(":attach ") :]
            yield from self._paths.get_completions(Document(path, len(path)), complete_event)  # type: ignore[arg-type]


def _kept(file: Path | None) -> History:
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
    except OSError:
        # A chat without a memory is better than none.
        return InMemoryHistory()
    return FileHistory(str(file))


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _more(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    @keys.add("c-d")
    def _leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.delete()
        else:
            event.app.exit(exception=EOFError())

    return keys

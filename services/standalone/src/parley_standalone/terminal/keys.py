"""Keys while an answer streams: Ctrl-X cancels the run, Ctrl-C leaves it, and the rest is what is typed ahead."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CTRL_X = 0x18
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[\r\n]|.)?", re.DOTALL)
"""An arrow, a function key, or a key with Alt: nothing of it is text; Alt-Enter is a new line."""
_ENTER = re.compile(r"\r\n|\r|\n")


@dataclass
class Typed:
    """What was typed ahead."""

    raw: bytearray = field(default_factory=bytearray)

    def take(self) -> tuple[str, bool]:
        """The first line without control keys, and whether Enter was pressed after it. Later lines stay."""
        text = _SEQUENCE.sub(lambda key: "\v" if key[0][1:] in ("\r", "\n") else "", self.raw.decode(errors="ignore"))
        end = _ENTER.search(text)
        line, rest = (text, "") if end is None else (text[: end.start()], text[end.end() :])
        self.raw[:] = rest.encode()
        kept: list[str] = []
        for char in line:
            if char in "\x7f\x08":
                del kept[-1:]
            elif char == "\v":
                kept.append("\n")
            elif char.isprintable():
                kept.append(char)
        return "".join(kept), end is not None and bool(kept)


@contextmanager
def listening(fd: int, typed: Typed, cancel: Callable[[], None], leave: Callable[[], None]) -> Iterator[None]:
    """Within it keys are not echoed, Ctrl-X calls `cancel` and Ctrl-C `leave`. The terminal is as before afterwards."""
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(fd)

    def read() -> None:
        try:
            keys = os.read(fd, 4096)
        except OSError:
            keys = b""
        if not keys:
            # The terminal is gone.
            loop.remove_reader(fd)
            leave()
            return
        if CTRL_X in keys:
            cancel()
        typed.raw += keys.replace(bytes([CTRL_X]), b"")

    tty.setcbreak(fd, termios.TCSADRAIN)
    loop.add_reader(fd, read)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

"""Keys while an answer streams: Ctrl-X cancels the run, Ctrl-C leaves it, and the rest is what is typed ahead."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CTRL_X = 0x18


@dataclass
class Typed:
    """What was typed ahead."""

    raw: bytearray = field(default_factory=bytearray)

    def take(self) -> tuple[str, bool]:
        """The text without control keys, and whether it was sent with Enter."""
        text = self.raw.decode(errors="ignore")
        self.raw.clear()
        # An arrow or a function key is a sequence, of which nothing is text.
        if "\x1b" in text:
            text = text[: text.index("\x1b")]
        sent = text.endswith(("\n", "\r"))
        text = text.replace("\r", "\n").rstrip("\n")
        kept: list[str] = []
        for char in text:
            if char in "\x7f\x08":
                del kept[-1:]
            elif char == "\n" or char.isprintable():
                kept.append(char)
        return "".join(kept), sent and bool(kept)


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
    loop.add_signal_handler(signal.SIGINT, leave)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

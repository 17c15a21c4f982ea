"""A terminal for tests: what a person would see of the bytes that a program writes, and a program on a real pty.

It knows what Parley and prompt_toolkit send: text, cursor moves, erasing, scrolling; anything else fails, so that no
sequence is thought to be harmless.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from typing import Any

from rich.cells import cell_len

_TOKEN = re.compile(
    r"\x1b\[(?P<private>[?>]?)(?P<args>[0-9;]*)(?P<final>[A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b(?P<esc>[78=>])|(?P<char>[^\x1b])",
    re.DOTALL,
)
_PARTIAL = re.compile(r"\x1b(\[[?>]?[0-9;]*|\][^\x07\x1b]*)?$")


class Emulator:
    """A screen of `columns` by `lines` and its scrollback."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns, self.lines = columns, lines
        self.scrollback: list[str] = []
        self.rows: list[list[str]] = [[] for _ in range(lines)]
        self.x = self.y = 0
        self._saved = (0, 0)
        self._rest = ""
        self.replies: list[str] = []

    def text(self) -> str:
        """Everything: what was scrolled away, and the screen; without the blank end."""
        shown = ["".join(row).rstrip() for row in self.rows]
        return "\n".join([*self.scrollback, *shown]).rstrip("\n")

    def feed(self, data: str) -> None:
        data = self._rest + data
        partial = _PARTIAL.search(data)
        self._rest = partial[0] if partial else ""
        data = data[: len(data) - len(self._rest)]
        at = 0
        while at < len(data):
            found = _TOKEN.match(data, at)
            assert found is not None, f"not understood: {data[at : at + 20]!r}"
            at = found.end()
            if found["char"]:
                self._char(found["char"])
            elif found["esc"] == "7":
                self._saved = (self.x, self.y)
            elif found["esc"] == "8":
                self.x, self.y = self._saved
            elif found["final"] and not found["private"]:
                self._control(found["final"], [int(n) for n in found["args"].split(";") if n])

    def _char(self, char: str) -> None:
        if char == "\r":
            self.x = 0
        elif char == "\n":
            self._down()
        elif char == "\b":
            self.x = max(0, self.x - 1)
        elif char == "\x07":
            pass
        else:
            assert char.isprintable(), f"a control character: {char!r}"
            width = cell_len(char)
            if width == 0:
                return
            if self.x + width > self.columns:
                self.x = 0
                self._down()
            row = self.rows[self.y]
            row += [" "] * (self.x + width - len(row))
            row[self.x] = char
            if width == 2:
                row[self.x + 1] = ""
            self.x += width

    def _down(self) -> None:
        if self.y == self.lines - 1:
            self.scrollback.append("".join(self.rows.pop(0)).rstrip())
            self.rows.append([])
        else:
            self.y += 1

    def _control(self, final: str, args: list[int]) -> None:
        count = args[0] if args else 1
        row = self.rows[self.y]
        if final == "A":
            self.y = max(0, self.y - count)
        elif final == "B":
            self.y = min(self.lines - 1, self.y + count)
        elif final == "C":
            self.x = min(self.columns - 1, self.x + count)
        elif final == "D":
            self.x = max(0, self.x - count)
        elif final == "G":
            self.x = count - 1
        elif final == "H":
            self.y, self.x = ((args or [1])[0] - 1, (args[1] if len(args) > 1 else 1) - 1)
        elif final == "K" and (not args or args == [0]):
            del row[self.x :]
        elif final == "K" and args == [2]:
            row.clear()
        elif final == "J" and (not args or args == [0]):
            del row[self.x :]
            for below in self.rows[self.y + 1 :]:
                below.clear()
        elif final == "J" and args == [2]:
            for each in self.rows:
                each.clear()
        elif final == "n":
            self.replies.append(f"\x1b[{self.y + 1};{self.x + 1}R")
        else:
            assert final in "mhl", f"not understood: CSI {args} {final}"


class Tty:
    """A program on a pseudo-terminal. `screen` is what its user sees."""

    def __init__(self, words: Sequence[str], env: dict[str, str], columns: int = 80, lines: int = 24) -> None:
        self.screen = Emulator(columns, lines)
        self._fd, inner = pty.openpty()
        self._size(columns, lines)
        self.process = subprocess.Popen(
            list(words),
            env={"TERM": "xterm-256color", **env},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        os.set_blocking(self._fd, False)
        self._raw = b""

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def _read(self) -> bool:
        """Take in what was written; False: the program has closed its terminal."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        data = self._raw + data
        text = data.decode(errors="ignore")
        # A character may be cut in two.
        self._raw = data[len(text.encode()) :] if len(data) - len(text.encode()) < 4 else b""
        self.screen.feed(text)
        for reply in self.screen.replies:
            self.type(reply)
        self.screen.replies.clear()
        return True

    async def until(self, check: Callable[[str], Any], limit_s: float = 30.0) -> str:
        """Wait until what is to be seen satisfies `check`; all of it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        while True:
            alive = self._read()
            text = self.screen.text()
            if check(text):
                return text
            assert alive, f"the program is gone:\n{text}"
            assert loop.time() < end, f"not within {limit_s:g} s; on the screen:\n{text}"
            await asyncio.sleep(0.01)

    async def ended(self, limit_s: float = 30.0) -> int:
        """Wait until the program has ended; its exit status."""
        end = asyncio.get_running_loop().time() + limit_s
        while self.process.poll() is None:
            self._read()
            assert asyncio.get_running_loop().time() < end, f"it does not end:\n{self.screen.text()}"
            await asyncio.sleep(0.01)
        self._read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._fd)

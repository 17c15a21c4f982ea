"""The stdio side of a connection to an MCP server: a program that is started here and spoken to line by line.

It stands in place of the SDK's own, which reads a line of any length, and copies all of it for every 64 KiB that come:
a tool that answers with a large file would hold up every other run. Here a line is bounded, and so is what the program
writes to stderr. `leash` and the process group see to it that nothing of it is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from parley_dispatcher.errors import ServerAway

_LEASH = str(Path(__file__).with_name("leash.py"))
_LINES_A_MINUTE = 100
_MOST_LINE = 64 * 1024
_LEAVE_S, _TERM_S, _KILL_S = 2.0, 1.0, 2.0
"""How long it has after its input ended, after it was asked to end, and after it was killed."""


class Program:
    """A program that runs. `said` is told each line that it writes to stderr."""

    def __init__(self, process: Process, most_bytes: int, said: Callable[[str], None]) -> None:
        self._process, self._most_bytes, self._said = process, most_bytes, said
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        most_bytes: int,
        said: Callable[[str], None],
    ) -> Program:
        """Start it. `most_bytes` bounds a line of its answers. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            _LEASH,
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=dict(env),
            cwd=cwd,
            limit=most_bytes,
            start_new_session=True,
        )
        return cls(process, most_bytes, said)

    async def line(self) -> bytes | None:
        """The next line; None at the end. Raises ServerAway when it is too long."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise ServerAway(f"it answered with more than {self._most_bytes} bytes at once") from None

    async def write(self, line: bytes) -> None:
        """Write to it; waits while it does not read. Raises OSError when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def stop(self) -> None:
        """End it: its input first, then by asking, then by force, with all that it started."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if not await self._exits(_LEAVE_S):
            self._signal(signal.SIGTERM)
            await self._exits(_TERM_S)
        self._signal(signal.SIGKILL)
        await self._exits(_KILL_S)
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        # What left the group may hold the pipes open; nothing public closes our ends of them.
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()

    async def _exits(self, limit_s: float) -> bool:
        # Not `wait()`: that waits for the end of its pipes too, which its children may hold.
        until = asyncio.get_running_loop().time() + limit_s
        while self._process.returncode is None:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.01)
        return True

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        loop = asyncio.get_running_loop()
        rest, lines, minute = b"", 0, loop.time()
        while data := await self._process.stderr.read(16 * 1024):
            # Whole lines alone: a secret that is cut in two would not be recognised.
            *whole, rest = (rest + data).split(b"\n")
            rest = rest if len(rest) <= _MOST_LINE else b""
            if loop.time() - minute > 60.0:
                lines, minute = 0, loop.time()
            for line in whole:
                lines += 1
                if lines <= _LINES_A_MINUTE:
                    self._said(line.decode(errors="replace"))
                elif lines == _LINES_A_MINUTE + 1:
                    self._said("(more, which is left out for a minute)")

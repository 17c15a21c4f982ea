"""How a long-lived command is told to stop: the first signal asks, the second one ends everything at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT_S = 9.5
"""How long a stop may take; what is left then is killed, so that all of it is over within ten seconds."""


class Stopped(Exception):
    """The command was told to stop before its work was done."""


class Stop:
    """Set by the first signal. `at_once` kills the children, when there is a second one or the stop takes too long."""

    def __init__(self, at_once: Callable[[], None]) -> None:
        self._at_once = at_once
        self._told = asyncio.Event()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals come here until the end of the block."""
        loop = asyncio.get_running_loop()
        # Under `nohup` the end of the terminal means nothing.
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        for number in heard:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        if self._told.is_set():
            self._end()
        self.tell()

    def tell(self) -> None:
        """Stop, as a signal would."""
        if not self._told.is_set():
            self._told.set()
            asyncio.get_running_loop().call_later(LIMIT_S, self._end)

    def _end(self) -> None:
        self._at_once()
        os._exit(130)

    async def wait(self) -> None:
        await self._told.wait()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work; raises Stopped as soon as there is a signal."""
        task, told = asyncio.ensure_future(work), asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            for each in (task, told):
                each.cancel()
            await asyncio.gather(task, told, return_exceptions=True)

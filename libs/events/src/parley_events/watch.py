"""Whether the event loop still turns: a beat on the loop, and a thread that notices when it stays out.

    Beat       on every loop that has something to say about its health (`/livez`)
    LoopWatch  in every service process (`serve`): a loop that is blocked ends the process with the stack that blocks it

The thread counts its own ticks, not the time of day: a process that was stopped as a whole (SIGSTOP, a machine that
slept) has blocked nothing. Code that never lets go of the interpreter's lock stops the thread too; that is for whoever
asks `/livez`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable

from parley_events.clock import elapsed_s

_log = logging.getLogger("parley")

BEAT_S = 0.5
_LAST_WORDS_S = 5.0


class Beat:
    """`age_s` is the time since the loop last turned, beyond the beat's own pause."""

    def __init__(self) -> None:
        self.count = 0
        self._at = elapsed_s()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def age_s(self) -> float:
        return max(elapsed_s() - self._at - BEAT_S, 0.0)

    def start(self) -> None:
        """Beat on the running loop until `stop`."""
        self.count += 1
        self._at = elapsed_s()
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LoopWatch:
    """Ends the process when the loop on which it was started has not turned for `limit_s`."""

    def __init__(self, limit_s: float, end: Callable[[str], None] | None = None) -> None:
        self._limit_s, self._end = limit_s, end or end_at_once
        self._beat = Beat()
        self._stopped = threading.Event()
        self._loops_thread = 0

    def start(self) -> None:
        """Watch the running loop."""
        self._loops_thread = threading.get_ident()
        self._beat.start()
        threading.Thread(target=self._watch, name="loop-watch", daemon=True).start()

    def stop(self) -> None:
        self._beat.stop()
        self._stopped.set()

    def _watch(self) -> None:
        seen, silent_s = -1, 0.0
        while not self._stopped.wait(BEAT_S):
            if self._beat.count != seen:
                seen, silent_s = self._beat.count, 0.0
                continue
            silent_s += BEAT_S
            if silent_s >= self._limit_s:
                self._end(f"the event loop has not turned for {silent_s:g} s; it is at:\n{self._stack()}")
                return

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loops_thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(no frame)"


def end_at_once(why: str) -> None:
    """End this process without asking its loop, which is blocked. Saying why may block as well: not for long."""
    last = threading.Timer(_LAST_WORDS_S, os._exit, (1,))
    last.daemon = True
    last.start()
    _log.critical("ending: %s", why)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)

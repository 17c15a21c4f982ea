"""How a gateway that leaves ends its open streams: one after the other, so that not all clients come back at once.

The ends lie evenly over the time that there is, each with some jitter; streams that end by themselves (those of runs)
are left for last. Each ends between two frames, with an SSE `retry:` of some hundred milliseconds, another for each.
Above it: the application, when the process is told to stop. Below: the open streams (`sse`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

RETRY_MS = (200, 1000)
"""Between these a client is told to wait before it comes back."""


class Open(Protocol):
    """A stream that is open. `endless`: it does not end by itself."""

    endless: bool

    def rotate(self, retry_ms: int) -> None:
        """End it after the frame that is being sent."""


class Rotation:
    """The open streams of a gateway. `random` gives numbers from 0 to below 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._open: dict[Open, None] = {}
        self._timers: list[asyncio.TimerHandle] = []

    def enter(self, stream: Open) -> None:
        self._open[stream] = None

    def leave(self, stream: Open) -> None:
        self._open.pop(stream, None)

    def begin(self, window_s: float, then: Callable[[], None]) -> None:
        """End all that is open within the time, and then do what is left to do. Beginning again changes nothing."""
        if self._timers:
            return
        if window_s <= 0:
            self._end_all(then)
            return
        loop = asyncio.get_running_loop()
        for at_s, stream in plan(self._open, window_s, self._random):
            self._timers.append(loop.call_later(at_s, self._end, stream))
        self._timers.append(loop.call_later(window_s, self._end_all, then))

    def stop(self) -> None:
        """End nothing more: the application is over."""
        for timer in self._timers:
            timer.cancel()

    def _end(self, stream: Open) -> None:
        if stream in self._open:
            low, high = RETRY_MS
            stream.rotate(int(low + (high - low) * self._random()))

    def _end_all(self, then: Callable[[], None]) -> None:
        for stream in list(self._open):
            self._end(stream)
        then()


def plan(streams: Iterable[Open], window_s: float, random: Callable[[], float]) -> list[tuple[float, Open]]:
    """When each stream is ended: the nth of n within the nth part of the time."""
    order = sorted(streams, key=lambda stream: not stream.endless)
    return [((place + random()) * window_s / len(order), stream) for place, stream in enumerate(order)]

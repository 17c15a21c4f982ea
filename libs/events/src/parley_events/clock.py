"""The clock, as an argument: nothing else in Parley asks the system for the time of day."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Gives the time in ms since 1970."""


def system_clock() -> int:
    """The machine's time, ms since 1970."""
    return time.time_ns() // 1_000_000


_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the process or the machine stands still. Read anew at
    each call, unlike the event loop's, which knows the time at which its turn began."""
    return time.clock_gettime(_SINCE_BOOT)


def rfc3339(time_ms: int) -> str:
    """`2026-04-20T14:30:00.123Z` for a time in ms since 1970 (RFC 3339, UTC)."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03d}Z"


def parse_rfc3339(text: str) -> int:
    """Ms since 1970 of an RFC 3339 time; ValueError when it is not one or names no zone."""
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return round(moment.timestamp() * 1000)

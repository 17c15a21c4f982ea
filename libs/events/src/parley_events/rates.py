"""Rate limits as people write them: `60/minute`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour)")
_WINDOWS_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000}
LONGEST_MS = max(_WINDOWS_MS.values())
"""The longest window that a limit can have."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in any span of `window_ms`."""

    count: int
    window_ms: int


def parse_rate(text: str) -> Rate:
    """Read a rate; ValueError says what one looks like."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate limit: <number>/second, /minute or /hour is wanted, as 60/minute")
    return Rate(int(found[1]), _WINDOWS_MS[found[2]])


def checked_rate(text: str | None) -> str | None:
    """The text as it is; ValueError unless it is a rate (or none)."""
    if text is not None:
        parse_rate(text)
    return text

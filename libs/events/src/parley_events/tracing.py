"""W3C Trace Context in and out of headers: the one place that knows its form. Pure.

A request's `traceparent` goes with the command (the CloudEvents extension `traceparent`), from there into the facts
that follow from it; each reads it with `traceparent`. One that is not valid is as good as none: a trace is never a
reason to refuse anything. `tracestate` is not carried: it speaks of one hop, and a record is read for ever.

Source: W3C Trace Context, Level 1, §3.2 (the header's form, and how a newer version is read).
"""

from __future__ import annotations

import re

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_NO_TRACE = "0" * 32
_NO_PARENT = "0" * 16
_SAMPLED = 0x01


def traceparent(text: str | None) -> str | None:
    """The parent that a header names, in the form of version 00; None where it names none, or is not valid.

    Of a version that is newer than 00 only what 00 has is read: trace, parent, and whether it is sampled.
    """
    match = _FORM.fullmatch(text) if text is not None else None
    if match is None:
        return None
    version, trace, parent, flags, more = match.groups()
    if version == "ff" or trace == _NO_TRACE or parent == _NO_PARENT:
        return None
    if version == "00":
        return None if more else text
    return f"00-{trace}-{parent}-{int(flags, 16) & _SAMPLED:02x}"

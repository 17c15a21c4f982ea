"""Decided commands, as a stream's state remembers them."""

from __future__ import annotations

from dataclasses import dataclass

from parley_events.body import Json

REMEMBER_MS = 7 * 86_400_000
"""How long a decided command is recognised, in record time."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decided command: its body's hash and its outcome."""

    body_hash: str | None
    outcome_type: str
    seq: int | None
    time_ms: int
    receipt: Json

"""Old versions of records, made into today's: one pure function per step, chained at read. The log is never rewritten.

To change a record's shape in a way that old readers or old records cannot stand: raise the class's `version`, add a
step here, and keep the old version's golden sample under `tests/contract/events`.
"""

from __future__ import annotations

from collections.abc import Callable

from parley_events.body import Json

UPCASTERS: dict[tuple[str, int], Callable[[Json], Json]] = {}
"""(type, version) → the step that makes a body of that version into one of the next."""


def upcast(kind: str, version: int, newest: int, body: Json) -> Json:
    """The body of `version` as `newest` has it; KeyError when a step is missing."""
    for step in range(version, newest):
        body = UPCASTERS[(kind, step)](body)
    return body

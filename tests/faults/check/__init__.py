"""The offline checker: from what was observed (`tests.faults.evidence`) to the promises that were not kept.

`CHECKS` has one entry per promise of the design, each a pure function of the `story` that the evidence tells; promise 8
(one workspace never sees another's data) has tests of its own. `whole` looks at the evidence itself: a check that was
given nothing to look at must not pass. `report` makes the table of the suite.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.check.effects import check_effects
from tests.faults.check.kept import check_kept
from tests.faults.check.memory import check_memory
from tests.faults.check.order import check_order
from tests.faults.check.outcomes import check_outcomes
from tests.faults.check.positions import check_positions
from tests.faults.check.recovery import check_recovery
from tests.faults.check.stops import check_stops
from tests.faults.check.story import Story, read
from tests.faults.check.transcripts import check_followers
from tests.faults.check.views import check_views
from tests.faults.check.violation import PROMISES, Violation
from tests.faults.check.waits import check_waits
from tests.faults.check.whole import check_whole
from tests.faults.evidence import Evidence

CHECKS: dict[int, tuple[Callable[[Story], list[Violation]], ...]] = {
    0: (check_whole,),
    1: (check_outcomes, check_waits),
    2: (check_order,),
    3: (check_effects, check_stops),
    4: (check_views, check_positions),
    5: (check_followers,),
    6: (check_recovery,),
    7: (check_kept,),
    9: (check_memory,),
}
"""What is looked at, by the promise."""


def check(evidence: Evidence) -> list[Violation]:
    """Every promise that was not kept, by its number; [] when all were. A check that breaks on what it was given is a
    violation, too: it never passes."""
    try:
        story = read(evidence)
    except Exception as error:
        return [Violation(0, f"the evidence cannot be read: {error!r}")]
    found: list[Violation] = []
    for promise, checks in CHECKS.items():
        for one in checks:
            try:
                found += one(story)
            except Exception as error:
                found.append(Violation(promise, f"{one.__name__} broke on this evidence: {error!r}"))
    return sorted(found, key=lambda violation: violation.promise)


__all__ = ["CHECKS", "PROMISES", "Violation", "check"]

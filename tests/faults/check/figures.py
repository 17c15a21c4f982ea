"""Numbers of a run of the suite, from the same evidence: how long takeovers took, how much was tried and broken."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from tests.faults.check.recovery import takeovers
from tests.faults.check.story import read
from tests.faults.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Figures:
    """`takeovers_ms`: from each strike to the next fact of a victim's thread under a newer claim, shortest first."""

    runs: int
    commands: int
    facts: int
    faults: int
    takeovers_ms: tuple[int, ...]

    def __str__(self) -> str:
        took = [ms / 1000 for ms in self.takeovers_ms]
        over = f"{len(took)} takeovers, p50 {median(took):.1f} s, max {took[-1]:.1f} s" if took else "no takeovers"
        return f"{self.runs} runs, {self.commands} commands, {self.facts} facts, {self.faults} faults; {over}"


def figures(evidence: Evidence) -> Figures:
    """The numbers of a piece of evidence."""
    story = read(evidence)
    took = sorted(ms for fault in evidence.faults for ms in takeovers(story, fault).values())
    return Figures(len(story.runs), len(evidence.commands), len(story.facts), len(evidence.faults), tuple(took))

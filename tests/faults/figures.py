"""Numbers out of the evidence: how long takeovers took, how many runs were at work, how many faults were struck."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from parley_events.partition import partition_of
from tests.faults.check.story import Story, read
from tests.faults.evidence import Evidence, Fault


@dataclass(frozen=True, slots=True)
class Figures:
    """`takeovers`: per fault whose victim went on under another owner, the seconds from the fault to that owner's first
    fact in the victim's thread."""

    runs: int
    faults: int
    facts: int
    takeovers: tuple[tuple[str, float], ...]

    def lines(self) -> list[str]:
        """For people."""
        found = [f"{self.runs} runs, {self.faults} faults, {self.facts} facts"]
        for word in ("kill", "stop"):
            seconds = sorted(took for name, took in self.takeovers if name.startswith(word))
            if seconds:
                found.append(
                    f"time to take over, {word}: p50 {statistics.median(seconds):.1f} s, max {seconds[-1]:.1f} s, "
                    f"{len(seconds)} takeovers"
                )
        return found


def figures(evidence: Evidence) -> Figures:
    """The numbers of a run of the suite."""
    story = read(evidence)
    found = [(fault.name, took) for fault in evidence.faults for took in _takeovers(story, evidence, fault)]
    return Figures(len(story.runs), len(evidence.faults), len(story.facts), tuple(found))


def _takeovers(story: Story, evidence: Evidence, fault: Fault) -> Sequence[float]:
    found = []
    for thread in fault.victims:
        partition = partition_of(thread.encode(), evidence.partitions)
        before = [
            claim
            for claim in story.claims.get(partition, ())
            if _claimed_ms(evidence, partition, claim) <= fault.struck_wall_ms
        ]
        epoch = before[-1] if before else -1
        for fact in story.streams.get(thread, ()):
            if (fact.epoch or 0) > epoch:
                found.append((story.appended_ms(fact) - fault.struck_wall_ms) / 1000)
                break
    return found


def _claimed_ms(evidence: Evidence, partition: int, offset: int) -> int:
    return next(
        record.time_ms for record in evidence.events if (record.partition, record.offset) == (partition, offset)
    )

"""9. Memory is bounded: no process held more than its limit at any time."""

from __future__ import annotations

from tests.faults.check.story import Story
from tests.faults.check.violation import Violation

MIB = 1024 * 1024


def check_memory(story: Story) -> list[Violation]:
    """Promise 9, as far as samples show it: the largest one of each process."""
    largest: dict[tuple[str, int], int] = {}
    for sample in story.evidence.memory:
        place = (sample.service, sample.pid)
        largest[place] = max(sample.rss_bytes, largest.get(place, 0))
    limit = story.evidence.limits.rss_mib
    return [
        Violation(9, f"{service} {pid} held {rss // MIB} MiB; {limit} are its limit")
        for (service, pid), rss in largest.items()
        if rss > limit * MIB
    ]

"""4, while it happens: a position of the view moves only onward, each time from where it stood.

At the end a view may be right again whatever went on: what was read meanwhile was not, so every move is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.check.story import Story
from tests.faults.check.violation import Violation


def check_positions(story: Story) -> list[Violation]:
    """Promise 4, of the positions."""
    return list(_moves(story))


def _moves(story: Story) -> Iterator[Violation]:
    stands: dict[int, int] = {}
    for move in story.evidence.moves:
        partition, start, end = int(move["partition"]), int(move["from_offset"]), int(move["to_offset"])
        where = f"partition {partition} of the view"
        if end < start:
            yield Violation(4, f"the position went back from {start} to {end}", where)
        if start != stands.get(partition, start):
            yield Violation(4, f"the position was moved from {start}, and stood at {stands[partition]}", where)
        stands[partition] = end

"""Commands that an earlier owner had in its hands: which of them are finished, and which may have ended it.

Offsets are committed a moment after outcomes are on record, so a new owner is given commands a second time. What it
reads of the partition before its claim tells it which have their outcome: those are not decided again, whatever the
outcome was. The others are suspects. Each of them (the first `MOST_ALONE`, in their order) is begun alone, after a
`command.tried` that was read back: a dispatcher that dies before the outcome leaves that record behind. A command that
was tried `MOST_TRIES` times and has no outcome is poison. Only a death within the moment between the two records
counts, so that neither a rebalance storm nor a slow history, nor what else the dispatcher was doing, can make an
innocent command look like one. Pure; `owner` reads and writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from parley_events import facts as f
from parley_events.codec import FactHead

MOST_TRIES = 2
"""How often a command is begun alone; it killed once before it became a suspect, so three dispatchers in all."""
MOST_ALONE = 100
"""How many suspects are begun alone; a dispatcher dies of what it has just begun, not of a long backlog."""
SKEW_MS = 5_000
"""How much the clocks of two partitions' leaders may differ: an outcome is looked for from that long before its
command."""


class Redelivered:
    """What is known of the commands below `until`, which the owner before may have begun."""

    def __init__(self) -> None:
        self.finished: set[int] = set()
        self.until = 0
        self._tries: Counter[int] = Counter()
        self._alone = MOST_ALONE

    def see(self, head: FactHead) -> None:
        """A record before the claim that may be believed."""
        if head.command_offset is None:
            return
        if head.type == f.CommandTried.type:
            self._tries[head.command_offset] += 1
        elif head.causation_id is not None:
            self.finished.add(head.command_offset)

    def done(self, offset: int) -> bool:
        """Whether the command, given in the order of the partition, has its outcome already."""
        if offset >= self.until:
            self.finished.clear()  # nothing below is asked for any more
        return offset in self.finished

    def tries(self, offset: int) -> int:
        """How often the command was begun alone, and no outcome followed."""
        return self._tries[offset]

    def first_unfinished(self, start: int, end: int) -> int | None:
        """The first command from `start` on, below `end`, that has no outcome."""
        return next((offset for offset in range(start, end) if offset not in self.finished), None)

    def suspect(self, offset: int) -> bool:
        """Whether the command, which has no outcome, is to be begun alone."""
        if offset >= self.until or (self._alone <= 0 and not self._tries[offset]):
            return False
        self._alone -= 1
        return True


def reading_from(next_offset: int, epoch: int, claims: Iterable[int], since: int) -> tuple[int, int]:
    """Where to begin to read so that the outcomes from `since` on are found, and the epoch in force there.

    History stands at `next_offset` with `epoch` in force, and knows the last `claims` below. Before the oldest claim
    that is known nobody can be believed, and nothing is read.
    """
    if since >= next_offset or epoch < 0:
        return next_offset, epoch
    known = sorted({*claims, epoch})
    before = [claim for claim in known if claim < since]
    return (since, before[-1]) if before else (known[0], -1)

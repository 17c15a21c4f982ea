"""The epoch rule: which records a reader may believe (DESIGN §2).

Whoever takes a partition appends `partition.claimed`; that record's offset is its epoch, and everything it writes
carries it. The order of the log alone decides: no clock, no lease. Two counters, which never mix: facts are held
against the newest claim read so far; pieces, which are on another topic, against the newest epoch seen anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from parley_events.facts import PartitionClaimed

_CLAIMED = PartitionClaimed.type


@dataclass(slots=True)
class FactFence:
    """One partition of `parley.events`, read in order from a position at which `epoch` was in force (-1: none yet)."""

    epoch: int = -1

    def accepts(self, offset: int, kind: str, epoch: int) -> bool:
        """Whether the record at `offset` counts; a claim always does, and is in force from here on."""
        if kind == _CLAIMED:
            self.epoch = offset
            return True
        return epoch == self.epoch


@dataclass(slots=True)
class PieceFence:
    """One partition of `parley.deltas`: pieces below the newest epoch known are a superseded writer's."""

    epoch: int = -1

    def claimed(self, epoch: int) -> None:
        """A claim was read on the partition's events."""
        self.epoch = max(self.epoch, epoch)

    def accepts(self, epoch: int) -> bool:
        """Whether a batch of pieces of this epoch counts."""
        if epoch < self.epoch:
            return False
        self.epoch = epoch
        return True

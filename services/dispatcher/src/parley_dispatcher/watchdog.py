"""Whether a partition stands still though nothing outside keeps it: then this process is what is broken.

Asked once a second by `worker`. A partition moves when its watermark does, or, before its claim is there, when its tail
does. History, the object store or the log not answering is an excuse, and the time begins anew after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

EXCUSE_S = 20.0
"""How long a question that was not answered excuses: longer than any of them may take."""


class Watched(Protocol):
    """What is looked at of an owner."""

    partition: int
    ready: bool
    closed: bool
    read_to: int
    next_command: int
    waited_at: float

    def watermark(self) -> int: ...


@dataclass(slots=True)
class _Seen:
    owner: Watched
    stands_at: tuple[bool, int]
    since: float


class Watchdog:
    """Remembers since when each partition has stood where it stands."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[int, _Seen] = {}

    def look(self, owners: Iterable[Watched], unacknowledged_s: float, now: float) -> str | None:
        """What is wrong, or None. `unacknowledged_s`: for how long the log has not acknowledged the oldest fact."""
        wrong = None
        away = unacknowledged_s > 5.0
        before, self._seen = self._seen, {}
        for owner in owners:
            if owner.closed:
                continue
            stands_at = (owner.ready, owner.watermark() if owner.ready else owner.read_to)
            idle = owner.ready and stands_at[1] >= owner.next_command
            seen = before.get(owner.partition)
            excused = away or (owner.waited_at > 0 and now - owner.waited_at < EXCUSE_S)
            if seen is None or seen.owner is not owner or seen.stands_at != stands_at or idle or excused:
                seen = _Seen(owner, stands_at, now)
            self._seen[owner.partition] = seen
            if now - seen.since > self._limit_s:
                what = f"the command at {stands_at[1]} is not finished" if owner.ready else "it is not claimed"
                wrong = f"partition {owner.partition} stands still: {what} since {now - seen.since:.0f} s"
        return wrong

"""How often batches leave: at once while there are few, and gathered where there are many. Pure; times come in.

A request to a broker costs nearly half a millisecond of CPU, however small it is, and again with each reader. With many
clients a moment's wait halves the number of requests. With few it would bring nothing, and it must not hold up one who
waits for each answer before the next question: so waits end when they have brought enough company, and are left out for
a while when they bring none. `kafka_producer` goes by it. (Turns: the generic cell rate algorithm, ITU-T I.371.)
"""

from __future__ import annotations

BATCHES_PER_S = 33
AT_ONCE = 10
FULL = 8
"""So many records of other streams are worth a request."""
_MOST_FREE = 64


class Pace:
    """`at_once` turns in a row without a wait, and `per_s` in the long run, not counting full ones, as long as waiting
    brings company; 0: never a wait. `take` a turn, and tell what else `came` until then."""

    def __init__(self, per_s: float = BATCHES_PER_S, at_once: int = AT_ONCE) -> None:
        self._each_s = 1 / per_s if per_s else 0.0
        self._spare_s = max(at_once - 1, 0) * self._each_s
        self._due = 0.0
        self._first: bytes | None = None
        self._waited = False
        self._company = self._alone = self._free = 0

    def take(self, now: float, stream: bytes | None) -> float:
        """Take the next turn, for a record of a stream (None: of no single one); the seconds until it comes."""
        if self._waited:
            self._alone = 0 if self._company else self._alone + 1
            # The first may be chance.
            self._free = min(2 ** (self._alone - 1), _MOST_FREE) if self._alone > 1 else 0
        self._waited, self._company = False, 0
        self._first, due = stream, max(self._due, now)
        self._due = due + self._each_s
        wait_s = due - self._spare_s - now
        if wait_s <= 0:
            return 0.0
        if self._free:
            self._free -= 1
            self._due = due
            return 0.0
        self._waited = True
        return wait_s

    def came(self, stream: bytes | None, now: float) -> bool:
        """A record goes along with the turn that was taken; another stream's is company. True: that is enough, the turn
        is now, and those after it come as much earlier."""
        if stream is None or stream != self._first:
            self._company += 1
        if self._company < FULL:
            return False
        self._due = min(self._due, now + self._spare_s + self._each_s)
        return True

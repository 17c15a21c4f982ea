"""The timers of this process' partitions: each second history is asked once what is due in them all, and it is fired.

What a timer means is decided by the thread's state (`dues`), so a list that is late, or listed again by another owner,
does no harm. While history is away nothing is fired, and nothing is lost: it is due still when history is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from parley_dispatcher.errors import HistoryUnavailable, NotOwner
from parley_dispatcher.history import History
from parley_events.clock import Clock
from parley_events.partition import partition_of
from parley_events.reads import Due

_log = logging.getLogger(__name__)

_AT_ONCE = 16
"""How many threads of a partition are loaded at once for what is due in them."""
_MOST_FIRED = 10_000


class Timers:
    """Fires what is due in one partition. `fire` judges one due, at the time that it was asked for."""

    def __init__(self, fire: Callable[[Due, int], Awaitable[None]]) -> None:
        self._fire = fire
        self._fired: OrderedDict[Due, None] = OrderedDict()
        self.firing = False

    async def take(self, listed: Sequence[Due], now_ms: int) -> None:
        """Fire what was due at that time, and was not fired before: history may list it until it has folded what came
        of it. Raises NotOwner."""
        self.firing = True
        try:
            dues = [due for due in listed if due not in self._fired]
            for start in range(0, len(dues), _AT_ONCE):
                await asyncio.gather(*(self._fire_one(due, now_ms) for due in dues[start : start + _AT_ONCE]))
        finally:
            self.firing = False

    async def _fire_one(self, due: Due, now_ms: int) -> None:
        try:
            await self._fire(due, now_ms)
        except NotOwner:
            raise
        except Exception:
            # One thread that cannot be judged must not stop the timers of the others.
            _log.exception("the timer %s of %s failed", due.due_key, due.stream)
        self._fired[due] = None
        while len(self._fired) > _MOST_FIRED:
            self._fired.popitem(last=False)


Fire = Callable[[Sequence[Due], int], None]
"""Begins to fire what is due in a partition, as of a time."""


async def look(history: History, now_ms: int, partitions: int, ready: Mapping[int, Fire]) -> None:
    """Ask once what is due in these partitions, of so many, and have it fired; nothing while history is away."""
    try:
        listed = await history.due(ready, now_ms) if ready else ()
    except HistoryUnavailable:
        return
    by_partition: dict[int, list[Due]] = {}
    for due in listed:
        by_partition.setdefault(partition_of(due.stream.encode(), partitions), []).append(due)
    for partition, dues in by_partition.items():
        if partition in ready:
            ready[partition](dues, now_ms)


async def watch(
    history: History, clock: Clock, every_ms: int, partitions: int, ready: Callable[[], Mapping[int, Fire]]
) -> None:
    """Look again and again, until the task is cancelled."""
    while True:
        await asyncio.sleep(max(every_ms, 10) / 1000)
        try:
            await look(history, clock(), partitions, ready())
        except Exception:
            # An answer that cannot be read must not end the process: nothing is fired until one can.
            _log.exception("the timers stand still")

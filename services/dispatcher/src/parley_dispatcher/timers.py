"""The timers of a partition: each second its owner asks history what is due by its own clock, and fires it.

What a timer means is decided by the thread's state (`dues`), so a list that is late, or listed again by another owner,
does no harm. While history is away nothing is fired, and nothing is lost: it is due still when history is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from parley_dispatcher.errors import HistoryUnavailable, NotOwner
from parley_dispatcher.history import History
from parley_events.clock import Clock
from parley_events.reads import Due

_log = logging.getLogger(__name__)

_AT_ONCE = 16
"""How many threads are loaded at once for what is due in them."""
_MOST_FIRED = 10_000


class Timers:
    """Fires what is due in a partition. `fire` judges one due, at the time that it was asked for."""

    def __init__(
        self, partition: int, history: History, clock: Clock, fire: Callable[[Due, int], Awaitable[None]]
    ) -> None:
        self._partition, self._history, self._clock, self._fire = partition, history, clock, fire
        self._fired: OrderedDict[Due, None] = OrderedDict()

    async def watch(self, every_ms: int) -> None:
        """Look again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(max(every_ms, 10) / 1000)
            try:
                await self.look()
            except NotOwner:
                raise
            except Exception:
                # An answer that cannot be read must not cost the partition: nothing is fired until one can.
                _log.exception("the timers of partition %d stand still", self._partition)

    async def look(self) -> None:
        """Fire what is due now, and was not fired before: history may list it until it has folded what came of it."""
        now_ms = self._clock()
        try:
            listed = await self._history.due(self._partition, now_ms)
        except HistoryUnavailable:
            return
        dues = [due for due in listed if due not in self._fired]
        for start in range(0, len(dues), _AT_ONCE):
            await asyncio.gather(*(self._fire_one(due, now_ms) for due in dues[start : start + _AT_ONCE]))

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

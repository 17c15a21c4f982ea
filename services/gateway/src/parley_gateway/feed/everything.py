"""All threads of a workspace at once, live only: what `parley tail` follows. Beside `join`, which follows one thread.

Whoever asks sees the facts of the threads that their key may read, by the rule of `reads.thread`, and of no other.
Whose a thread is, its first fact says; of a thread that began earlier history is asked, once. While that cannot be
answered nothing is shown: the feed ends, and the client comes back. Facts of the workspace itself (its keys) are of no
thread, and never shown.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from parley_events.body import ThreadSeed
from parley_events.codec import Fact
from parley_events.facts import MessagePosted, ThreadCreated, ThreadForked
from parley_events.pieces import Piece
from parley_gateway.auth import Principal
from parley_gateway.errors import Problem
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.hub import Hub, Listener
from parley_gateway.reads import Reads

THREADS_LIMIT = 10_000


@dataclass(slots=True)
class _Thread:
    visible: bool
    seq: int = 0


class Everything:
    """What one client is shown of all threads. Close it in the end; `listener` hears the whole workspace."""

    def __init__(self, hub: Hub, listener: Listener, principal: Principal, reads: Reads) -> None:
        self._hub, self._listener, self._principal, self._reads = hub, listener, principal, reads
        self._threads: OrderedDict[str, _Thread] = OrderedDict()
        self.over = False

    @property
    def recalled(self) -> list[Fact]:
        """Nothing: it begins now."""
        return []

    async def take(self, timeout_s: float) -> list[Shown]:
        """What is to be shown next; [] when nothing came in time, or it is over."""
        items = await self._listener.take(timeout_s)
        self.over = self._listener.closed and not items
        shown: list[Shown] = []
        for item in items:
            if isinstance(item, Piece):
                continue
            try:
                if await self._sees(item):
                    shown.append(ShownFact(item, ""))
            except Problem:
                self._listener.close()
                self.over = True
                break
        return shown

    def close(self) -> None:
        self._hub.leave(self._listener)

    async def _sees(self, fact: Fact) -> bool:
        thread = self._threads.get(fact.stream)
        if thread is None:
            thread = self._threads[fact.stream] = _Thread(await self._may_see(fact))
            if len(self._threads) > THREADS_LIMIT:
                self._threads.popitem(last=False)
        self._threads.move_to_end(fact.stream)
        # A record that was sent twice after an outage has the same seq.
        new = fact.seq is not None and fact.seq > thread.seq
        thread.seq = max(thread.seq, fact.seq or 0)
        return thread.visible and new

    async def _may_see(self, fact: Fact) -> bool:
        who = self._principal
        seed = _seed(fact)
        if seed is not None:
            return (seed.user_id in (None, who.user_id) or who.admin) and who.may_read(seed.agent_id, seed.team_id)
        try:
            await self._reads.thread(who, fact.stream)
        except Problem as problem:
            if problem.status in (403, 404):
                return False
            raise
        return True


def _seed(fact: Fact) -> ThreadSeed | None:
    """Whose the thread is, where this is its first fact."""
    if fact.seq == 1 and isinstance(fact.body, ThreadCreated | ThreadForked):
        return fact.body.seed
    return fact.body.opened if fact.seq == 1 and isinstance(fact.body, MessagePosted) else None

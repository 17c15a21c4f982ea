"""Whose threads are, as one client's feed of many threads must know: may it be shown, and how far was it told.

Of a thread that begins while the feed is open its first fact says it; of others history is asked, once. What it answers
is as of the fact that was met, and so tells a record that was sent twice (after an outage) from a new one, also where
the first of the two lies before the client's cursor. For that its view must have come to where the feed began to
meet facts: what is of a thread that was not met lies before that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parley_events.body import ThreadSeed
from parley_events.codec import Fact
from parley_events.facts import MessagePosted, ThreadCreated, ThreadForked
from parley_events.reads import OwnerView
from parley_gateway.auth import Principal
from parley_gateway.errors import Behind
from parley_gateway.feed.hub import Hub
from parley_gateway.history import History

THREADS_LIMIT = 10_000
_ASK_MOST = 200


@dataclass(slots=True)
class Met:
    """A thread that was met. `seq`: up to where the feed has it."""

    visible: bool
    seq: int


class Owners:
    """The threads that one client has met; those met longest ago are forgotten, and asked for again. `fresh`: the
    client has seen nothing before, so that what begins is new to it."""

    def __init__(self, hub: Hub, history: History, principal: Principal, *, fresh: bool) -> None:
        self._hub, self._history, self._principal, self._fresh = hub, history, principal, fresh
        self._met: OrderedDict[str, Met] = OrderedDict()
        self._since: Mapping[int, int] = {}
        self._forgot = False

    def meets(self, since: Mapping[int, int]) -> None:
        """From these places on every fact of its partitions is met."""
        self._since = since

    def get(self, thread_id: str) -> Met | None:
        met = self._met.get(thread_id)
        if met is not None:
            self._met.move_to_end(thread_id)
        return met

    def told(self, fact: Fact) -> None:
        """A fact that history gave, which gives only what may be shown."""
        assert fact.seq is not None
        self._put(fact.stream, Met(True, fact.seq))

    async def meet(self, facts: Sequence[Fact]) -> None:
        """Find out about the threads of these facts that are not known; raises a Problem when that cannot be said."""
        unknown: dict[str, Fact] = {}
        for fact in facts:
            if fact.stream not in self._met and fact.stream not in unknown:
                unknown[fact.stream] = fact
        asked = [fact for fact in unknown.values() if not self._begins(fact)]
        for begin in range(0, len(asked), _ASK_MOST):
            await self._ask(asked[begin : begin + _ASK_MOST])

    def _begins(self, fact: Fact) -> bool:
        """Whether the fact alone says whose the thread is; then that is known."""
        seed = _seed(fact)
        if seed is None or not self._fresh:
            return False
        self._know(fact.stream, seed, 0)
        return True

    async def _ask(self, facts: Sequence[Fact]) -> None:
        workspace_id = self._principal.workspace_id
        ends = sorted({self._known_to(fact) for fact in facts})
        owners = await self._history.owners(workspace_id, [_place(fact) for fact in facts], ends)
        for fact in facts:
            owner, seed = owners.get(fact.stream), _seed(fact)
            if owner is not None and owner.seq >= _before(fact):
                self._know(fact.stream, owner, owner.seq)
            elif seed is not None:
                self._know(fact.stream, seed, 0)
            else:
                raise Behind

    def _known_to(self, fact: Fact) -> str:
        """Up to where the view must have come: before that is all that the thread had before this fact."""
        partition = self._hub.partition(fact.stream)
        return f"{partition}.{fact.offset if self._forgot else self._since[partition]}"

    def _know(self, thread_id: str, whose: ThreadSeed | OwnerView, seq: int) -> None:
        self._put(thread_id, Met(self._principal.sees(whose.user_id, whose.agent_id, whose.team_id), seq))

    def _put(self, thread_id: str, met: Met) -> None:
        self._met[thread_id] = met
        self._met.move_to_end(thread_id)
        if len(self._met) > THREADS_LIMIT:
            self._met.popitem(last=False)
            self._forgot = True


def _place(fact: Fact) -> str:
    return f"{fact.stream}@{fact.offset}"


def _before(fact: Fact) -> int:
    """The seq of the fact before it."""
    return (fact.seq or 1) - 1


def _seed(fact: Fact) -> ThreadSeed | None:
    """Whose the thread is, where this is its first fact."""
    if fact.seq == 1 and isinstance(fact.body, ThreadCreated | ThreadForked):
        return fact.body.seed
    return fact.body.opened if fact.seq == 1 and isinstance(fact.body, MessagePosted) else None

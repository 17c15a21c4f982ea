"""What was going on at a place of a thread: the facts of the runs that were open there, read backwards as far as that
takes. Above it: `join`, and the pages and streams of `threads` that begin in the middle."""

from __future__ import annotations

from collections.abc import Sequence

from parley_events.codec import Fact
from parley_events.facts import RUN_ENDS, MessagePosted, ModelCalled
from parley_gateway.feed.follow import run_of
from parley_gateway.history import History

AT_A_TIME = 200
"""How many facts are read at a time. Most threads are free more often than that."""


async def open_at(
    history: History, workspace_id: str, stream: str, seq: int | None, min_position: Sequence[str] = ()
) -> list[Fact]:
    """The facts up to and with `seq` (None: the newest that is stored) of all runs that are open there, in their order,
    and the ends of others. Runs have their turn in the order of their messages: before one that has had it, or that
    found the thread free, all have ended. Raises what `History.facts` raises."""
    found: list[Fact] = []
    ended: set[str | None] = set()
    called: set[str | None] = set()
    at = 0 if seq is None else seq + 1
    while at != 1:
        facts, _ = await history.facts(workspace_id, stream, at, AT_A_TIME, "desc", min_position)
        for fact in facts:
            at, run_id = fact.seq or 1, run_of(fact)
            if fact.type in RUN_ENDS:
                ended.add(run_id)
            if run_id is not None and (fact.type in RUN_ENDS or run_id not in ended):
                found.append(fact)
            if isinstance(fact.body, ModelCalled):
                called.add(run_id)
            if isinstance(fact.body, MessagePosted) and (fact.body.disposition == "started" or run_id in called):
                return found[::-1]
        if not facts:
            break
    return found[::-1]

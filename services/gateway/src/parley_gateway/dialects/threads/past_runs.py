"""Runs that a fork took over: they ran, and ended, in the source, and are shown here as they ended there.

All that is known of them stands in the fork's first fact. Beside it: `routes`, which follows runs of the thread's own.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from parley_events.codec import Fact
from parley_events.reads import RunView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import outbound
from parley_gateway.errors import not_found
from parley_gateway.feed.cursor import Cursor
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.http import answer, query_limit


class _Told:
    """A feed of one fact, which is over then. `cursor`: what of it was sent before."""

    def __init__(self, fact: Fact, cursor: Cursor) -> None:
        self._fact, self._skip = fact, cursor.frames
        self.over = cursor.done >= 1

    @property
    def recalled(self) -> list[Fact]:
        """Nothing: the one fact has it all."""
        return []

    async def take(self, timeout_s: float) -> list[Shown]:
        """What is left of the fact."""
        self.over = True
        return [ShownFact(self._fact, "", self._skip)]

    def end(self) -> None:
        """It is over at once anyway."""

    def close(self) -> None:
        """Nothing is held."""


async def stream(core: Core, who: Principal, run: RunView, cursor: Cursor) -> Response:
    """The frames of the run from a cursor on: their ids are `1-1`, `1-2`, … and `1` for the last."""
    frames = outbound.Frames(run.thread_id, run_id=run.id)
    return core_.stream(core, _Told(await _fork(core, who, run), cursor), frames, {"Parley-Run-Id": run.id})


async def page(core: Core, who: Principal, request: Request, run: RunView, cursor: Cursor) -> Response:
    """A page of the run's facts."""
    limit = query_limit(request)
    items = outbound.past_facts(await _fork(core, who, run), run.id)
    begin = len(items) if cursor.done >= 1 else cursor.frames
    more = begin + limit < len(items)
    return answer(200, {"items": items[begin : begin + limit], "next_cursor": f"1-{begin + limit}" if more else None})


async def _fork(core: Core, who: Principal, run: RunView) -> Fact:
    facts, _ = await core.history.facts(who.workspace_id, run.thread_id, 0, 1)
    if not facts:
        raise not_found("run")
    return facts[0]

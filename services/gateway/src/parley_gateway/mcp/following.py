"""A call that waits for a run: its text as progress while it comes, and in the end what is to be said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.body import Json
from parley_gateway.dialects.threads import outbound
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.join import Feed
from parley_gateway.runs import RunTold

Progress = Callable[[str | None], Awaitable[None]]
"""Tells the client of a piece of text, or (None) that the call is alive."""

_APPROVAL = ("approval_id", "tool_call", "question", "expires_at")
_CLIENT_TOOL = ("tool_call", "expires_at")
ALIVE_S = 15.0
"""The pause after which a silent run is said to be alive."""


@dataclass(slots=True)
class Followed:
    """A run as far as it was followed. `open`: what a parked run waits for, by its id, as `threads` words it."""

    run: RunTold
    open: dict[str, Json] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return self.run.status


async def follow(
    feed: Feed, run: RunTold, wait_s: float, progress: Progress, show: Callable[[Shown], object]
) -> Followed:
    """Until the run ends or waits for somebody, or for `wait_s`. `show` is given all that is shown. Closes the feed.

    A client that takes no progress holds nothing up but itself: the time is the same.
    """
    told = Followed(run)
    frames = outbound.Frames(run.thread_id)
    now = asyncio.get_running_loop().time
    until = now() + wait_s
    try:
        async with asyncio.timeout(wait_s):
            while not feed.over and run.status != "waiting":
                shown = await feed.take(max(0.0, min(until - now(), ALIVE_S)))
                said = []
                for item in shown:
                    show(item)
                    if not isinstance(item, ShownFact):
                        said.append(item.text if item.kind == "text" else "")
                        continue
                    run.fold(item.fact)
                    frame = frames(item)[-1].data
                    if isinstance(item.fact.body, f.ApprovalRequested):
                        told.open[item.fact.body.approval_id] = _part(frame, *_APPROVAL)
                    elif isinstance(item.fact.body, f.ApprovalAnswered | f.ApprovalExpired):
                        told.open.pop(item.fact.body.approval_id, None)
                    elif isinstance(item.fact.body, f.ToolCalled) and item.fact.body.effect == "client":
                        told.open[item.fact.body.tool_call_id] = _part(frame, *_CLIENT_TOOL)
                    elif isinstance(item.fact.body, f.ToolReturned | f.ToolAnswered):
                        told.open.pop(item.fact.body.tool_call_id, None)
                if text := "".join(said):
                    await progress(text)
                elif not shown:
                    await progress(None)
    except TimeoutError:
        pass
    finally:
        feed.close()
    return told


def _part(frame: Json, *names: str) -> Json:
    return {name: frame[name] for name in names if frame.get(name) is not None}

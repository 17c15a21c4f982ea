"""A round of a team, played: its members speak side by side, each in a task of its own.

Above it: `runner`, which drives each member's run. Whose turn it is, `teams` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from parley_dispatcher.teams import Place
from parley_dispatcher.tool_calls import CANCEL_GRACE_S


async def play(places: Iterable[Place], speak: Callable[[Place], Awaitable[None]], stays: Callable[[], bool]) -> None:
    """Let these members speak until each has ended, waits or leaves. `stays`: what is cancelled now ends here, and does
    not go on elsewhere; then each is given its grace to say how it ended."""

    async def one(place: Place) -> None:
        await speak(place)

    work = [asyncio.get_running_loop().create_task(one(place)) for place in places]
    try:
        for task in asyncio.as_completed(work):
            await task
    except asyncio.CancelledError:
        for task in work:
            task.cancel()
        if stays():
            await asyncio.wait(work, timeout=CANCEL_GRACE_S)
        raise
    finally:
        for task in work:
            task.cancel()
            if task.done() and not task.cancelled():
                task.exception()

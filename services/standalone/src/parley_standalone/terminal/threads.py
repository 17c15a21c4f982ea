"""`parley threads`: your threads, the most recent first, and how their last run stands."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from parley_events.clock import Clock, parse_rfc3339, system_clock
from parley_events.ids import NewUuid
from parley_standalone.settings import Settings
from parley_standalone.terminal import story
from parley_standalone.terminal.native import Json, Native, Refused, Unknown

if TYPE_CHECKING:
    from parley_standalone.terminal.screen import Screen

_AT_ONCE = 8
_OTHERS = 36 + 10 + 6 + 9 + 4 * 2
"""The columns of an id, of the least of a title, of the time and of the status, and what is between."""
_STEPS = ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h"), (86400 * 60, 86400, "d"))
_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "queued": "cyan",
    "waiting": "magenta",
}


async def threads(settings: Settings, new_uuid: NewUuid, *, limit: int, archived: bool, as_json: bool) -> int:
    """List them; the exit status."""
    native = Native(settings, new_uuid)
    try:
        if as_json:
            for thread in await with_status(native, await native.threads(limit, archived)):
                print(json.dumps(thread, ensure_ascii=False))
        else:
            from parley_standalone.terminal.screen import Screen

            await show(native, Screen(sys.stdout), limit=limit, archived=archived)
    finally:
        await native.close()
    return 0


async def show(native: Native, screen: Screen, *, limit: int, archived: bool, clock: Clock = system_clock) -> None:
    """The table."""
    page = await native.threads(limit, archived)
    found = await with_status(native, page)
    if not found:
        screen.say("no threads yet: `parley chat` begins one" if not archived else "no archived threads", "dim")
        return
    now = clock()
    # Where it is narrow the agents give way, too: an id is there to be copied, and how the run stands to be read.
    agent = max(8, min(30, screen.columns - _OTHERS))
    rows = [
        (
            (thread["id"], "bold"),
            (story.short(thread["title"] or "", 60), ""),
            (story.short(thread["agent_id"] or "", agent), "cyan"),
            (age(thread["last_message_at"] or thread["created_at"], now), "dim"),
            (thread["status"], _STYLES.get(thread["status"], "dim")),
        )
        for thread in found
    ]
    screen.table(("id", "title", "agent", "active", "status"), rows, gives=1)
    if page["total"] is not None and page["total"] > len(found):
        screen.say(f"… {page['total'] - len(found)} more (--limit)", "dim")


async def with_status(native: Native, page: Json) -> list[Json]:
    """The threads of a page, each with the status of its newest run (`empty`: nothing was said)."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(thread: Json) -> Json:
        async with gate:
            try:
                messages = await native.newest_messages(thread["id"], 1)
                runs = [message["run_id"] for message in messages if message["run_id"]]
                status = (await native.run(runs[-1]))["status"] if runs else "empty"
            except (Refused, Unknown):
                # It was deleted a moment ago, or the key may not look inside.
                status = "?"
            return {**thread, "status": status}

    return list(await asyncio.gather(*(one(thread) for thread in page["items"])))


def age(time: str, now_ms: int) -> str:
    """How long ago an RFC 3339 time is, as `5m`; after two months its date."""
    seconds = max(0, now_ms - parse_rfc3339(time)) // 1000
    for limit, unit, name in _STEPS:
        if seconds < limit:
            return f"{seconds // unit}{name}"
    return time[:10]

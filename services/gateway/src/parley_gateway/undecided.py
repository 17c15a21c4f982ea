"""Commands that the log has taken and nobody has decided yet, as while a dispatcher's work is taken over.

An id from a 202 names what such a command will make. Where neither the view nor the log's facts know it, `reads` asks
here before it says that there is no such thing: a look at the newest records of one partition, by their headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from parley_events import ids
from parley_events.clock import Clock
from parley_events.codec import COMMANDS_TOPIC, EVENTS_TOPIC, command_head
from parley_events.errors import Undecodable
from parley_events.log import Incoming, Log
from parley_gateway.feed.hub import Hub

BACK_MS = 120_000
"""How far back one looks: longer than any takeover."""
LOOK_S = 2.0
Found = Literal["nothing", "waiting", "decided"]
"""Of the commands looked for: none came, one has no outcome yet, or all of them have theirs."""
AT_ONCE = 4


class Undecided:
    """Looks for commands. Few at once: nobody can keep the log busy by asking for ids that do not exist."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub, self._clock = hub, clock
        self._places = asyncio.Semaphore(AT_ONCE)

    async def look(self, workspace_id: str, stream: str, run_id: str | None = None) -> Found:
        """What came lately of commands to the stream; with a run's id, of the very one that makes this run. Raises
        LogUnavailable, and TimeoutError when it cannot be told in time."""
        log = self._hub.log
        if log is None:
            return "nothing"
        partition = self._hub.partition(stream)
        async with asyncio.timeout(LOOK_S), self._places:
            waiting: set[str] = set()
            came = False
            async for record in self._newest(log, COMMANDS_TOPIC, partition):
                made_by = _maker(record, workspace_id, stream, run_id)
                if made_by is not None:
                    came = True
                    waiting.add(made_by)
            if waiting:
                async for record in self._newest(log, EVENTS_TOPIC, partition):
                    waiting.discard((record.header("ce_causationid") or b"").decode("utf-8", "replace"))
        if waiting:
            return "waiting"
        return "decided" if came else "nothing"

    async def _newest(self, log: Log, topic: str, partition: int) -> AsyncIterator[Incoming]:
        """The newest records of a partition, up to its end as of now."""
        start = (await log.at_time(topic, self._clock() - BACK_MS))[partition]
        end = (await log.ends(topic))[partition]
        if start >= end:
            return
        tail = await log.tail(topic, {partition: start})
        try:
            while tail.position(partition) < end:
                for record in await tail.batch():
                    yield record
        finally:
            await tail.close()


def _maker(record: Incoming, workspace_id: str, stream: str, run_id: str | None) -> str | None:
    """The id of a command that makes what is asked for; None for every other."""
    if record.key != stream.encode():
        return None
    try:
        head = command_head(record)
    except Undecodable:
        return None
    makes = head.workspace_id == workspace_id and (run_id is None or ids.run_id(stream, head.id) == run_id)
    return head.id if makes else None

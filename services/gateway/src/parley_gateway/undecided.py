"""Commands that the log has taken and nobody has decided yet, as while a dispatcher's work is taken over.

An id from a 202 names what such a command will make. Where neither the view nor the log's facts know it, `reads` asks
here before it says that there is no such thing: a look at the newest commands of one partition, by their headers.
"""

from __future__ import annotations

import asyncio

from parley_events import ids
from parley_events.clock import Clock
from parley_events.codec import COMMANDS_TOPIC, command_head
from parley_events.errors import Undecodable
from parley_events.log import Incoming
from parley_gateway.feed.hub import Hub

BACK_MS = 120_000
"""How far back one looks: longer than any takeover."""
LOOK_S = 2.0
AT_ONCE = 4


class Undecided:
    """Looks for commands. Few at once: nobody can keep the log busy by asking for ids that do not exist."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub, self._clock = hub, clock
        self._places = asyncio.Semaphore(AT_ONCE)

    async def has(self, workspace_id: str, stream: str, run_id: str | None = None) -> bool:
        """Whether a command to the stream came lately; with a run's id, the very one that makes this run. Raises
        LogUnavailable, and TimeoutError when it cannot be told in time."""
        log = self._hub.log
        if log is None:
            return False
        partition = self._hub.partition(stream)
        async with asyncio.timeout(LOOK_S), self._places:
            start = (await log.at_time(COMMANDS_TOPIC, self._clock() - BACK_MS))[partition]
            end = (await log.ends(COMMANDS_TOPIC))[partition]
            if start >= end:
                return False
            tail = await log.tail(COMMANDS_TOPIC, {partition: start})
            try:
                while tail.position(partition) < end:
                    for record in await tail.batch():
                        if _makes(record, workspace_id, stream, run_id):
                            return True
            finally:
                await tail.close()
        return False


def _makes(record: Incoming, workspace_id: str, stream: str, run_id: str | None) -> bool:
    if record.key != stream.encode():
        return False
    try:
        head = command_head(record)
    except Undecodable:
        return False
    return head.workspace_id == workspace_id and (run_id is None or ids.run_id(stream, head.id) == run_id)

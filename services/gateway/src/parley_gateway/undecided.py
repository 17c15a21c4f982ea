"""Whether commands of a stream are still undecided: then nobody can say that a thing is not there.

A command is accepted (202) also while its partition has no owner, and its ids are told. Until it is decided no view
knows them. Above it: `reads`. Below: the log, and what the dispatchers' group has committed of `parley.commands`.
"""

from __future__ import annotations

import asyncio

from parley_events.codec import COMMANDS_TOPIC
from parley_events.errors import LogUnavailable
from parley_events.log import Log
from parley_gateway.feed.hub import Hub

_AGAIN_S = 0.1


class Undecided:
    """Asks the log; those who ask at the same time share an answer, so that unknown ids cost little."""

    def __init__(self, hub: Hub, group_id: str, limit_s: float = 2.0) -> None:
        self._hub, self._group_id, self._limit_s = hub, group_id, limit_s
        self._asking: asyncio.Task[dict[int, int]] | None = None

    async def over(self, stream: str) -> bool:
        """Whether all that the stream's partition had of commands when this was asked is decided; it is waited for up
        to the limit. Raises LogError."""
        log = self._hub.log
        if log is None:
            raise LogUnavailable("the log was not reached yet")
        partition = self._hub.partition(stream)
        end = (await log.ends(COMMANDS_TOPIC))[partition]
        until = asyncio.get_running_loop().time() + self._limit_s
        while (await self._finished(log))[partition] < end:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(_AGAIN_S)
        return True

    async def _finished(self, log: Log) -> dict[int, int]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(log.committed(COMMANDS_TOPIC, self._group_id))
        # Not cancelled with whoever waits: others may wait for it too.
        return await asyncio.shield(self._asking)

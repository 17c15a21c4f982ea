"""Read marks that the gateway moves by itself, once the end of an answer has come to the one who asked.

A mark is a command like any other (`thread.mark_read`), and is sent when the answer is out: nobody waits for it but
the next reads of the same key that show what is unread (`settle`). One that the log does not take is let go: the
answer stays unread until someone marks it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextvars import Context

from parley_events.commands import MarkRead
from parley_events.ids import derived_uuid
from parley_events.reads import RunView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.errors import Problem
from parley_gateway.send import Sender

log = logging.getLogger(__name__)

MOST = 2_000
"""How many marks may be under way; one more is let go."""
SETTLE_S = 2.0
MOST_KNOWN = 10_000
"""How many threads' marks are remembered, so that none is sent again and again."""


def answers(who: Principal, run: RunView, thread: ThreadView) -> bool:
    """Whether what is told of a run is the answer to a message of the key's own user. A key that may only read moves no
    mark."""
    return thread.user_id == who.user_id and who.may_chat(run.agent_id) and run.parent_run_id is None


class Marks:
    """The marks of one gateway that are under way, by the key whose they are."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._sending: dict[str, set[asyncio.Task[None]]] = {}
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()
        """(user, thread) → the furthest mark that was taken."""
        self._count = 0

    def read(self, who: Principal, thread_id: str, seq: int | None) -> None:
        """The key's user was shown the answer of a run that ended with the thread's fact `seq` (None: it has not
        ended). Said twice it is one command."""
        if seq is None or self._known.get((who.user_id, thread_id), 0) >= seq:
            return
        if self._count >= MOST:
            log.warning("too many read marks are under way; one was let go")
            return
        # Not in the context of the request, which is over.
        task = asyncio.get_running_loop().create_task(self._send(who, thread_id, seq), context=Context())
        self._count += 1
        self._sending.setdefault(who.key_id, set()).add(task)
        task.add_done_callback(lambda task: self._sent(who.key_id, task))

    async def settle(self, key_id: str) -> None:
        """Wait for the key's marks that are under way now, at most `SETTLE_S`."""
        under_way = self._sending.get(key_id)
        if under_way:
            await asyncio.wait(under_way, timeout=SETTLE_S)

    async def close(self) -> None:
        """Give what is under way a moment, and let go of the rest."""
        tasks = [task for sending in self._sending.values() for task in sending]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=1)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(self, who: Principal, thread_id: str, seq: int) -> None:
        command_id = derived_uuid("read", who.workspace_id, who.user_id, thread_id, str(seq))
        command = self._sender.command(who, command_id, thread_id, MarkRead(principal=who.asker, up_to=seq))
        try:
            await self._sender.ask(who, command)
        except Problem as problem:
            log.info("a read mark was not taken: %s", problem.code)
            return
        place = (who.user_id, thread_id)
        self._known[place] = max(seq, self._known.pop(place, 0))
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _sent(self, key_id: str, task: asyncio.Task[None]) -> None:
        self._count -= 1
        sending = self._sending[key_id]
        sending.discard(task)
        if not sending:
            del self._sending[key_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a read mark failed", exc_info=error)

"""Sends facts in the order in which they were numbered, and again after a send of unknown outcome.

One per process, below every partition's `Appender`. What was handed over and not acknowledged is kept; when a producer
breaks, a new one is made and all of it is sent again, byte for byte and in order (readers drop a seq that they have).
Nothing is ever numbered anew.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from parley_events.errors import LogError, ProducerBroken
from parley_events.log import Log, Outgoing, Producer

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    record: Outgoing
    acknowledged: Callable[[int], None] | None
    size: int
    at: float


class Sender:
    """`send` never waits; `backlog` is the number of bytes that are not acknowledged yet."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._producer: Producer | None = None
        self._entries: dict[_Entry, None] = {}
        self._replacing: asyncio.Task[None] | None = None
        self._closed = False
        self.backlog = 0

    async def start(self) -> None:
        self._producer = await self._log.producer()

    def send(self, record: Outgoing, acknowledged: Callable[[int], None] | None = None) -> None:
        """Hand a record over; `acknowledged` is called with its offset once the log has it for good."""
        entry = _Entry(record, acknowledged, len(record.value or b"") + 300, asyncio.get_running_loop().time())
        self._entries[entry] = None
        self.backlog += entry.size
        if self._producer is not None:
            self._transmit(self._producer, entry)

    @property
    def unacknowledged_s(self) -> float:
        """For how long the log has not acknowledged the oldest of what was handed over."""
        oldest = next(iter(self._entries), None)
        return 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest.at

    def forget(self, partition: int) -> None:
        """Send nothing more of a partition that is not ours any more."""
        for entry in [e for e in self._entries if e.record.partition == partition]:
            self._drop(entry)

    async def close(self, grace_s: float = 5.0) -> None:
        """Wait at most `grace_s` for what was handed over, then stop."""
        self._closed = True
        if self._replacing is not None:
            self._replacing.cancel()
        if self._producer is not None:
            await self._producer.close(grace_s)

    def _drop(self, entry: _Entry) -> None:
        if self._entries.pop(entry, entry) is None:
            self.backlog -= entry.size

    def _transmit(self, producer: Producer, entry: _Entry) -> None:
        try:
            future = producer.send(entry.record)
        except ProducerBroken:
            self._replace(producer)
            return

        def done(result: Future[int]) -> None:
            if result.cancelled():
                return
            error = result.exception()
            if producer is not self._producer:
                return
            if error is not None:
                self._replace(producer)
            elif entry in self._entries:
                self._drop(entry)
                if entry.acknowledged is not None:
                    entry.acknowledged(result.result())

        future.add_done_callback(done)

    def _replace(self, broken: Producer) -> None:
        if self._producer is not broken or self._closed:
            return
        self._producer = None
        # Not in the context of the one decision that noticed it: the producer's tasks outlive it.
        self._replacing = asyncio.get_running_loop().create_task(self._renew(broken), context=Context())

    async def _renew(self, broken: Producer) -> None:
        _log.warning("a send came to an unknown end; sending %d facts again", len(self._entries))
        pause_s = 0.05
        await broken.close(0.0)
        while True:
            try:
                producer = await self._log.producer()
                break
            except LogError as error:
                _log.warning("no producer yet: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
        self._producer = producer
        for entry in list(self._entries):
            if self._producer is not producer:
                return
            self._transmit(producer, entry)

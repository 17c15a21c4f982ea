"""Writing to the embedded log: broken as a whole by one failure, as `kafka_producer` is."""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import TYPE_CHECKING

from parley_events.errors import LogUnavailable, ProducerBroken
from parley_events.log.port import Outgoing

if TYPE_CHECKING:
    from parley_events.log.embedded import EmbeddedLog


class EmbeddedProducer:
    """See `port.Producer`."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._flying: set[Future[int]] = set()
        self._broken = False
        self.failed = False
        """Set by the writing thread: a write failed, so none that was sent after it may land."""

    @property
    def broken(self) -> bool:
        return self._broken

    def send(self, record: Outgoing, *, now: bool = False) -> Future[int]:
        if self._broken:
            raise ProducerBroken("this producer failed before; make a new one")
        future = self._log.publish(record, self)
        if not future.done():
            self._flying.add(future)
        future.add_done_callback(self._landed)
        return future

    async def close(self, grace_s: float = 5.0) -> None:
        if self._flying and grace_s > 0:
            await asyncio.wait(set(self._flying), timeout=grace_s)
        self._break()

    def _landed(self, future: Future[int]) -> None:
        self._flying.discard(future)
        if not future.cancelled() and future.exception() is not None:
            self._break()

    def _break(self) -> None:
        self._broken = True
        flying, self._flying = self._flying, set()
        for future in flying:
            if not future.done():
                future.set_exception(LogUnavailable("the producer was closed or broke; the outcome is unknown"))
                future.exception()

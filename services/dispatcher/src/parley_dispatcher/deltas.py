"""Pieces on their way to `parley.deltas`: one record per partition and tick, the first piece of a block at once.

They are hints: a batch that cannot be sent is dropped, and never sent again. They have a producer of their own, so that
a broken one never touches facts.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from contextvars import Context

from parley_events.errors import LogError
from parley_events.log import Log, Producer
from parley_events.pieces import Kind, Piece, encode_pieces

_log = logging.getLogger(__name__)


class Deltas:
    """Collects pieces; neighbours of one block are merged until the tick."""

    def __init__(self, log: Log, tick_ms: int) -> None:
        self._log, self._tick_s = log, tick_ms / 1000
        self._producer: Producer | None = None
        self._waiting: dict[tuple[int, int], dict[tuple[str, int, int], tuple[Kind, int, list[str], int]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.dropped = 0

    async def start(self) -> None:
        self._producer = await self._log.producer()

    def add(self, partition: int, epoch: int, piece: Piece) -> None:
        """Show a piece soon; at once when it begins its block."""
        batch = self._waiting.setdefault((partition, epoch), {})
        key = (piece.thread_id, piece.call, piece.block)
        known = batch.get(key)
        if known is None:
            batch[key] = (piece.kind, piece.at, [piece.text], piece.before)
        else:
            known[2].append(piece.text)
        if piece.at == 0:
            self._flush_one((partition, epoch))
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._flush)

    def finish(self, partition: int, epoch: int, thread_id: str, call: int) -> None:
        """The call has ended and its fact carries everything: what waits of it need not be sent any more."""
        batch = self._waiting.get((partition, epoch))
        if batch:
            for key in [k for k in batch if k[0] == thread_id and k[1] == call]:
                del batch[key]

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        if self._producer is not None:
            await self._producer.close(1.0)

    def _flush(self) -> None:
        self._timer = None
        for key in list(self._waiting):
            self._flush_one(key)

    def _flush_one(self, key: tuple[int, int]) -> None:
        batch = self._waiting.pop(key, None)
        if not batch:
            return
        partition, epoch = key
        producer = self._producer
        if producer is None:
            self.dropped += len(batch)
            return
        pieces = [
            Piece(thread, call, block, kind, at, "".join(texts), before)
            for (thread, call, block), (kind, at, texts, before) in batch.items()
        ]
        try:
            producer.send(encode_pieces(partition, epoch, pieces)).add_done_callback(self._sent)
        except LogError:
            self.dropped += len(batch)
            self._renew(producer)

    def _sent(self, result: Future[int]) -> None:
        if not result.cancelled() and result.exception() is not None:
            self.dropped += 1
            if self._producer is not None and self._producer.broken:
                self._renew(self._producer)

    def _renew(self, broken: Producer) -> None:
        if self._producer is not broken:
            return
        self._producer = None

        async def renew() -> None:
            await broken.close(0.0)
            while self._producer is None:
                try:
                    self._producer = await self._log.producer()
                except LogError:
                    await asyncio.sleep(0.5)
            _log.info("showing pieces again")

        # Not in the context of the one run that noticed it: the producer's tasks outlive it.
        self._renewing = asyncio.get_running_loop().create_task(renew(), context=Context())

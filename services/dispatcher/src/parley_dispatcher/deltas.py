"""Pieces on their way to `parley.deltas`: one record per partition and tick, the first piece of a block at once.

A first piece takes along what waits of its own call, and of no other: who follows those would get more frames, and no
word sooner than it waits for one. They are hints: a batch that cannot be sent is dropped, and never sent again. They
have a producer of their own, so that a broken one never touches facts.
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

_Writer = tuple[int, int]
"""A partition, and the epoch of its claim."""
_Call = tuple[str, int]
"""A thread, and the seq of its `model.called`."""
_Blocks = dict[int, tuple[Kind, int, list[str], int]]
"""Of each block: its kind, the place of its first character, its text so far, and what is before it."""


class Deltas:
    """Collects pieces; neighbours of one block are merged until the tick."""

    def __init__(self, log: Log, tick_ms: int) -> None:
        self._log, self._tick_s = log, tick_ms / 1000
        self._producer: Producer | None = None
        self._waiting: dict[_Writer, dict[_Call, _Blocks]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.dropped = 0

    async def start(self) -> None:
        self._producer = await self._log.producer()

    def add(self, partition: int, epoch: int, piece: Piece) -> None:
        """Show a piece soon; at once when it begins its block."""
        calls = self._waiting.setdefault((partition, epoch), {})
        blocks = calls.setdefault((piece.thread_id, piece.call), {})
        known = blocks.get(piece.block)
        if known is None:
            blocks[piece.block] = (piece.kind, piece.at, [piece.text], piece.before)
        else:
            known[2].append(piece.text)
        if piece.at == 0:
            del calls[piece.thread_id, piece.call]
            self._send((partition, epoch), {(piece.thread_id, piece.call): blocks}, now=False)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._flush)

    def finish(self, partition: int, epoch: int, thread_id: str, call: int) -> None:
        """The call has ended and its fact carries everything: what waits of it need not be sent any more."""
        calls = self._waiting.get((partition, epoch))
        if calls:
            calls.pop((thread_id, call), None)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        if self._producer is not None:
            await self._producer.close(1.0)

    def _flush(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, {}
        for writer, calls in waiting.items():
            if calls:
                self._send(writer, calls, now=True)

    def _send(self, writer: _Writer, calls: dict[_Call, _Blocks], *, now: bool) -> None:
        pieces = [
            Piece(thread, call, block, kind, at, "".join(texts), before)
            for (thread, call), blocks in calls.items()
            for block, (kind, at, texts, before) in blocks.items()
        ]
        producer = self._producer
        if producer is None:
            self.dropped += len(pieces)
            return
        try:
            producer.send(encode_pieces(*writer, pieces), now=now).add_done_callback(self._sent)
        except LogError:
            self.dropped += len(pieces)
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

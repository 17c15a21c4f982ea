"""An object store for the large contents of recorded facts. When it answers, whom first, and whether it is there at all
is a script's to say."""

from __future__ import annotations

import asyncio
import hashlib
from unittest.mock import patch

from parley_events import large
from parley_events.codec import Fact, encode_fact
from parley_events.errors import ObjectsUnavailable
from parley_events.log import Outgoing


class Shelf:
    """`held`: who asks waits until `answer`. `away`: whoever is answered is told that there is nobody."""

    def __init__(self, held: bool) -> None:
        self.held, self.away = held, False
        self._data: dict[str, bytes] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def leave(self, fact: Fact, partition: int) -> Outgoing:
        """The record of a fact whose contents lie here, however small they are."""
        with patch.object(large, "LARGE_BYTES", 0):
            for data in large.large_fields(fact.body, fact.body.model_dump_json().encode()).values():
                self._data[hashlib.sha256(data).hexdigest()] = data
            return encode_fact(fact, partition, lambda workspace_id, sha256: sha256 in self._data)

    async def put(self, workspace_id: str, data: bytes) -> str:
        raise AssertionError("a gateway that feeds clients stores nothing")

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        """As `Objects`."""
        if self.held:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        if self.away:
            raise ObjectsUnavailable("there is nobody")
        return self._data[sha256]

    def answer(self, which: int) -> None:
        """Answer one of those who wait."""
        if self._waiting:
            wait = self._waiting.pop(which % len(self._waiting))
            if not wait.done():
                wait.set_result(None)

    def open(self) -> None:
        """Be there, and answer all."""
        self.held = self.away = False
        while self._waiting:
            self.answer(0)

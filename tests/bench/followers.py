"""Many who follow threads at once: opened at a bounded rate, as patient as clients are, and counted.

A follower holds a stream's bytes and does nothing with a frame beyond a search for the end of a run.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from tests.bench.system import System

_AT_ONCE = 64
_RETRIES = 10
_END = b'"run.completed"'


def raise_nofile() -> int:
    """As many open files as this process may have, and those that it starts; the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Follower(asyncio.Protocol):
    """One stream. `opened`: the status of its answer; `ended`: the end of a run was told."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._loop = raw, asyncio.get_running_loop()
        self.data = bytearray()
        self.opened: asyncio.Future[int] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.lost = False
        self._closing = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._raw)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.opened.done() and b"\r\n\r\n" in self.data:
            self.opened.set_result(int(self.data.split(b" ", 2)[1]))
        if not self.ended.done() and _END in data:
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = not self._closing
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(ConnectionError(f"the stream ended early: {bytes(self.data[:300])!r}"))
                future.exception()  # whoever waits is told; nobody may

    def listen_again(self) -> None:
        """Forget what came so far, and wait for the end of the next run."""
        self.data.clear()
        if self.ended.done() and not self.lost:
            self.ended = self._loop.create_future()

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class Opened:
    """The streams that were opened, and how often one had to be asked for again, by what was answered."""

    followers: list[Follower] = field(default_factory=list)
    again: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return sum(follower.lost for follower in self.followers)

    def close(self) -> None:
        for follower in self.followers:
            follower.close()


async def follow(system: System, threads: Sequence[str]) -> Opened:
    """One stream for each of `threads` (a thread may stand there often). What is refused for the moment (429, 503) is
    asked for again after the pause that clients are asked to make, at most ten times; anything else fails."""
    where = urlsplit(system.base_url)
    assert where.hostname is not None and where.port is not None
    place = (where.hostname, where.port)
    loop, opened, room = asyncio.get_running_loop(), Opened(), asyncio.Semaphore(_AT_ONCE)

    async def one(thread: str) -> None:
        raw = (
            f"GET /api/v1/chat/threads/{thread}/events HTTP/1.1\r\nHost: {where.netloc}\r\n"
            f"Authorization: Bearer {system.key}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        for _ in range(_RETRIES):
            async with room:
                _, follower = await loop.create_connection(lambda: Follower(raw), *place)
                status = await follower.opened
            if status == 200:
                opened.followers.append(follower)
                return
            follower.close()
            assert status in (429, 503), bytes(follower.data[:300])
            opened.again[str(status)] = opened.again.get(str(status), 0) + 1
            await asyncio.sleep(1.0)
        raise AssertionError(f"a stream was refused {_RETRIES} times: {bytes(follower.data[:300])!r}")

    await asyncio.gather(*(one(thread) for thread in threads))
    return opened

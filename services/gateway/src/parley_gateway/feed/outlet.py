"""Where one client's frames go: ASGI's `send`, with a limit on how long a client may take nothing.

A frame is sent by the stream's own task (`send`), or in passing by whoever has it (`write`): most clients take a frame
at once, so nobody has to wait for that. What a client does not take at once is kept, in order, and sent by its task
(`catch_up`). Above it: `sse`. Below: the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message, Receive, Send

from parley_gateway.delivered import gone

BEHIND_BYTES = 64 * 1024
"""How much may be kept of what was written in passing before a client has fallen behind."""
GONE_S = 1.0
"""How often a busy stream looks whether its client is still there."""


class Outlet:
    """The way to one client. `left_early`: it went away before the end. `most_bytes`: of what it has not taken."""

    def __init__(self, send: Send, receive: Receive, stall_s: float, most_bytes: int) -> None:
        self._send, self._receive, self._stall_s, self._most_bytes = send, receive, stall_s, most_bytes
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._written, self._looked = self._loop.time(), 0.0
        self._stuck: _Rest | None = None
        self._kept: list[Message] = []
        self._kept_bytes = 0
        self._roused = False
        self._waking: asyncio.Future[None] | None = None
        self._stall: asyncio.Timeout | None = None
        self._error: Exception | None = None
        self.left_early = False

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """TimeoutError inside once the client has taken nothing for too long. One timer per stream, not per frame."""
        looking: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal looking
            if self._since is not None and self._loop.time() - self._since >= self._stall_s:
                self._give_up()
            else:
                looking = self._loop.call_later(self._stall_s / 4, look)

        try:
            async with asyncio.timeout(None) as self._stall:
                look()
                yield
        finally:
            if looking is not None:
                looking.cancel()
            if self._stuck is not None:
                self._stuck.close()

    def _give_up(self) -> None:
        if self._stall is not None and not self._stall.expired():
            self._stall.reschedule(self._loop.time())

    # ---- in the stream's own task

    async def send(self, data: bytes) -> None:
        """Send one frame, and wait until the client takes it."""
        await self._sent(message_of(data))

    async def _sent(self, message: Message) -> None:
        self._since = self._loop.time()
        await self._send(message)
        self._since, self._written = None, self._loop.time()

    def left(self, beat_s: float) -> float:
        """The seconds until something must be sent, if nothing is by then."""
        return max(0.0, self._written + beat_s - self._loop.time())

    def gone(self) -> bool:
        """Whether the client has gone; looked at once a second at most."""
        now = self._loop.time()
        if not self.left_early and now >= self._looked + GONE_S:
            self._looked = now
            self.left_early = gone(self._receive)
        return self.left_early

    async def catch_up(self) -> None:
        """Send all that was kept, in order."""
        while self._error is None and (self._stuck is not None or self._kept):
            if self._stuck is not None:
                await self._stuck
                self._stuck, self._since, self._written = None, None, self._loop.time()
                continue
            kept, self._kept, self._kept_bytes = self._kept, [], 0
            # What comes meanwhile is kept behind these.
            for message in kept:
                await self._sent(message)
        if self._error is not None:
            raise self._error

    async def wait(self, timeout_s: float) -> None:
        """Until somebody rouses the stream, or the time is over."""
        if not self._roused:
            self._waking = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self.rouse)
            try:
                await self._waking
            finally:
                timer.cancel()
                self._waking = None
        self._roused = False

    # ---- in passing

    def rouse(self) -> None:
        """There is something for the stream's task to see to."""
        self._roused = True
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)

    def write(self, message: Message, now: float) -> bool:
        """Send one frame without waiting for anything; keep it where the client does not take it at once. False: so
        much is kept by now that the client has fallen behind."""
        if self._since is not None or self._kept or self._error is not None:
            self._keep(message)
            return self._kept_bytes <= BEHIND_BYTES
        sending: Coroutine[Any, Any, None] = self._send(message)  # type: ignore[assignment]
        try:
            waits = sending.send(None)
        except StopIteration:
            self._written = now
            if now >= self._looked + GONE_S and self.gone():
                self.rouse()
        except Exception as error:
            # Its own task raises it: whoever writes here writes to others, too.
            self._error = error
            self.rouse()
        else:
            self._stuck, self._since = _Rest(sending, waits), now
            self.rouse()
        return True

    def _keep(self, message: Message) -> None:
        self._kept.append(message)
        self._kept_bytes += len(message["body"])
        self.rouse()
        if self._kept_bytes > self._most_bytes:
            self._give_up()


class _Rest:
    """What is left of a coroutine that was begun outside a task, to be awaited in one."""

    def __init__(self, begun: Coroutine[Any, Any, None], waits: Any) -> None:
        self._begun, self._waits = begun, waits

    def __await__(self) -> Generator[Any, Any, None]:
        waits = self._waits
        try:
            while True:
                try:
                    got = yield waits
                except BaseException as error:
                    waits = self._begun.throw(error)
                else:
                    waits = self._begun.send(got)
        except StopIteration:
            return

    def close(self) -> None:
        """It will not be awaited."""
        self._begun.close()


def message_of(data: bytes) -> Message:
    """A frame as ASGI has it."""
    return {"type": "http.response.body", "body": data, "more_body": True}

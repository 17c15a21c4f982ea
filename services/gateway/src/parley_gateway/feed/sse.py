"""Frames over the wire: `text/event-stream`, written straight on ASGI's `send`.

One frame = one `data:` line = one send (some clients do not buffer). A frame that carries a fact or a piece has an
`id:`, the cursor after it. An idle stream sends a comment. There is no task per client beside the request's own: a
client that has gone is noticed by looking at `receive` without waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parley_events.codec import Fact
from parley_gateway.delivered import gone
from parley_gateway.feed.follow import Shown, ShownFact, merged
from parley_gateway.feed.hub import Counts

MEDIA_TYPE = "text/event-stream"
GONE_S = 1.0
"""How often a busy stream looks whether its client is still there."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Frame(NamedTuple):
    """One frame's JSON object. `bare`: it carries no fact and no piece (a closing word), and so no id; `word` is what
    stands in it then, where that is no JSON."""

    data: dict[str, Any]
    bare: bool = False
    word: bytes | None = None


class Feeding(Protocol):
    """What is shown to one client: of a thread or run (`join`), or of all threads (`everything`)."""

    over: bool

    @property
    def recalled(self) -> list[Fact]: ...

    async def take(self, timeout_s: float) -> list[Shown]: ...

    def close(self) -> None: ...


Show = Callable[[Shown], list[Frame]]
"""A dialect's `outbound`: the frames of one thing shown."""


def encode(shown: Shown, frames: list[Frame]) -> Iterable[bytes]:
    """The bytes of each frame, with the cursor after it as its id."""
    if not isinstance(shown, ShownFact):
        for frame in frames:
            yield b"id: %s\ndata: %s\n\n" % (shown.cursor.encode(), orjson.dumps(frame.data))
        return
    fact, tail, skip, again = shown
    marked = sum(not frame.bare for frame in frames)
    number = 0
    for frame in frames:
        if frame.bare:
            yield b"data: %s\n\n" % (orjson.dumps(frame.data) if frame.word is None else frame.word)
            continue
        number += 1
        if again or number <= skip:
            continue
        place = f"{fact.seq}{tail}" if number == marked else f"{fact.seq}-{number}{tail}"
        yield b"id: %s\ndata: %s\n\n" % (place.encode(), orjson.dumps(frame.data))


class EventStream(Response):
    """A response that shows a feed until it is over, the client has gone, or takes nothing for `stall_s`. `then` is
    called once all of it is out, if the client was there to the end."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        feed: Feeding,
        show: Show,
        *,
        beat_s: float,
        stall_s: float,
        headers: Mapping[str, str] | None = None,
        counts: Counts | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.status_code, self.background = 200, None
        self.show, self._then = show, then
        self._feed, self._beat_s, self._stall_s, self._counts = feed, beat_s, stall_s, counts or Counts()
        self.raw_headers = _HEADERS + [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = self._feed
        loop = asyncio.get_running_loop()
        now = loop.time
        sending: float | None = None
        watch: asyncio.TimerHandle | None = None

        def look() -> None:
            # One timer per stream, not one per frame.
            nonlocal watch
            if sending is not None and now() - sending >= self._stall_s:
                stall.reschedule(now())
            else:
                watch = loop.call_later(self._stall_s / 4, look)

        self._counts.streams += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for fact in feed.recalled:
                self.show(ShownFact(fact, "", again=True))
            written = now()
            looked = 0.0
            async with asyncio.timeout(None) as stall:
                look()
                while not feed.over:
                    shown = await feed.take(max(0.0, written + self._beat_s - now()))
                    sending = time = now()
                    if time >= looked + GONE_S:
                        looked = time
                        if gone(receive):
                            return
                    for item in merged(shown):
                        for data in encode(item, self.show(item)):
                            await send({"type": "http.response.body", "body": data, "more_body": True})
                            written = time
                    if time >= written + self._beat_s:
                        await send({"type": "http.response.body", "body": b": \n\n", "more_body": True})
                        written = time
                    sending = None
                there = self._then is not None and not gone(receive)
                await send({"type": "http.response.body", "body": b""})
            if self._then is not None and there:
                self._then()
        except (TimeoutError, OSError) as error:
            # It takes nothing, or is gone. The server closes the connection of a response that was not finished.
            self._counts.stalled += isinstance(error, TimeoutError)
            return
        finally:
            self._counts.streams -= 1
            if watch is not None:
                watch.cancel()
            feed.close()

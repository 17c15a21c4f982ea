"""Streams over the wire: `text/event-stream`, written straight on ASGI's `send`.

One frame = one `data:` line = one send (some clients do not buffer). An idle stream sends a comment. There is no task
per client beside the request's own: a client that has gone is noticed by looking at `receive` without waiting for it.
Once a stream is live it goes on in a channel (`channel`), which writes the same bytes to all who watch the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from parley_events.codec import Fact
from parley_events.lasting import LEFT
from parley_gateway.delivered import gone
from parley_gateway.feed.channel import Channel, Channels
from parley_gateway.feed.follow import Shown, ShownFact, merged
from parley_gateway.feed.frames import Show, encode
from parley_gateway.feed.join import Feed
from parley_gateway.feed.listener import Counts
from parley_gateway.feed.many_channel import ManyChannels
from parley_gateway.feed.outlet import Outlet
from parley_gateway.feed.rotation import Rotation

MEDIA_TYPE = "text/event-stream"
BEAT = b": \n\n"
"""What an idle stream sends."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Source(Protocol):
    """What one client is fed from."""

    over: bool

    def end(self) -> None:
        """Be over soon, though there is more to come."""

    def close(self) -> None: ...


class Feeding(Source, Protocol):
    """What is shown to one client of a thread or run (`join`)."""

    @property
    def recalled(self) -> list[Fact]: ...

    async def take(self, timeout_s: float) -> list[Shown]: ...


class Watcher:
    """A stream as the member of a channel. `show` is its own, which must know what happened, too."""

    def __init__(self, feed: Feed, outlet: Outlet, show: Show) -> None:
        self._feed, self._outlet, self._show = feed, outlet, show
        self._over = False
        self.alone = False
        """Whether it has fallen behind, and is no member any more."""
        feed.call(outlet.rouse)

    def write(self, message: Message, now: float) -> bool:
        """As `channel.Member`."""
        return self._outlet.write(message, now)

    def knows(self, item: ShownFact, show: Show) -> None:
        """As `channel.Member`."""
        if show is not self._show:
            self._show(item._replace(again=True))
        self._feed.showed(item.fact.seq or 0)

    def go_on(self, feed: Feed) -> None:
        """As `channel.Member`."""
        self._feed.go_on(feed)
        self.alone = True
        self._outlet.rouse()

    def end(self) -> None:
        """As `channel.Member`."""
        self._over = True
        self._outlet.rouse()

    async def live(self, beat_s: float) -> None:
        """Until the channel is over, the feed was closed, the client has gone, or goes on alone."""
        outlet = self._outlet
        while True:
            await outlet.catch_up()
            if self._over or self.alone or self._feed.closed or outlet.gone():
                return
            if outlet.left(beat_s) <= 0:
                await outlet.send(BEAT)
                continue
            await outlet.wait(outlet.left(beat_s))


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every stream of a gateway. A client gets a sign of life each `beat_s`; one that takes nothing for
    `stall_s` is let go of, and `most_bytes` are kept for it meanwhile. `rotation` ends streams early, when the process
    is to leave. Where there are `channels` (and `many`, for streams of many threads), streams go on in
    them once they are live."""

    beat_s: float
    stall_s: float
    most_bytes: int = 16 * 1024 * 1024
    counts: Counts = field(default_factory=Counts)
    rotation: Rotation | None = None
    channels: Channels | None = None
    many: ManyChannels | None = None


class Stream(Response):
    """A response that sends what a feed has until it is over, the client has gone, or takes nothing for too long.
    `then` is called once all of it is out, if the client was there to the end. `endless`: it does not end by itself."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        feed: Source,
        terms: Terms,
        *,
        headers: Mapping[str, str] | None = None,
        then: Callable[[], None] | None = None,
        endless: bool = False,
    ) -> None:
        self.status_code, self.background = 200, None
        self._source, self._terms, self._then, self.endless = feed, terms, then, endless
        self._retry_ms: int | None = None
        self.raw_headers = _HEADERS + [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = scope.get(LEFT)
        if left is None:
            await self.stream(receive, send)
        else:
            left.append(self.stream)  # the layers around are not to be kept for as long as it is open

    async def stream(self, receive: Receive, send: Send) -> None:
        """The whole answer."""
        terms = self._terms
        outlet = Outlet(send, receive, terms.stall_s, terms.most_bytes)
        terms.counts.streams += 1
        if terms.rotation is not None:
            terms.rotation.enter(self)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._recall()
            async with outlet.watched():
                while not (
                    self._source.over or outlet.left_early or self._retry_ms is not None or await self._live(outlet)
                ):
                    await self._next(outlet)
                if outlet.left_early:
                    return
                there = self._then is not None and not gone(receive)
                await send({"type": "http.response.body", "body": self._last()})
            if self._then is not None and there:
                self._then()
        except (TimeoutError, OSError) as error:
            # It takes nothing, or is gone. The server closes the connection of a response that was not finished.
            terms.counts.stalled += isinstance(error, TimeoutError)
        finally:
            terms.counts.streams -= 1
            if terms.rotation is not None:
                terms.rotation.leave(self)
            self._source.close()

    def rotate(self, retry_ms: int) -> None:
        """End it after the frame that is being sent; the client is told to come back after that time."""
        self._retry_ms = retry_ms
        self._source.end()

    def _last(self) -> bytes:
        return b"" if self._retry_ms is None else b"retry: %d\n\n" % self._retry_ms

    def _recall(self) -> None:
        """Remember what was before."""

    async def _next(self, outlet: Outlet) -> None:
        """Send what comes next, or that there is nothing yet."""
        raise NotImplementedError

    async def _live(self, outlet: Outlet) -> bool:
        """Go on in another way to the end, if that is possible now."""
        return False


class EventStream(Stream):
    """A response that shows a feed of a thread or run. Where `show` says what it is like (`kind`), it can go on in a
    channel."""

    def __init__(
        self,
        feed: Feeding,
        show: Show,
        terms: Terms,
        *,
        headers: Mapping[str, str] | None = None,
        then: Callable[[], None] | None = None,
        endless: bool = False,
    ) -> None:
        super().__init__(feed, terms, headers=headers, then=then, endless=endless)
        self.show, self._own, self._feed = show, show, feed

    # What has been shown must not be held by a frame of the coroutine that then waits for hours.

    def _recall(self) -> None:
        for fact in self._feed.recalled:
            self.show(ShownFact(fact, "", again=True))

    async def _next(self, outlet: Outlet) -> None:
        """Show what comes next, or that there is nothing yet."""
        for item in merged(await self._feed.take(outlet.left(self._terms.beat_s))):
            for data in encode(item, self.show(item)):
                await outlet.send(data)
        if not outlet.gone() and outlet.left(self._terms.beat_s) <= 0:
            await outlet.send(BEAT)

    async def _live(self, outlet: Outlet) -> bool:
        """Go on in a channel, if that is possible now; whether that was to the end."""
        feed, kind, channels = self._feed, getattr(self._own, "kind", None), self._terms.channels
        # A show that stands before the stream's own still waits for something in this stream alone.
        if channels is None or kind is None or not isinstance(feed, Feed) or self.show is not self._own:
            return False
        watcher = Watcher(feed, outlet, self._own)
        channel: Channel | None = channels.enter(feed, kind, self._own, watcher)
        if channel is None:
            return False
        try:
            await watcher.live(self._terms.beat_s)
        finally:
            channel.leave(watcher)
        return not watcher.alone

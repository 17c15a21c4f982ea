"""A stream of many threads over the wire: what `many` makes, sent; once it is live, by a channel that others may be in
(`many_channel`). Beside it: `sse`, whose stream this is."""

from __future__ import annotations

from starlette.types import Message

from parley_gateway.errors import GatewayError
from parley_gateway.feed.many import Many
from parley_gateway.feed.many_channel import ManyChannel
from parley_gateway.feed.outlet import Outlet
from parley_gateway.feed.sse import BEAT, Stream, Terms


class ManyWatcher:
    """A stream as the member of a channel. `feed`: with what it goes on, once it has fallen behind. To the stream it is
    the source in the place of a feed."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.over = False
        self.feed: Many | None = None

    def write(self, message: Message, now: float) -> bool:
        """As `many_channel.ManyMember`."""
        return self._outlet.write(message, now)

    def go_on(self, feed: Many) -> None:
        """As `many_channel.ManyMember`."""
        self.feed = feed
        self._outlet.rouse()

    def end(self) -> None:
        """As `many_channel.ManyMember`."""
        self.over = True
        self._outlet.rouse()

    def close(self) -> None:
        """As `sse.Source`. The channel's feed is others', too."""
        if self.feed is not None:
            self.feed.close()

    async def live(self, channel: ManyChannel, beat_s: float) -> None:
        """Until the channel is over, the client has gone, or goes on alone."""
        outlet = self._outlet
        while True:
            await outlet.catch_up()
            if self.over or self.feed is not None or outlet.gone():
                return
            if outlet.left(beat_s) <= 0:
                await outlet.send(channel.beat() or BEAT)
                continue
            await outlet.wait(outlet.left(beat_s))


class ManyStream(Stream):
    """A response that shows a feed of many threads."""

    def __init__(self, feed: Many, terms: Terms) -> None:
        super().__init__(feed, terms, endless=True)
        self._many = feed

    async def _next(self, outlet: Outlet) -> None:
        """Send what comes next, or the cursor when there is nothing yet."""
        for data in await self._many.take(outlet.left(self._terms.beat_s)):
            await outlet.send(data)
        if not outlet.gone() and outlet.left(self._terms.beat_s) <= 0:
            await outlet.send(self._many.beat())

    async def _live(self, outlet: Outlet) -> bool:
        """Go on in a channel, if that is possible now; whether that was to the end."""
        if self._terms.many is None:
            return False
        watcher = ManyWatcher(outlet)
        channel = self._terms.many.enter(self._many, watcher)
        if channel is None:
            return False
        self._source = watcher
        try:
            await watcher.live(channel, self._terms.beat_s)
        finally:
            channel.leave(watcher)
        if watcher.over or watcher.feed is None:
            return True
        self._source = self._many = watcher.feed
        try:
            await self._many.start()
        except GatewayError:
            return True  # the client comes back by its cursor
        return False

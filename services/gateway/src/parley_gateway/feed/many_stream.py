"""A stream of many threads over the wire: what `many` makes, sent. Beside it: `sse`, whose stream this is."""

from __future__ import annotations

from parley_gateway.feed.many import Many
from parley_gateway.feed.outlet import Outlet
from parley_gateway.feed.sse import Stream, Terms


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

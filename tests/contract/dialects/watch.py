"""Watching a stream send by send: each thing that happens gives the frames that it should, at once."""

from __future__ import annotations

from tests.support.asgi import Exchange
from tests.support.sse import Frame, frame_of


class Watch:
    """The frames of a stream, as they come."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.frames: list[Frame] = []

    async def sees(self, *types: str) -> list[Frame]:
        """The next frames, one send each, are of these types."""
        before = len(self.frames)
        wanted = before + len(types)
        await self.exchange.until(lambda x: len(x.parts) >= wanted or x.over)
        self.frames = [frame_of(part) for part in self.exchange.parts]
        assert [frame.type for frame in self.frames[before:]] == list(types)
        return self.frames[before:]

    async def ends(self) -> None:
        """Nothing more comes, and the response is finished."""
        await self.exchange.end()
        assert self.exchange.over
        assert len(self.exchange.parts) == len(self.frames), self.exchange.parts[len(self.frames) :]

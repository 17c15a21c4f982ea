"""What many clients watch of many threads under one key: followed once, encoded once, written to all of them.

A stream of many threads that is live, and stands where another one about the same stands, joins it: its own feed is
closed, and what the other's shows is written to both. The first one's feed is the channel's, driven by a task. A member
that falls behind leaves, and goes on from where the channel stands as one that comes back by its cursor. Above it:
`many_stream`. Below: `many`. Beside it: `channel`, which is the same for one thread or run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from typing import Protocol

from starlette.types import Message

from parley_gateway.feed.many import Many
from parley_gateway.feed.outlet import message_of

log = logging.getLogger(__name__)

_WAIT_S = 3600.0


class ManyMember(Protocol):
    """A stream that is written to. Nothing of it waits."""

    def write(self, message: Message, now: float) -> bool:
        """Send one frame, or keep it until the client takes what it was sent before. False: it has fallen behind."""

    def go_on(self, feed: Many) -> None:
        """It is no member any more: what comes next it must see to itself, with this feed, which is to be started."""

    def end(self) -> None:
        """Nothing comes any more."""


class ManyChannel:
    """One feed of many threads and all who watch it. It closes when nobody is left."""

    def __init__(self, channels: ManyChannels, feed: Many) -> None:
        self._channels, self._feed = channels, feed
        self._members: dict[ManyMember, None] = {}
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def place(self) -> object:
        """Where its members stand; None while there is something to be shown."""
        return self._feed.place

    def join(self, member: ManyMember) -> None:
        self._members[member] = None

    def leave(self, member: ManyMember) -> None:
        self._members.pop(member, None)
        if not self._members:
            self._channels.forget(self._feed.about, self)
            self._task.cancel()

    def beat(self) -> bytes | None:
        """What a member is sent when there is nothing to tell; None: something is being told just now."""
        return self._feed.beat() if self._feed.idle else None

    async def _run(self) -> None:
        while not self._feed.over:
            frames = await self._feed.take(_WAIT_S)
            now = self._loop.time()
            behind: dict[ManyMember, None] = {}
            members = list(self._members)
            for data in frames:
                message = message_of(data)
                for member in members:
                    if not member.write(message, now):
                        behind[member] = None
            for member in behind:
                if member in self._members:
                    member.go_on(self._feed.again())
                    self.leave(member)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._channels.forget(self._feed.about, self)
        self._feed.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Rather streams that end, and are resumed by their cursors, than ones with a gap in them.
            log.error("what came of many threads could not be shown", exc_info=error)
        members, self._members = self._members, {}
        for member in members:
            member.end()


class ManyChannels:
    """The channels of many threads that a gateway has, by what they show and to whom."""

    def __init__(self) -> None:
        self._open: dict[Hashable, ManyChannel] = {}

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, feed: Many, member: ManyMember) -> ManyChannel | None:
        """The channel in which the client goes on from where its feed stands, and of which it is a member from now on;
        the feed is the channel's then, or is closed. None: not yet, and the feed stays the client's."""
        place = feed.place
        if place is None:
            return None
        channel = self._open.get(feed.about)
        if channel is None:
            channel = self._open[feed.about] = ManyChannel(self, feed)
        elif channel.place != place:
            return None
        else:
            feed.close()
        channel.join(member)
        return channel

    def forget(self, about: Hashable, channel: ManyChannel) -> None:
        if self._open.get(about) is channel:
            del self._open[about]

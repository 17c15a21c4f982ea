"""What is live, followed once and encoded once, however many watch it.

A client catches up by itself (`join`), and then joins the channel of what it watches: one follower of the hub, and
one dialect's frames, whose bytes are written to every member in the hub's own turn, without waking a task for each. A
client may join when it has been shown just what the channel has shown, to the character; until then it goes on by
itself. A member that takes nothing for a moment is written to by its own task again (`outlet`). One that falls behind
leaves, and goes on by itself from just where the channel stands, with what comes meanwhile put together, until it has
caught up: the first thing that a slow client loses is that its text comes smoothly, and no client waits for another.

Above it: `sse`. Below: `follow`, the hub.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from copy import deepcopy
from typing import Protocol

from starlette.types import Message

from parley_gateway.feed.follow import HoleError, Shown, ShownFact, merged
from parley_gateway.feed.frames import Show, encode
from parley_gateway.feed.join import Feed
from parley_gateway.feed.listener import Item
from parley_gateway.feed.outlet import message_of

log = logging.getLogger(__name__)


class Member(Protocol):
    """A stream that is written to. Nothing of it waits."""

    def write(self, message: Message, now: float) -> bool:
        """Send one frame, or keep it until the client takes what it was sent before. False: it has fallen behind."""

    def knows(self, item: ShownFact, show: Show) -> None:
        """The fact was shown, by `show`: what remembers a run must remember it."""

    def go_on(self, feed: Feed) -> None:
        """It is no member any more: what comes next it must see to itself, from where this feed stands now."""

    def end(self) -> None:
        """Nothing comes any more."""


class Channel:
    """One run or thread in one dialect's words. It closes when nobody is left."""

    def __init__(self, channels: Channels, key: Hashable, feed: Feed, show: Show) -> None:
        self._channels, self._key, self._feed, self._show = channels, key, feed, show
        self._members: dict[Member, None] = {}
        self._behind: dict[Member, None] = {}
        self._borrowed = True
        self._due = False
        self._healing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.over = False
        feed.call(self._wake)

    def __len__(self) -> int:
        return len(self._members)

    def current(self) -> Feed | None:
        """The channel's feed once all that has come was shown; None while something is being fetched, or it is over."""
        self._flush()
        return None if self.over or self._healing is not None else self._feed

    def join(self, member: Member) -> None:
        self._members[member] = None

    def leave(self, member: Member) -> None:
        self._members.pop(member, None)
        if not self._members:
            self._close()

    # ---- inside

    def _wake(self) -> None:
        """Something has come. What comes in one turn of the hub is shown together."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        if self.over or self._healing is not None:
            return
        try:
            self._show_what_came()
            self._let_go()
        except Exception:
            # Rather a stream that ends, and is resumed by its cursor, than one with a gap in it.
            log.exception("what came could not be shown")
            self._finish()

    def _show_what_came(self) -> None:
        items = self._feed.grab()
        shown: list[Shown] = []
        for place, item in enumerate(items):
            try:
                shown += self._feed.step(item)
            except HoleError:
                self._healing = self._loop.create_task(self._heal(items[place:]))
                self._healing.add_done_callback(self._healed)
                break
            if self._feed.ended:
                break
        self._out(shown)

    async def _heal(self, items: list[Item]) -> None:
        """Facts are missing: read them, while what comes meanwhile waits."""
        self._out(await self._feed.followed(items), healing=True)

    def _healed(self, task: asyncio.Task[None]) -> None:
        self._healing = None
        if task.cancelled() or task.exception() is not None:
            self._finish()
        else:
            self._flush()

    def _out(self, shown: list[Shown], *, healing: bool = False) -> None:
        if shown:
            now = self._loop.time()
            members = list(self._members)
            for item in merged(shown):
                for data in encode(item, self._show(item)):
                    message = message_of(data)
                    for member in members:
                        if not member.write(message, now):
                            self._behind[member] = None
                if isinstance(item, ShownFact):
                    for member in members:
                        member.knows(item, self._show)
        if self._feed.ended or (self._feed.closed and not healing and self._healing is None):
            self._finish()

    def _let_go(self) -> None:
        """Those who have fallen behind go on by themselves. While something is being fetched there is no place from
        which they could."""
        if not self._behind or self.over or self._healing is not None:
            return
        if self._borrowed:
            # It is the first member's, who goes on telling it what only that member is shown.
            self._show, self._borrowed = deepcopy(self._show), False
        behind, self._behind = [member for member in self._behind if member in self._members], {}
        for member in behind:
            member.go_on(self._feed)
            del self._members[member]
        if not self._members:
            self._close()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            for member in list(self._members):
                member.end()
            self._close()

    def _close(self) -> None:
        self.over = True
        self._feed.close()
        self._channels.forget(self._key, self)
        if self._healing is not None:
            self._healing.cancel()


class Channels:
    """The channels of a gateway, by what they show and in whose words."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Channel] = {}

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, feed: Feed, kind: Hashable, show: Show, member: Member) -> Channel | None:
        """The channel in which the client goes on from where its feed stands, and of which it is a member from now on;
        None: not yet. Its feed then hears only whether it is closed."""
        if not feed.live:
            return None
        key = (*feed.about, kind, None if feed.whole else id(feed))
        channel = self._open.get(key)
        if channel is None:
            channel = self._open[key] = Channel(self, key, feed.branch(), show)
        else:
            there = channel.current()
            if there is None or not feed.live or there.place != feed.place:
                return None
        feed.mute()
        channel.join(member)
        return channel

    def forget(self, key: Hashable, channel: Channel) -> None:
        if self._open.get(key) is channel:
            del self._open[key]

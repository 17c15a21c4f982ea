"""Those who follow: a client, over as many connections as it takes until it has everything. `Follower` follows a run or
a thread; beside it: `many_follower`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from starlette.types import Message

from parley_events.codec import Fact
from parley_events.facts import MessagePosted
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Until
from parley_gateway.dialects.tool_chat import outbound as tool_chat
from parley_gateway.errors import GatewayError, Problem
from parley_gateway.feed.rotation import RETRY_MS
from parley_gateway.feed.sse import Feeding
from parley_gateway.runs import RunTold
from tests.unit.gateway.feed.gateways import Gateway
from tests.unit.gateway.feed.recorded import part_of
from tests.unit.gateway.feed.spoken import Sent, Tagged, Words, sent, undisturbed
from tests.unit.gateway.feed.stories import THREAD

if TYPE_CHECKING:
    from tests.unit.gateway.feed.stage import Stage

WHO = Principal("w", "ann", "k", frozenset({"*"}))


@dataclass(eq=False)
class Link:
    """One connection of a client: the frames that it has got, as it reads them. `open`: clear while it takes nothing;
    `paused`: whether it ever was. `stream`: what it is sent, once that is known; `retry_ms`: what that said at last."""

    gateway: Gateway
    read: Callable[[bytes], Any]
    frames: list[Any] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    stream: Any = None
    retry_ms: int | None = None
    over: bool = False
    paused: bool = False

    async def send(self, message: Message) -> None:
        """As a server's: who has gone is sent nothing, without an error."""
        await self.open.wait()
        if self.left.is_set():
            return
        assert not self.over, "something comes after the end"
        body = message.get("body", b"")
        self.over = message["type"] == "http.response.body" and not message.get("more_body", False)
        if body.startswith(b"retry: "):
            self.retry_ms = int(body[7:])
            assert self.over and RETRY_MS[0] <= self.retry_ms < RETRY_MS[1]
        elif body and not body.startswith(b":"):
            self.frames.append(self.read(body))

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def rotated(self) -> bool:
        """Whether its gateway has ended it early."""
        return self.stream is not None and self.stream._retry_ms is not None

    async def answer(self, response: Any) -> None:
        """Take what a gateway answers with."""
        self.stream = response
        await response({"type": "http"}, self.receive, self.send)


class Client:
    """One who follows. `endless`: its streams do not end by themselves."""

    def __init__(self, stage: Stage, name: str, *, endless: bool) -> None:
        self.stage, self.name, self.endless = stage, name, endless
        self.seen: list[Any] = []
        self.link: Link | None = None
        self.finished = False
        """Whether a connection came to its end, after everything was here."""

    @property
    def frames(self) -> list[Any]:
        return self.seen + (self.link.frames if self.link is not None else [])

    @property
    def whole(self) -> bool:
        """Whether it has everything that has an id."""
        raise NotImplementedError

    @property
    def cursor(self) -> str | None:
        """Where it goes on: the last id that it got."""
        raise NotImplementedError

    def read(self, body: bytes) -> Any:
        """A frame as it keeps it."""
        raise NotImplementedError

    async def follow(self, link: Link, cursor: str | None) -> None:
        """Ask, and take the answer. Raises what a gateway refuses it with."""
        raise NotImplementedError

    def come(self, gateway: Gateway) -> None:
        """Connect, with the last id that it got."""
        self.link = link = Link(gateway, self.read)
        link.open.set()
        link.task = self.stage.loop.create_task(self._connected(link, self.cursor))

    async def _connected(self, link: Link, cursor: str | None) -> None:
        try:
            await self.follow(link, cursor)
        except Problem as problem:
            assert problem.status != 400, (problem.code, cursor)
        except (GatewayError, TimeoutError):
            pass

    def go(self, cut: int) -> None:
        """Leave: of what was sent last, `cut` frames never came."""
        link, self.link = self.link, None
        if link is None:
            return
        kept = len(link.frames) - min(cut, len(link.frames))
        self.seen += link.frames[:kept]
        link.left.set()
        link.open.set()
        self.stage.gone.append(link)

    def look(self) -> None:
        """See whether the connection has ended."""
        if self.link is None or self.link.task is None or not self.link.task.done():
            return
        link = self.link
        assert link.task is not None
        if not link.task.cancelled():
            link.task.result()
            assert link.paused or not link.rotated or (link.over and link.retry_ms), "it was not ended cleanly"
        self.seen += link.frames
        self.link = None
        self.finished = self.finished or (link.over and self.whole)


class Follower(Client):
    """One who follows a run, or its thread, in some words."""

    def __init__(self, stage: Stage, words: Words, run: str) -> None:
        super().__init__(stage, words.name, endless=words.of_thread)
        self.words, self.run = words, run
        self.reference = undisturbed(stage.story, words, run)
        self.asked = False
        posted = next(fact for fact in stage.story.facts if isinstance(fact.body, MessagePosted) and fact.run_id == run)
        told = RunTold(run, THREAD)
        told.fold(posted)
        self.view = told.view()
        fact = stage.topics.threads[THREAD][(posted.seq or 0) - 1]
        self.cause, self.place = str(fact.causation_id), (part_of(THREAD), fact.offset or 0)

    def read(self, body: bytes) -> Sent:
        """As of the client."""
        return sent(body)

    @property
    def whole(self) -> bool:
        """As of the client."""
        wanted = [frame.place for frame in self.reference if frame.id is not None and frame.of is None]
        has = [frame.place for frame in self.frames if frame.id is not None and frame.of is None]
        return has[-1:] == wanted[-1:]

    @property
    def cursor(self) -> str | None:
        """As of the client."""
        return next((frame.id for frame in reversed(self.seen) if frame.id is not None), None)

    async def follow(self, link: Link, cursor: str | None) -> None:
        """As of the client."""
        core, words = link.gateway.core, self.words
        feed: Feeding
        if not (self.asked or words.of_thread or cursor or link.gateway.has_read(self.place)):
            self.asked = True
            feed = await self._ask(link)
        elif self.place[1] >= self.stage.topics.end(self.place[0]):
            return  # nobody knows of it yet
        elif words.of_thread:
            feed = await core_.thread_feed(core, WHO, THREAD, cursor, restarts=words.restarts)
        else:
            how: dict[str, Any] = {"restarts": words.restarts, "inside": words.inside}
            feed = await core_.run_feed(core, WHO, self.view, cursor, **how)
        if words.parts:
            feed = Until(feed, tool_chat.Parts(THREAD).ends)  # type: ignore[arg-type]
        await link.answer(core_.stream(core, feed, Tagged(words.show(self.run)), {}))

    async def _ask(self, link: Link) -> Feeding:
        """Say the message, and follow from its outcome on: that is what the client does who wrote it."""
        core, words = link.gateway.core, self.words
        listener = link.gateway.hub.listen(THREAD, WHO.key_id)
        future = link.gateway.hub.expect(self.cause, None)
        try:
            async with asyncio.timeout(5.0):
                fact: Fact = await future
        except BaseException:
            link.gateway.hub.leave(listener)
            raise
        finally:
            link.gateway.hub.forget(self.cause, future)
        outcome = SimpleNamespace(seq=fact.seq, fact=fact)
        said: Any = SimpleNamespace(outcome=outcome, listener=listener, run_id=self.run)
        return await core_.feed_of(core, WHO, said, restarts=words.restarts, inside=words.inside)

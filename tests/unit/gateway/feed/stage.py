"""Gateways and their clients over a recorded story, on a loop that stands still: hubs, feeds, channels and streams are
the real ones; when each reads, answers or takes anything is the script's to say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from starlette.types import Message

from parley_events.codec import EVENTS_TOPIC, Fact
from parley_events.contents import Contents
from parley_events.facts import MessagePosted
from parley_events.objects import open_objects
from parley_events.pieces import DELTAS_TOPIC
from parley_gateway import core as core_
from parley_gateway.core import Until
from parley_gateway.dialects.tool_chat import outbound as tool_chat
from parley_gateway.errors import GatewayError, Problem
from parley_gateway.feed.channel import Channels
from parley_gateway.feed.hub import Hub, HubLimits
from parley_gateway.feed.sse import Feeding
from parley_gateway.runs import RunTold
from parley_gateway.told import Told
from tests.support.still import StillLoop
from tests.unit.gateway.feed.recorded import FAILURES, Past, Reading, Topics
from tests.unit.gateway.feed.spoken import Sent, Tagged, Words, sent, undisturbed
from tests.unit.gateway.feed.stories import THREAD, Story

WHO: Any = SimpleNamespace(workspace_id="w", key_id="k")


class Gateway:
    """One gateway: its hub and its channels. It reads what the script releases."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.stage = stage
        facts = list(stage.topics.facts)
        ends = {offset for offset in facts if stage.topics.facts[offset].type.startswith("run.c")}
        losable = [offset for offset in facts[:-1] if offset not in ends]
        lost = (
            frozenset(offset for offset in losable if chance.random() < 0.1) if chance.random() < 0.3 else frozenset()
        )
        back = chance.choice([0, 0, chance.randint(0, len(stage.topics.records[DELTAS_TOPIC]))])
        self.reading = Reading(stage.topics, lost, back)
        limits = HubLimits(queue_items=chance.choice([3, 10, 20_000]), kept_bytes=chance.choice([0, 400, 1 << 26]))
        opened: Callable[[], Awaitable[Any]] = self._open
        self.hub = Hub(opened, stage.past.positions, lambda: 0, limits, Contents(open_objects("memory:")))
        self.channels = Channels()
        self.told = Told()
        settings = SimpleNamespace(beat_s=15.0, stall_s=30.0, queue_mb=chance.choice([0.002, 16]))
        self.core: Any = SimpleNamespace(
            hub=self.hub,
            history=stage.past,
            channels=self.channels,
            settings=settings,
            sender=SimpleNamespace(told=self.told),
            instruments=SimpleNamespace(first_delta=lambda made: None),
            rotation=None,
        )
        self.task = stage.loop.create_task(self.hub.run())

    async def _open(self) -> Reading:
        return self.reading

    @property
    def up(self) -> bool:
        """Whether it has begun to read."""
        return self.hub.log is not None

    def release(self, events: int, pieces: int) -> None:
        self.reading.release(EVENTS_TOPIC, events)
        self.reading.release(DELTAS_TOPIC, pieces)

    def has_read(self, offset: int) -> bool:
        return self.up and self.hub._next[0] > offset


@dataclass(eq=False)
class Link:
    """One connection of a client: the frames that it has got. `open`: clear while it takes nothing."""

    gateway: Gateway
    frames: list[Sent] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    over: bool = False

    async def send(self, message: Message) -> None:
        """As a server's: who has gone is sent nothing, without an error."""
        await self.open.wait()
        if self.left.is_set():
            return
        body = message.get("body", b"")
        if body and not body.startswith(b":"):
            self.frames.append(sent(body))
        self.over = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}


class Client:
    """One who follows until it has everything, over as many connections as that takes."""

    def __init__(self, stage: Stage, words: Words, run: str) -> None:
        self.stage, self.words, self.run = stage, words, run
        self.reference = undisturbed(stage.story, words, run)
        self.seen: list[Sent] = []
        self.link: Link | None = None
        self.asked = self.finished = False
        """Whether a connection came to its end, after everything was here."""
        posted = next(fact for fact in stage.story.facts if isinstance(fact.body, MessagePosted) and fact.run_id == run)
        told = RunTold(run, THREAD)
        told.fold(posted)
        self.view = told.view()
        self.cause = f"cause {posted.seq}"
        self.offset = next(offset for offset, fact in stage.topics.facts.items() if fact.seq == posted.seq)

    @property
    def frames(self) -> list[Sent]:
        return self.seen + (self.link.frames if self.link is not None else [])

    @property
    def whole(self) -> bool:
        """Whether it has everything that has an id."""
        wanted = [frame.place for frame in self.reference if frame.id is not None and frame.of is None]
        has = [frame.place for frame in self.frames if frame.id is not None and frame.of is None]
        return has[-1:] == wanted[-1:]

    def come(self, gateway: Gateway) -> None:
        """Connect, with the last id that it got."""
        self.link = link = Link(gateway)
        link.open.set()
        cursor = next((frame.id for frame in reversed(self.seen) if frame.id is not None), None)
        link.task = self.stage.loop.create_task(self._follow(link, cursor))

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
        self.seen += link.frames
        self.link = None
        self.finished = self.finished or (link.over and self.whole)

    async def _follow(self, link: Link, cursor: str | None) -> None:
        core, words = link.gateway.core, self.words
        feed: Feeding
        try:
            if not (self.asked or words.of_thread or cursor or link.gateway.has_read(self.offset)):
                self.asked = True
                feed = await self._ask(link)
            elif self.offset >= len(self.stage.topics.records[EVENTS_TOPIC]):
                return  # nobody knows of it yet
            elif words.of_thread:
                feed = await core_.thread_feed(core, WHO, THREAD, cursor, restarts=words.restarts)
            else:
                how: dict[str, Any] = {"restarts": words.restarts, "inside": words.inside}
                feed = await core_.run_feed(core, WHO, self.view, cursor, **how)
        except Problem as problem:
            assert problem.status != 400, (problem.code, cursor)
            return
        except (GatewayError, TimeoutError):
            return
        if words.parts:
            feed = Until(feed, tool_chat.Parts(THREAD).ends)  # type: ignore[arg-type]
        answer = core_.stream(core, feed, Tagged(words.show(self.run)), {})
        await answer({"type": "http"}, link.receive, link.send)

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


class Stage:
    """Everything: what was written, history, gateways, clients, and what the script may do with them."""

    def __init__(self, chance: random.Random, story: Story, topics: Topics, ways: list[tuple[Words, str]]) -> None:
        self.loop = StillLoop()
        self.chance, self.story, self.topics = chance, story, topics
        self.past = Past(topics, chance.choice([1, 3, 500]))
        self.gone: list[Link] = []
        self.clients = [Client(self, words, run) for words, run in ways]
        self.gateways = [Gateway(self, chance) for _ in range(2)]

    # ---- what the script says: each takes two numbers

    def do(self, deed: int, a: int, b: int) -> None:
        """The script's next line."""
        DEEDS[deed % len(DEEDS)](self, a, b)

    def nothing(self, a: int, b: int) -> None:
        pass

    def write(self, a: int, b: int) -> None:
        self.topics.write(1 + a % 4)

    def flow(self, a: int, b: int) -> None:
        """Records are written and read at once, everywhere; at times the pieces before the facts, or after them."""
        self.topics.write(1 + a % 3)
        for events, pieces in (((1, 1),), ((0, 1), (1, 0)), ((1, 0), (0, 1)))[b % 3]:
            for gateway in self.gateways:
                gateway.release(events << 20, pieces << 20)
            self.loop.settle()

    def events(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(1 + b % 5, 0)

    def pieces(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(0, 1 + b % 5)

    def all_of_one(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(1 << 20, 1 << 20)

    def connect(self, a: int, b: int) -> None:
        client, gateway = self.clients[a % len(self.clients)], self.gateways[0 if b % 4 else 1]
        client.look()
        if client.link is None and not client.finished and gateway.up:
            client.come(gateway)

    def everyone(self, a: int, b: int) -> None:
        for client in range(len(self.clients)):
            self.connect(client, a)

    def leave(self, a: int, b: int) -> None:
        self.clients[a % len(self.clients)].go(b % 7)

    def hold(self, a: int, b: int) -> None:
        """A client takes nothing for a while."""
        link = self.clients[a % len(self.clients)].link
        if link is not None:
            link.open.clear()

    def take(self, a: int, b: int) -> None:
        for client in self.clients if a % 2 else [self.clients[b % len(self.clients)]]:
            if client.link is not None:
                client.link.open.set()

    def history_waits(self, a: int, b: int) -> None:
        self.past.held = True

    def history_answers(self, a: int, b: int) -> None:
        self.past.let_go()

    def history_fails(self, a: int, b: int) -> None:
        self.past.fails = [FAILURES[a % len(FAILURES)]()]

    def history_folds(self, a: int, b: int) -> None:
        most = len(self.topics.records[EVENTS_TOPIC])
        self.past.position = min(self.past.position + 1 + a % 9, most)

    def restart(self, a: int, b: int) -> None:
        """A gateway goes, cleanly or not, and another comes in its place."""
        gateway = self.gateways[a % 2]
        if b % 2:
            gateway.hub.drain()
            self.loop.turn(b % 5)
        gateway.task.cancel()
        for client in self.clients:
            client.look()
            if client.link is not None and client.link.gateway is gateway:
                assert client.link.task is not None
                client.link.task.cancel()
                client.go(b % 5)
        self.gateways[a % 2] = Gateway(self, self.chance)

    def revoke(self, a: int, b: int) -> None:
        self.gateways[a % 2].hub.close_owned_by(WHO.key_id)

    def some_time(self, a: int, b: int) -> None:
        self.loop.pass_time((0.01, 1.0, 6.0, 16.0, 31.0)[a % 5])

    def turn(self, a: int, b: int) -> None:
        self.loop.turn(1 + a % 4)

    def settle(self, a: int, b: int) -> None:
        self.loop.settle()

    # ---- the end

    def finish(self) -> None:
        """Let everything be written, read and answered, and every client come back until it has all."""
        self.past.let_go()
        self.past.fails = []
        self.topics.write(1 << 30)
        for rounds in range(40):
            for gateway in self.gateways:
                gateway.release(1 << 20, 1 << 20)
            self.loop.settle()
            for place, client in enumerate(self.clients):
                client.look()
                if client.link is not None:
                    client.link.open.set()
                elif not client.finished:
                    client.come(self.gateways[(place + rounds) % 2])
            self.loop.settle()
            self.loop.pass_time(1.0)
            for client in self.clients:
                client.look()
            if all(client.finished or (client.words.of_thread and client.whole) for client in self.clients):
                return
        waits = [(client.words.name, client.frames[-1:], client.link) for client in self.clients if not client.finished]
        raise AssertionError(f"these never came to the end: {waits}")

    def close(self) -> None:
        """All clients leave; nothing of them may be left."""
        for client in self.clients:
            client.go(0)
        self.loop.pass_time(40.0)
        for link in self.gone:
            assert link.task is not None and link.task.done(), "a stream goes on without its client"
        for gateway in self.gateways:
            assert gateway.hub.listening == 0 and not gateway.hub._muted and len(gateway.channels) == 0
            assert gateway.hub.counts.streams == 0

    def end(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


DEEDS: tuple[Callable[[Stage, int, int], None], ...] = (
    Stage.nothing,
    *(Stage.write,) * 3,
    *(Stage.flow,) * 10,
    *(Stage.events,) * 4,
    *(Stage.pieces,) * 4,
    *(Stage.all_of_one,) * 3,
    *(Stage.connect,) * 6,
    *(Stage.everyone,) * 4,
    *(Stage.leave,) * 4,
    *(Stage.hold,) * 5,
    *(Stage.take,) * 3,
    Stage.history_waits,
    *(Stage.history_answers,) * 3,
    Stage.history_fails,
    Stage.history_folds,
    Stage.restart,
    Stage.revoke,
    Stage.some_time,
    *(Stage.turn,) * 3,
    *(Stage.settle,) * 5,
)
"""What the script may say, as often as it is to be said."""

"""One who follows many threads in one stream, and goes on by a vector of places. Beside it: `clients`. What it makes of
what comes is `tests.support.many`, which does as `docs/streams.md` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from parley_events.codec import Fact
from parley_events.facts import ModelReturned, RunCancelled
from parley_gateway import core as core_
from parley_gateway.dialects.threads.outbound import Placed
from parley_gateway.feed.follow import ShownFact
from parley_gateway.feed.vector import Vector, parse_vector
from tests.support.many import ManyClient
from tests.unit.gateway.feed.clients import WHO, Client, Link
from tests.unit.gateway.feed.recorded import PARTITIONS, STALE, part_of
from tests.unit.gateway.feed.stories import Story

if TYPE_CHECKING:
    from tests.unit.gateway.feed.stage import Stage

START = str(Vector(dict.fromkeys(range(PARTITIONS), 0)))
DELTAS = ("text.delta", "thought.delta")


class Wish(NamedTuple):
    """What such a client asks for. `threads`: how many it names (0: it names none, and follows all). `first`: from the
    beginning of the log, else from now on."""

    threads: int
    deltas: bool
    first: bool


class Event(NamedTuple):
    """One event as it came, its id, and what is in it (None: a place alone)."""

    raw: bytes
    id: str | None
    data: dict[str, Any] | None


class ManyFollower(Client):
    """See the module. It never sees threads of others."""

    def __init__(self, stage: Stage, wish: Wish) -> None:
        super().__init__(stage, f"{wish}", endless=True)
        visible = [story for story in stage.stories if story.user in (None, WHO.user_id)]
        self.stories = {story.thread: story for story in (visible[: wish.threads] if wish.threads else visible)}
        self.wish = wish
        self._told = {thread: _told(story) for thread, story in self.stories.items()}

    def read(self, body: bytes) -> Event:
        """As of the client."""
        lines = dict(line.split(b": ", 1) for line in body[:-2].split(b"\n"))
        data = orjson.loads(lines[b"data"]) if b"data" in lines else None
        return Event(body[:-2], lines[b"id"].decode() if b"id" in lines else None, data)

    @property
    def cursor(self) -> str | None:
        """As of the client."""
        last = next((event.id for event in reversed(self.seen) if event.id is not None), None)
        return last or (START if self.wish.first else None)

    def go(self, cut: int) -> None:
        """As of the client; often between two frames of one fact."""
        frames = self.link.frames if self.link is not None else []
        torn = [at for at, event in enumerate(frames) if event.data and event.data["type"] == "run.restarted"]
        super().go(len(frames) - 1 - torn[-1] if torn and cut > 4 else cut)

    async def follow(self, link: Link, cursor: str | None) -> None:
        """As of the client."""
        core, threads = link.gateway.core, list(self.stories) if self.wish.threads else None
        feed = await core_.many_feed(core, WHO, Placed, cursor, threads=threads, pieces=self.wish.deltas)
        await link.answer(core_.many_stream(core, feed))

    # ---- what it should have

    @property
    def begin(self) -> Vector | None:
        """Where it began; None: it has not yet."""
        if self.wish.first:
            return parse_vector(START)
        return next((parse_vector(event.id) for event in self.frames if event.id is not None), None)

    def first_of(self, thread: str, begin: Vector) -> int:
        """The seq of the first fact of the thread that it is to be shown."""
        facts = self.stage.topics.threads[thread]
        return 1 + sum((fact.offset or 0) < begin.next[part_of(thread)] for fact in facts)

    @property
    def whole(self) -> bool:
        """As of the client."""
        begin = self.begin
        if begin is None:
            return False
        last = {event.data["thread_id"]: event.data for event in self.frames if event.data is not None}
        for thread, told in self._told.items():
            if self.first_of(thread, begin) <= len(told) and last.get(thread) != told[-1][-1]:
                return False
        return True

    # ---- what it has

    def check(self) -> None:
        """Whether it has each fact once and in its thread's order, and no text that is wrong or missing."""
        client, begin = ManyClient(), self.begin
        assert begin is not None
        before = begin
        for event in self.frames:
            assert event.id is not None, "every frame has an id"
            place = parse_vector(event.id)
            assert all(_shown(place, each) >= _shown(before, each) for each in place.next), "ids never go back"
            before = place
            client.take(event.raw)
            if event.data is not None:
                self._check_texts(client, event.data)
        assert client.facts.keys() <= self.stories.keys(), "a thread is shown that it may not see, or did not ask for"
        for thread, told in self._told.items():
            first = self.first_of(thread, begin)
            wanted = [frame for frames in told[first - 1 :] for frame in frames]
            # A fact that was sent twice, around the place where it began, may be shown: it begins a thread there.
            has = [frame for frame in client.facts[thread] if frame["seq"] >= first]
            early = [frame["seq"] for frame in client.facts[thread] if frame["seq"] < first]
            assert has == wanted, (thread, first)
            assert early == sorted(early) and not (early and self.wish.first)
            self._check_end(client, thread, first)

    def _check_texts(self, client: ManyClient, data: dict[str, Any]) -> None:
        """No text is ever another than what was said; that of a turn is whole once it is on record."""
        thread = data["thread_id"]
        assert thread in self.stories
        story = self.stories[thread]
        if data["type"] in DELTAS:
            assert self.wish.deltas
            call, block = data["seq"], data["block"]
            text = client.texts[thread, call, block]
            assert STALE not in text and story.spoken.get((call, block), "").startswith(text), (thread, call, text)
        elif data["type"] in ("model.returned", "run.cancelled") and self.wish.deltas:
            for place, text in _closed_by(story, story.facts[data["seq"] - 1]).items():
                assert client.texts.get((thread, *place), "") == text, (thread, place, text)

    def _check_end(self, client: ManyClient, thread: str, first: int) -> None:
        """In the end there are the texts that are on record, and no others."""
        kept = {place[1:]: text for place, text in client.texts.items() if place[0] == thread}
        wanted: dict[tuple[int, int], str] = {}
        for fact in self.stories[thread].facts[first - 1 :] if self.wish.deltas else ():
            wanted |= {place: text for place, text in _closed_by(self.stories[thread], fact).items() if text}
        assert kept == wanted, thread


def _shown(place: Vector, partition: int) -> tuple[int, int]:
    """What a cursor says of a partition: all below an offset, and so many frames of what is there."""
    return place.next.get(partition, 0), place.frames if partition == place.partition else 0


def _told(story: Story) -> list[list[dict[str, Any]]]:
    """The frames of each fact, for one who is told of all from the first on."""
    show = Placed(story.thread)
    shown = (show(ShownFact(fact._replace(workspace_id="w"), "")) for fact in story.facts)
    return [[orjson.loads(orjson.dumps(frame.data)) for frame in frames] for frames in shown]


def _closed_by(story: Story, fact: Fact) -> dict[tuple[int, int], str]:
    """The texts that a fact puts on record."""
    if not isinstance(fact.body, ModelReturned | RunCancelled):
        return {}
    return {place: text for place, text in story.texts.items() if place[0] == fact.body.call}

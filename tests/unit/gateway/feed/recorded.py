"""A story as it stands on the two topics: under claims that come and go, with all that may become of records there.

Facts are sent twice, a superseded writer goes on for a while, pieces are lost, doubled, out of order and late. `Topics`
is what was written, in its order; `Reading` is how one gateway reads it, at its own pace; `Past` is history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from parley_events import facts as f
from parley_events.codec import EVENTS_TOPIC, Fact, encode_fact
from parley_events.facts import ModelCalled, ModelFailed, ModelReturned, RunCancelled
from parley_events.log import Incoming, Outgoing
from parley_events.pieces import DELTAS_TOPIC, Piece, encode_pieces
from parley_events.reads import PartitionPositionView, Positions
from parley_gateway.errors import Behind, GatewayError, Missing, Unavailable
from tests.unit.gateway.feed.stories import THREAD, Story
from tests.unit.gateway.feed.test_texts import log_of

STALE = "what nobody may be shown"


@dataclass
class Topics:
    """`order`: (topic, record), as they were written; `facts`: what is to be believed, by its offset."""

    order: list[tuple[str, Incoming]] = field(default_factory=list)
    facts: dict[int, Fact] = field(default_factory=dict)
    claims: list[int] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=lambda: {EVENTS_TOPIC: 0, DELTAS_TOPIC: 0})
    records: dict[str, list[Incoming]] = field(default_factory=lambda: {EVENTS_TOPIC: [], DELTAS_TOPIC: []})
    """What has been written so far; `write` adds to it."""
    _written: int = 0

    def add(self, out: Outgoing) -> int:
        offset = self.ends[out.topic]
        self.ends[out.topic] = offset + 1
        self.order.append((out.topic, Incoming(out.topic, 0, offset, 1000, out.key, out.value, out.headers)))
        return offset

    def claim(self) -> int:
        body = f.PartitionClaimed(owner="w")
        self.claims.append(self.add(encode_fact(Fact(body.type, "", None, -1, "", 0, body), 0)))
        return self.claims[-1]

    def write(self, count: int) -> None:
        """So many more of the records."""
        for topic, record in self.order[self._written : self._written + count]:
            self.records[topic].append(record)
        self._written = min(self._written + count, len(self.order))

    def epoch_at(self, offset: int) -> int:
        """The claim in force below an offset."""
        return max((claim for claim in self.claims if claim < offset), default=-1)


def recorded(chance: random.Random, story: Story) -> Topics:
    """The story on the topics, as chance has it."""
    topics = Topics()
    epoch, stale = topics.claim(), list[Outgoing]()
    waiting: list[tuple[int, Piece]] = []
    pieces = log_of(chance, story)
    sent: list[Outgoing] = []
    for place, told in enumerate(story.facts):
        likely = 0.5 if isinstance(told.body, ModelCalled) else 0.1
        if place and chance.random() < likely and _may_move(story, place):
            stale += [_stale_fact(fact, epoch) for fact in story.facts[place : place + chance.randint(0, 3)]]
            waiting[:0] = [
                (epoch, Piece(THREAD, fact.seq or 0, block, "text", 0, STALE))
                for fact in story.facts[place : place + 3]
                if isinstance(fact.body, ModelCalled)
                for block in range(2)
            ]
            epoch, sent = topics.claim(), []
        fact = told._replace(epoch=epoch, workspace_id="w", causation_id=f"cause {told.seq}")
        record = encode_fact(fact, 0)
        topics.facts[topics.add(record)] = fact
        sent.append(record)
        if chance.random() < 0.1:
            for again in sent[-chance.randint(1, 3) :]:
                topics.add(again)
        while stale and chance.random() < 0.5:
            topics.add(stale.pop(0))
        if isinstance(told.body, ModelCalled):
            waiting += [(epoch, piece) for piece in pieces if piece.call == told.seq]
        while waiting and chance.random() < 0.7:
            _batch(topics, chance, waiting)
    while waiting:
        _batch(topics, chance, waiting)
    return topics


def _batch(topics: Topics, chance: random.Random, waiting: list[tuple[int, Piece]]) -> None:
    """One record of what waits, most often of what has waited longest."""
    at = 0 if chance.random() < 0.8 else chance.randrange(len(waiting))
    epoch, batch = waiting[at][0], list[Piece]()
    for _ in range(chance.randint(1, 3)):
        if at < len(waiting) and waiting[at][0] == epoch:
            batch.append(waiting.pop(at)[1])
    topics.add(encode_pieces(0, epoch, batch))


def _may_move(story: Story, place: int) -> bool:
    """Whether another may take the partition before this fact: no call goes on over that."""
    open_ = {fact.seq for fact in story.facts[:place] if isinstance(fact.body, ModelCalled)}
    rest = story.facts[place:]
    ends = (fact.body.call for fact in rest if isinstance(fact.body, ModelReturned | ModelFailed | RunCancelled))
    return open_.isdisjoint(ends)


def _stale_fact(fact: Fact, epoch: int) -> Outgoing:
    """What a superseded writer writes in the place of a fact: the same call with other words to come, or nonsense."""
    body = fact.body if isinstance(fact.body, ModelCalled) else f.ThreadUpdated(title=STALE, changes=("title",))
    return encode_fact(fact._replace(type=body.type, body=body, epoch=epoch, workspace_id="w", call=None), 0)


class Reading:
    """The log as one gateway reads it: each topic as far as it was let (`release`). `lost`: the offsets of facts that
    never come to it."""

    partitions = 1

    def __init__(self, topics: Topics, lost: frozenset[int], pieces_from: int) -> None:
        self._topics, self.lost, self._pieces_from = topics, lost, pieces_from
        self.released = {EVENTS_TOPIC: 0, DELTAS_TOPIC: 0}
        self._wakes: dict[str, asyncio.Future[None]] = {}

    def release(self, topic: str, count: int) -> None:
        """Let it read so many more of the records that were written."""
        self.released[topic] = min(self.released[topic] + count, len(self._topics.records[topic]))
        wake = self._wakes.pop(topic, None)
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def tail(self, topic: str, starts: Mapping[int, int]) -> _Tail:
        return _Tail(self, topic, starts[0])

    async def begins(self, topic: str) -> dict[int, int]:
        return {0: 0}

    async def ends(self, topic: str) -> dict[int, int]:
        return {0: len(self._topics.records[topic])}

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        return {0: min(self._pieces_from, len(self._topics.records[topic]))}

    async def next(self, topic: str, position: int) -> list[Incoming]:
        """The records from there on that may be read."""
        while position >= self.released[topic]:
            wake = self._wakes[topic] = asyncio.get_running_loop().create_future()
            await wake
        return self._topics.records[topic][position : self.released[topic]]


class _Tail:
    def __init__(self, reading: Reading, topic: str, position: int) -> None:
        self._reading, self._topic, self._position = reading, topic, position

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        records = await self._reading.next(self._topic, self._position)
        self._position += len(records)
        lost = self._reading.lost if self._topic == EVENTS_TOPIC else frozenset[int]()
        return [record for record in records if record.offset not in lost]

    async def close(self) -> None:
        pass


class Past:
    """History: it has folded all below `position`, and further once someone waits for more. `fails`: what it answers
    next; `held`: nothing is answered until `let_go`."""

    def __init__(self, topics: Topics, page: int) -> None:
        self._topics, self._page = topics, page
        self.position = 0
        self.fails: list[GatewayError] = []
        self.held = False
        self._waits: list[asyncio.Future[None]] = []

    def let_go(self) -> None:
        self.held = False
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)
        self._waits.clear()

    async def positions(self) -> Positions:
        row = PartitionPositionView(
            partition=0, next_offset=self.position, epoch=self._topics.epoch_at(self.position), last_number=0
        )
        return Positions(partitions=(row,))

    async def facts(
        self,
        workspace_id: str,
        stream: str,
        after: int,
        limit: int = 500,
        order: str = "asc",
        min_position: Sequence[str] = (),
    ) -> tuple[list[Fact], Any]:
        """As `History.facts`."""
        if self.held:
            self._waits.append(asyncio.get_running_loop().create_future())
            await self._waits[-1]
        if self.fails:
            raise self.fails.pop()
        asked = max((int(position.partition(".")[2]) for position in min_position), default=0)
        if asked > len(self._topics.records[EVENTS_TOPIC]):
            raise Behind
        self.position = max(self.position, asked)
        stored = [fact for offset, fact in self._topics.facts.items() if offset < self.position]
        if not stored:
            raise Missing(stream)
        last = stored[-1].seq or 0
        if order == "desc":
            return [fact for fact in stored if (fact.seq or 0) < after][::-1][:limit], SimpleNamespace(last_seq=last)
        found = [fact for fact in stored if (fact.seq or 0) > after]
        return found[: min(limit, self._page)], SimpleNamespace(last_seq=last)


FAILURES = (Behind, lambda: Unavailable("away"))
"""What history answers when it does not."""

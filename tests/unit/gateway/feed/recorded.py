"""Stories as they stand on the two topics: under claims that come and go, with all that may become of records there.

Facts are sent twice, a superseded writer goes on for a while, pieces are lost, doubled, out of order and late, contents
lie on a shelf (`shelf`). `Topics` is what was written, in its order; `readings` has how it is read.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.codec import EVENTS_TOPIC, Fact, encode_fact
from parley_events.facts import ModelCalled, ModelFailed, ModelReturned, RunCancelled
from parley_events.large import OBJECTS_HEADER
from parley_events.log import Incoming, Outgoing
from parley_events.partition import partition_of
from parley_events.pieces import Piece, encode_pieces
from tests.unit.gateway.feed.shelf import Shelf
from tests.unit.gateway.feed.stories import THREAD, Story
from tests.unit.gateway.feed.test_texts import log_of

STALE = "what nobody may be shown"
PARTITIONS = 2

Place = tuple[int, int]
"""A partition and an offset."""


def part_of(thread: str) -> int:
    """The partition of a thread."""
    return partition_of(thread.encode(), PARTITIONS)


_IDS = [f"0f0f0f0f-1111-4222-8333-{number:012d}" for number in range(99)]
NEIGHBOUR = next(thread for thread in _IDS if part_of(thread) == part_of(THREAD))
"""Another thread of the same partition."""
ELSEWHERE = next(thread for thread in _IDS if part_of(thread) != part_of(THREAD))


@dataclass
class Topics:
    """`order`: (topic, record), as they were written; `facts`: what is to be believed, by its place, and `threads`, by
    its thread; `large`: the offsets of those whose contents lie elsewhere; `used`: the partitions in use."""

    order: list[tuple[str, Incoming]] = field(default_factory=list)
    facts: dict[Place, Fact] = field(default_factory=dict)
    threads: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    large: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    claims: set[Place] = field(default_factory=set)
    used: list[int] = field(default_factory=list)
    records: dict[tuple[str, int], list[Incoming]] = field(default_factory=lambda: defaultdict(list))
    """What has been written so far; `write` adds to it."""
    _ends: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    _written: int = 0

    def add(self, out: Outgoing) -> int:
        offset = self._ends[out.topic, out.partition]
        self._ends[out.topic, out.partition] = offset + 1
        record = Incoming(out.topic, out.partition, offset, 1000, out.key, out.value, out.headers)
        self.order.append((out.topic, record))
        if record.header(OBJECTS_HEADER) is not None:
            self.large[(record.key or b"").decode()].add(offset)
        return offset

    def claim(self, partition: int) -> int:
        body = f.PartitionClaimed(owner="w")
        epoch = self.add(encode_fact(Fact(body.type, "", None, -1, "", 0, body), partition))
        self.claims.add((partition, epoch))
        return epoch

    def believe(self, fact: Fact, record: Outgoing) -> None:
        """A fact of the writer that has the partition."""
        offset = self.add(record)
        self.facts[record.partition, offset] = fact = fact._replace(offset=offset)
        self.threads[fact.stream].append(fact)

    def write(self, count: int) -> None:
        """So many more of the records."""
        for topic, record in self.order[self._written : self._written + count]:
            self.records[topic, record.partition].append(record)
        self._written = min(self._written + count, len(self.order))

    def end(self, partition: int, topic: str = EVENTS_TOPIC) -> int:
        """The offset after what has been written."""
        return len(self.records[topic, partition])

    def epoch_at(self, partition: int, offset: int) -> int:
        """The claim in force below an offset."""
        return max((at for where, at in self.claims if where == partition and at < offset), default=-1)


def recorded(chance: random.Random, stories: Sequence[Story], shelf: Shelf) -> Topics:
    """The stories on the topics, as chance has it."""
    topics = Topics()
    told: dict[int, list[Story]] = defaultdict(list)
    for story in stories:
        told[part_of(story.thread)].append(story)
    topics.used = sorted(told)
    likely_large = chance.choice([0.0, 0.0, 0.2, 0.5])
    writings = [_writing(topics, chance, partition, told[partition], shelf, likely_large) for partition in topics.used]
    while writings:
        writing = chance.choice(writings)
        if next(writing, None) is None:
            writings.remove(writing)
    return topics


def _writing(
    topics: Topics, chance: random.Random, partition: int, stories: list[Story], shelf: Shelf, likely_large: float
) -> Iterator[Fact]:
    """Write one partition, fact by fact."""
    facts = _mixed(chance, stories)
    pieces = {story.thread: log_of(chance, story) for story in stories}
    epoch, stale = topics.claim(partition), list[Outgoing]()
    waiting: list[tuple[int, Piece]] = []
    sent: list[Outgoing] = []
    for place, told in enumerate(facts):
        likely = 0.5 if isinstance(told.body, ModelCalled) else 0.1
        if place and chance.random() < likely and _may_move(facts, place):
            stale += [_stale_fact(fact, epoch, partition) for fact in facts[place : place + chance.randint(0, 3)]]
            waiting[:0] = [
                (epoch, Piece(fact.stream, fact.seq or 0, block, "text", 0, STALE))
                for fact in facts[place : place + 3]
                if isinstance(fact.body, ModelCalled)
                for block in range(2)
            ]
            epoch, sent = topics.claim(partition), []
        fact = told._replace(epoch=epoch, workspace_id="w", causation_id=f"cause {told.stream} {told.seq}")
        large = likely_large > 0 and chance.random() < likely_large
        record = shelf.leave(fact, partition) if large else encode_fact(fact, partition)
        topics.believe(fact, record)
        sent.append(record)
        if chance.random() < 0.1:
            for again in sent[-chance.randint(1, 3) :]:
                topics.add(again)
        while stale and chance.random() < 0.5:
            topics.add(stale.pop(0))
        if isinstance(told.body, ModelCalled):
            waiting += [(epoch, piece) for piece in pieces[told.stream] if piece.call == told.seq]
        while waiting and chance.random() < 0.7:
            _batch(topics, chance, partition, waiting)
        yield fact
    while waiting:
        _batch(topics, chance, partition, waiting)


def _mixed(chance: random.Random, stories: list[Story]) -> list[Fact]:
    """The facts of several threads, each one's in order."""
    left = [list(story.facts) for story in stories]
    mixed: list[Fact] = []
    while any(left):
        mixed.append(chance.choice([facts for facts in left if facts]).pop(0))
    return mixed


def _batch(topics: Topics, chance: random.Random, partition: int, waiting: list[tuple[int, Piece]]) -> None:
    """One record of what waits, most often of what has waited longest."""
    at = 0 if chance.random() < 0.8 else chance.randrange(len(waiting))
    epoch, batch = waiting[at][0], list[Piece]()
    for _ in range(chance.randint(1, 3)):
        if at < len(waiting) and waiting[at][0] == epoch:
            batch.append(waiting.pop(at)[1])
    topics.add(encode_pieces(partition, epoch, batch))


def _may_move(facts: list[Fact], place: int) -> bool:
    """Whether another may take the partition before this fact: no call goes on over that."""
    open_ = {(fact.stream, fact.seq) for fact in facts[:place] if isinstance(fact.body, ModelCalled)}
    ends = (
        (fact.stream, fact.body.call)
        for fact in facts[place:]
        if isinstance(fact.body, ModelReturned | ModelFailed | RunCancelled)
    )
    return open_.isdisjoint(ends)


def _stale_fact(fact: Fact, epoch: int, partition: int) -> Outgoing:
    """What a superseded writer writes in the place of a fact: the same call with other words to come, or nonsense."""
    body = fact.body if isinstance(fact.body, ModelCalled) else f.ThreadUpdated(title=STALE, changes=("title",))
    stale = fact._replace(type=body.type, body=body, epoch=epoch, workspace_id="w", call=None)
    return encode_fact(stale, partition)

"""One gateway of a stage: its hub and its channels, which are the real ones, and perhaps those who watch what the hub
passes on. It reads what the script releases."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.pieces import DELTAS_TOPIC, Piece
from parley_gateway.feed.channel import Channels
from parley_gateway.feed.hub import CONTENTS_S, Hub
from parley_gateway.feed.listener import Counts, HubLimits, Listener
from parley_gateway.feed.many_channel import ManyChannels
from parley_gateway.feed.rotation import Rotation
from parley_gateway.told import Told
from tests.unit.gateway.feed.readings import Reading
from tests.unit.gateway.feed.recorded import Place, Topics, part_of

if TYPE_CHECKING:
    from tests.unit.gateway.feed.stage import Stage


class Gateway:
    """See the module."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.topics, self.now = stage.topics, stage.loop.time
        back = chance.choice([0, 0, chance.randint(0, self.topics.end(stage.partition, DELTAS_TOPIC))])
        # A gap in a thread shows at its next fact, and a cursor over many threads may have gone past it by then.
        loses = chance.random() < 0.3 and not stage.many
        self.reading = Reading(self.topics, _lost(chance, self.topics) if loses else frozenset(), back)
        limits = HubLimits(queue_items=chance.choice([3, 10, 20_000]), kept_bytes=chance.choice([0, 400, 1 << 26]))
        opened: Callable[[], Awaitable[Any]] = self._open
        self.hub = Hub(opened, stage.past.positions, lambda: 0, limits, Contents(stage.shelf))
        self.channels, self.many_channels = Channels(), ManyChannels()
        self.rotation = Rotation(chance.random)
        settings = SimpleNamespace(beat_s=chance.choice([1.0, 15.0]), stall_s=30.0, queue_mb=chance.choice([0.002, 16]))
        self.core: Any = SimpleNamespace(
            hub=self.hub,
            history=stage.past,
            channels=self.channels,
            many_channels=self.many_channels,
            settings=settings,
            sender=SimpleNamespace(told=Told()),
            instruments=SimpleNamespace(first_delta=lambda made: None),
            rotation=self.rotation,
        )
        self.task = stage.loop.create_task(self.hub.run())
        self._watched = list(self.topics.threads) if chance.random() < 0.3 else []
        self._witnesses: list[Witness] = []

    async def _open(self) -> Reading:
        return self.reading

    @property
    def up(self) -> bool:
        """Whether it has begun to read."""
        return self.hub.log is not None

    @property
    def takes(self) -> bool:
        """Whether clients may come."""
        return self.up and not self.hub.draining

    def release(self, events: int, pieces: int, partitions: list[int]) -> None:
        for partition in partitions:
            self.reading.release(EVENTS_TOPIC, partition, events)
            self.reading.release(DELTAS_TOPIC, partition, pieces)

    def has_read(self, place: Place) -> bool:
        return self.up and self.hub.reached[place[0]] > place[1]

    def drain(self, window_s: float) -> None:
        """As the application does when it is told to stop."""
        self.hub.draining = True
        self.rotation.begin(window_s, self.hub.drain)

    def stop(self) -> None:
        """It is gone, whoever is connected."""
        self.dismiss()
        self.rotation.stop()
        self.task.cancel()

    # ---- what the hub passes on

    def look(self, *, whole: bool = False) -> None:
        """See whether everybody heard what they should have by now; `whole`: nothing is late any more."""
        if self.up and self._watched:
            self._witnesses = [Witness(self, thread) for thread in self._watched]
            self._watched = []
        for witness in self._witnesses:
            witness.look(whole=whole)

    def dismiss(self) -> None:
        """Nobody watches it any more."""
        self._watched = []
        for witness in self._witnesses:
            self.hub.leave(witness.listener)


class Witness:
    """Hears all facts of a thread as its hub passes them on."""

    def __init__(self, gateway: Gateway, thread: str) -> None:
        self._gateway, self._partition = gateway, part_of(thread)
        self.listener = Listener(thread, HubLimits(), "", True, Counts())
        gateway.hub.attend(self.listener)
        self._from = gateway.hub.reached[self._partition]
        self._offsets: list[int] = []
        self._late: tuple[int, float] = (-1, 0.0)
        """The first fact that was late, and since when."""

    def look(self, *, whole: bool) -> None:
        """What it heard are facts that are to be believed, whole, in their order; and none is late but those whose
        contents are, and what follows them in their own thread."""
        topics, hub = self._gateway.topics, self._gateway.hub
        facts = topics.threads[self.listener.stream]
        for fact in self.listener.grab():
            if not isinstance(fact, Piece):
                assert fact.body == facts[(fact.seq or 0) - 1].body
                self._offsets.append(fact.offset or 0)
        heard, reached = set(self._offsets), hub.reached[self._partition]
        assert self._offsets == sorted(heard), "a fact was overtaken by a later one of its thread"
        if self.listener.closed:
            return
        due = [fact.offset or 0 for fact in facts if self._from <= (fact.offset or 0) < reached]
        late = [at for at in due if at not in heard and (self._partition, at) not in self._gateway.reading.lost]
        if late:
            waits = any(at <= late[0] and at not in heard for at in topics.large[self.listener.stream])
            assert waits and not whole, "a fact is held up"
            if self._late[0] != late[0]:
                self._late = (late[0], self._gateway.now())
            # Beside the pauses of whoever tries again.
            assert self._gateway.now() - self._late[1] < CONTENTS_S + 5.0, "it is waited for too long"


def _lost(chance: random.Random, topics: Topics) -> frozenset[Place]:
    """Some facts that a gateway does not hear of: none after which nothing would tell that there is a gap."""
    last = {fact.offset for facts in topics.threads.values() for fact in facts[-1:]}
    losable = [place for place, fact in topics.facts.items() if not fact.type.startswith("run.c")]
    return frozenset(place for place in losable if place[1] not in last and chance.random() < 0.1)

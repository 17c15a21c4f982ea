"""The log under test, in three kinds: `kafka` (a broker shared by all tests), `embedded` (SQLite), `memory`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from parley_events.clock import system_clock
from parley_events.log import Log
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.kafka import KafkaLog
from parley_events.log.kafka_topics import apply_topics
from parley_standalone.parts.kafka import Kafka
from tests.support.kafka import brokers

PARTITIONS = 4
_names = itertools.count()


@dataclass
class Hand:
    """A clock that the test moves."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_ms


@dataclass
class Place:
    """An open log, and what a test may do to it from outside."""

    kind: str
    log: Log
    bootstrap: str = ""
    prefix: str = ""
    clock: Hand = field(default_factory=Hand)

    async def forget_below(self, topic: str, partition: int, offset: int) -> None:
        """Let retention delete the first records of a partition, all but the newest at most."""
        if isinstance(self.log, EmbeddedLog):
            self.clock.ahead_ms += 15 * 86_400_000
            self.log.retire()
        else:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                place = TopicPartition(self.prefix + topic, partition)
                await admin.delete_records({place: RecordsToDelete(before_offset=offset)})
            finally:
                await admin.close()
        async with asyncio.timeout(20):
            while (await self.log.begins(topic))[partition] != offset:
                await asyncio.sleep(0.01)


@pytest.fixture(params=["kafka", "embedded", "memory"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "kafka":
        broker: Kafka = request.getfixturevalue("kafka")
        prefix = f"t{next(_names)}."
        await apply_topics(broker.bootstrap, PARTITIONS, prefix=prefix)
        opened: Log = await KafkaLog.open(broker.bootstrap, prefix=prefix)
        made = Place("kafka", opened, broker.bootstrap, prefix)
    else:
        clock = Hand()
        folder = tmp_path / "log" if request.param == "embedded" else None
        opened = await EmbeddedLog.open(folder, PARTITIONS, clock)
        made = Place(request.param, opened, clock=clock)
    yield made
    await asyncio.wait_for(opened.close(), 20)


@pytest.fixture
def log(place: Place) -> Log:
    return place.log


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that the tests of one module may stop, kill and start again."""
    with brokers(tmp_path_factory.mktemp("own")) as start:
        yield start()

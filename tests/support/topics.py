"""Kafka's topics as they are: read whole and written to with plain aiokafka, past every rule of Parley's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

CLAIM = "partition.claimed"


@dataclass(frozen=True, slots=True)
class Record:
    """One record, with its headers by name."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    def head(self, name: str) -> str:
        """A header as text; empty when there is none."""
        return self.headers.get(name, b"").decode("utf-8", "replace")

    @property
    def type(self) -> str:
        return self.head("ce_type")

    @property
    def epoch(self) -> int:
        """The epoch of a fact, or of a batch of pieces."""
        return int(self.head("ce_epoch") or self.head("epoch"))

    @property
    def body(self) -> Any:
        return json.loads(self.value or b"null")


async def read_topic(bootstrap: str, topic: str, partition: int | None = None) -> list[Record]:
    """All that is on a topic, or on one partition of it, now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        cluster = await consumer._client.fetch_all_metadata()
        numbers = cluster.partitions_for_topic(topic) if partition is None else {partition}
        parts = [TopicPartition(topic, number) for number in sorted(numbers)]
        ends = await consumer.end_offsets(parts)
        begins = await consumer.beginning_offsets(parts)
        wanted = [part for part in parts if begins[part] < ends[part]]
        if not wanted:
            return []
        consumer.assign(wanted)
        for part in wanted:
            consumer.seek(part, begins[part])
        found: list[Record] = []
        while wanted:
            for part, batch in (await consumer.getmany(*wanted, timeout_ms=1000)).items():
                found += [
                    Record(r.partition, r.offset, r.timestamp, r.key, r.value, dict(r.headers))
                    for r in batch
                    if r.offset < ends[part]
                ]
            wanted = [part for part in wanted if await consumer.position(part) < ends[part]]
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        await consumer.stop()


async def put(
    bootstrap: str,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> int:
    """Write one record; its offset."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        sent = await producer.send_and_wait(topic, value, key, partition, headers=list(headers))
        return int(sent.offset)
    finally:
        await producer.stop()


def claims(events: Iterable[Record], partition: int) -> list[Record]:
    """The claims on a partition, oldest first."""
    return [record for record in events if record.partition == partition and record.type == CLAIM]


def owner_pid(events: Iterable[Record], partition: int) -> int:
    """The process that claimed a partition last."""
    return int(claims(events, partition)[-1].body["owner"].rpartition("-")[2])


def believed(events: Iterable[Record]) -> list[Record]:
    """The facts that count, told apart here by hand: those of the newest claim before them, each seq once."""
    epochs: dict[int, int] = {}
    seen: set[tuple[str, str]] = set()
    found = []
    for record in events:
        if record.type == CLAIM:
            epochs[record.partition] = record.offset
        elif record.epoch == epochs.get(record.partition):
            place = (record.head("ce_subject"), record.head("ce_seq"))
            if not place[1] or place not in seen:
                seen.add(place)
                found.append(record)
    return found

"""The Kafka log: the log port on aiokafka. This module and the `kafka_…` beside it are its only importers.

    kafka           opening, positions
    kafka_tail      reading from given offsets
    kafka_group     reading in a group
    kafka_consumer  what both of them need
    kafka_producer  sends in order, batch by batch, and breaks whole
    kafka_topics    making and checking topics
    kafka_records   batches that aiokafka cannot read
    handover        who gets which partition; pure

aiokafka's traps, and where each is met (upstream's issue numbers): serializers are never passed; a dead fetch task is
raised out of `batch` instead of idling for ever (#983, #1154); `getmany` ignores its time-out during a rebalance, so it
runs in a task of its own; positions of all partitions are set again after every assignment; commits are bounded;
`auto_offset_reset` is `none` for tails, so that a gap is an error and not a jump; only one assignor is given. An error
out of `getmany` loses what it had read of other partitions: positions are set back to where they were before.

Times: Kafka takes no session time-out below 6 s by default (`group.min.session.timeout.ms`), so that is ours; a member
says that it is alive twelve times in it, which is also how soon it hears of a rebalance.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from parley_events.errors import LogUnavailable, TopicMismatch
from parley_events.log.kafka_address import client_options
from parley_events.log.kafka_consumer import ended, in_time, keep_commits_out_of_joins, started, stop
from parley_events.log.kafka_group import Handover, KafkaGroup, Listener
from parley_events.log.kafka_producer import KafkaProducer
from parley_events.log.kafka_tail import KafkaTail
from parley_events.log.pace import BATCHES_PER_S, Pace
from parley_events.log.port import OnAssigned, OnRevoked, OnWanted
from parley_events.quiet import quieten
from parley_events.topics import MAX_PARTITIONS, MAX_RECORD_BYTES, TOPICS

_log = logging.getLogger(__name__)
_OPEN_S = 20.0
_FETCH_BYTES = MAX_RECORD_BYTES + 1024 * 1024


def _quieten() -> None:
    """aiokafka writes hundreds of lines during an outage."""
    quieten("aiokafka", 10)


class KafkaLog:
    """See `port.Log`. `prefix` stands before every topic's name (tests share a broker)."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        prefix: str,
        session_ms: int,
        batches_per_s: float,
        partitions: int,
        asker: AIOKafkaConsumer,
    ) -> None:
        self._bootstrap, self._client_id, self._prefix = bootstrap, client_id, prefix
        self._session_ms, self._batches_per_s = session_ms, batches_per_s
        self._partitions, self._asker = partitions, asker
        self._admin: AIOKafkaAdminClient | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        bootstrap: str,
        *,
        client_id: str = "parley",
        prefix: str = "",
        session_ms: int = 6000,
        batches_per_s: float = BATCHES_PER_S,
    ) -> KafkaLog:
        """Connect, and check that every topic is there with the same number of partitions. `batches_per_s`: of each
        producer; with more to send they grow (`pace`). Raises LogUnavailable, TopicMismatch."""
        _quieten()
        asker = AIOKafkaConsumer(
            **client_options(bootstrap), client_id=client_id, group_id=None, enable_auto_commit=False
        )
        try:
            await in_time(asker.start(), _OPEN_S)
            counts = {}
            cluster = await in_time(asker._client.fetch_all_metadata())
            for topic in TOPICS:
                found = cluster.partitions_for_topic(prefix + topic)
                if not found:
                    raise TopicMismatch(f"the topic {prefix}{topic} is missing: python -m parley_events topics apply")
                counts[topic] = len(found)
        except BaseException:
            await stop(asker)
            raise
        if len(set(counts.values())) != 1 or max(counts.values()) > MAX_PARTITIONS:
            await stop(asker)
            raise TopicMismatch(f"all topics must have the same number of partitions, at most 256: {counts}")
        return cls(bootstrap, client_id, prefix, session_ms, batches_per_s, next(iter(counts.values())), asker)

    @property
    def partitions(self) -> int:
        return self._partitions

    async def producer(self) -> KafkaProducer:
        producer = KafkaProducer(self._bootstrap, self._client_id, self._prefix, Pace(self._batches_per_s))
        await producer.start()
        return producer

    async def tail(self, topic: str, starts: Mapping[int, int]) -> KafkaTail:
        consumer = AIOKafkaConsumer(
            **client_options(self._bootstrap),
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=500,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=4 * _FETCH_BYTES,
        )
        await started(consumer, _OPEN_S)
        tail = KafkaTail(self, topic, self._prefix + topic, consumer)
        for partition, offset in starts.items():
            tail.add(partition, offset)
        return tail

    async def group(
        self,
        topic: str,
        group_id: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        on_wanted: OnWanted | None = None,
    ) -> KafkaGroup:
        handover = Handover(self._prefix + topic)
        consumer = AIOKafkaConsumer(
            **client_options(self._bootstrap),
            client_id=self._client_id,
            group_id=self._prefix + group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(handover,),
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=max(self._session_ms // 12, 200),
            rebalance_timeout_ms=10_000,
            max_poll_interval_ms=300_000,
            fetch_max_wait_ms=500,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=4 * _FETCH_BYTES,
        )
        group = KafkaGroup(topic, self._prefix + topic, consumer, handover)
        listener = Listener(on_assigned, on_revoked, on_wanted or group.give, handover)
        consumer.subscribe([self._prefix + topic], listener=listener)
        await started(consumer, 40.0)
        keep_commits_out_of_joins(consumer)
        return group

    async def begins(self, topic: str) -> dict[int, int]:
        return await self._offsets(self._asker.beginning_offsets(self._all(topic)))

    async def ends(self, topic: str) -> dict[int, int]:
        return await self._offsets(self._asker.end_offsets(self._all(topic)))

    async def committed(self, topic: str, group_id: str) -> dict[int, int]:
        begins = await self.begins(topic)
        try:
            if self._admin is None:
                self._admin = AIOKafkaAdminClient(**client_options(self._bootstrap), client_id=self._client_id)
                await in_time(self._admin.start())
            found = await in_time(self._admin.list_consumer_group_offsets(self._prefix + group_id))
        except BaseException:
            # A client that was cut off does not always find its way back: the next one to ask gets a new one.
            await self._close_admin()
            raise
        offsets = {part.partition: entry.offset for part, entry in found.items() if part.topic == self._prefix + topic}
        return {partition: max(offsets.get(partition, begin), begin) for partition, begin in begins.items()}

    async def _close_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await ended(admin.close(), 1.0)

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        ends = await self.ends(topic)
        found = await in_time(self._asker.offsets_for_times(dict.fromkeys(self._all(topic), time_ms)))
        return {
            part.partition: ends[part.partition] if entry is None else int(entry.offset)
            for part, entry in found.items()
        }

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._close_admin()
            await stop(self._asker)

    def _all(self, topic: str) -> list[TopicPartition]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        return [TopicPartition(self._prefix + topic, p) for p in range(self._partitions)]

    async def _offsets(self, asked: Awaitable[Mapping[Any, int]]) -> dict[int, int]:
        return {part.partition: offset for part, offset in (await in_time(asked)).items()}

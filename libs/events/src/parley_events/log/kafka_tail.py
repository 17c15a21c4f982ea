"""Reading Kafka from given offsets, of given partitions; a gap is an error and not a jump."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError

from parley_events.errors import LogError, LogUnavailable, RetentionGap
from parley_events.log.kafka_consumer import POLL_S, check_alive, stop
from parley_events.log.kafka_records import forgive
from parley_events.log.port import Incoming

if TYPE_CHECKING:
    from parley_events.log.kafka import KafkaLog

_log = logging.getLogger(__name__)


class KafkaTail:
    """See `port.Tail`."""

    def __init__(self, log: KafkaLog, topic: str, name: str, consumer: AIOKafkaConsumer) -> None:
        self._log, self._topic, self._name, self._consumer = log, topic, name, consumer
        self._positions: dict[int, int] = {}
        self._changed = asyncio.Event()

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        if not self._positions:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            return ()
        check_alive(self._consumer)
        try:
            found = await self._consumer.getmany(timeout_ms=int(min(timeout_s, POLL_S) * 1000), max_records=limit)
        except OffsetOutOfRangeError:
            await self._explain_gap()
            return ()
        except (KafkaError, UnicodeDecodeError) as error:
            _log.warning("reading %s: %s", self._topic, type(error).__name__)
            if isinstance(error, CorruptRecordException | UnicodeDecodeError):
                forgive()
            self._assign()
            await asyncio.sleep(0.2)
            return ()
        records: list[Incoming] = []
        for part, batch in found.items():
            position = self._positions.get(part.partition)
            for record in batch:
                # What was fetched before the partition was moved or removed is not returned any more.
                if position is None or record.offset < position:
                    continue
                records.append(_incoming(self._topic, record))
                position = record.offset + 1
            if position is not None:
                self._positions[part.partition] = position
        return records

    def add(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset
        self._assign()

    def remove(self, partition: int) -> None:
        if self._positions.pop(partition, None) is not None:
            self._assign()

    def position(self, partition: int) -> int:
        return self._positions[partition]

    async def close(self) -> None:
        await stop(self._consumer)

    def _assign(self) -> None:
        """aiokafka forgets every position at each assignment: all are set again."""
        parts = {p: TopicPartition(self._name, p) for p in self._positions}
        self._consumer.assign(list(parts.values()))
        for partition, part in parts.items():
            self._consumer.seek(part, self._positions[partition])
        self._changed.set()

    async def _explain_gap(self) -> None:
        try:
            begins = await self._log.begins(self._topic)
            ends = await self._log.ends(self._topic)
        except LogUnavailable:
            return  # the position is asked for again, and so is this
        for partition, position in self._positions.items():
            if position < begins[partition]:
                raise RetentionGap(self._topic, partition, position, begins[partition])
            if position > ends[partition]:
                raise LogError(
                    f"{self._topic}[{partition}] ends at {ends[partition]}, but {position} was read before: "
                    "the topic is not the one it was"
                )
        self._assign()


def _incoming(topic: str, record: Any) -> Incoming:
    return Incoming(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )

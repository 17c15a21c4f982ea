"""The Kafka log: the log port on aiokafka. This module and the `kafka_…` beside it are its only importers.

    kafka           opening, positions, tails, groups
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

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest

from parley_events.errors import LogError, LogUnavailable, RetentionGap, TopicMismatch
from parley_events.log.handover import Held, Share, shares
from parley_events.log.kafka_address import client_options
from parley_events.log.kafka_producer import KafkaProducer
from parley_events.log.kafka_records import forgive
from parley_events.log.pace import BATCHES_PER_S, Pace
from parley_events.log.port import Incoming, OnAssigned, OnRevoked, OnWanted
from parley_events.quiet import quieten
from parley_events.topics import MAX_PARTITIONS, MAX_RECORD_BYTES, TOPICS

_log = logging.getLogger(__name__)
_ANSWER_S = 5.0
_OPEN_S = 20.0
_POLL_S = 0.5
_FETCH_BYTES = MAX_RECORD_BYTES + 1024 * 1024
Answer = TypeVar("Answer")


async def _in_time(work: Awaitable[Answer], limit_s: float = _ANSWER_S) -> Answer:
    """The answer, or LogUnavailable when the broker does not give one in time."""
    try:
        return await asyncio.wait_for(work, limit_s)
    except TimeoutError:
        raise LogUnavailable(f"Kafka did not answer within {limit_s:g} s") from None
    except (KafkaError, OSError) as error:
        raise LogUnavailable(f"Kafka: {type(error).__name__}") from error


async def _started(consumer: AIOKafkaConsumer, limit_s: float) -> None:
    """Start a consumer; what could not be started leaves nothing behind."""
    try:
        await _in_time(consumer.start(), limit_s)
    except BaseException:
        await _stop(consumer)
        raise


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, in time and whole. While the broker is away aiokafka's own `stop` waits for long, or breaks off
    with the cancellation of one of its tasks as if it were ours: what it leaves is ended here."""
    if await _ended(consumer.stop(), _ANSWER_S):
        return
    tasks = {getattr(consumer._fetcher, "_fetch_task", None), *getattr(consumer._fetcher, "_pending_tasks", ())}
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task"):
        tasks.add(getattr(consumer._coordinator, name, None))
    left = {task for task in tasks if task is not None and not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)
    await _ended(consumer._client.close(), 1.0)


async def _ended(work: Coroutine[Any, Any, Any], limit_s: float) -> bool:
    """Whether the work came to a good end in time; else it is cancelled."""
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=limit_s)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        return False
    return not task.cancelled() and task.exception() is None


def _keep_commits_out_of_joins(consumer: AIOKafkaConsumer) -> None:
    """A commit that is sent while the group is joined again names no generation, or the one before, and is refused.
    aiokafka then forgets what it was just told and joins as yet another member, for which everyone waits until the one
    that it was has expired: with a commit each second that never ends, and the whole group stands still with it."""
    coordinator, send = consumer._coordinator, consumer._coordinator._do_commit_offsets

    async def outside(assignment: Any, offsets: Any) -> None:
        if consumer._subscription.reassignment_in_progress or coordinator.generation < 0:
            raise RebalanceInProgressError
        await send(assignment, offsets)

    coordinator._do_commit_offsets = outside


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
            await _in_time(asker.start(), _OPEN_S)
            counts = {}
            cluster = await _in_time(asker._client.fetch_all_metadata())
            for topic in TOPICS:
                found = cluster.partitions_for_topic(prefix + topic)
                if not found:
                    raise TopicMismatch(f"the topic {prefix}{topic} is missing: python -m parley_events topics apply")
                counts[topic] = len(found)
        except BaseException:
            await _stop(asker)
            raise
        if len(set(counts.values())) != 1 or max(counts.values()) > MAX_PARTITIONS:
            await _stop(asker)
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
        await _started(consumer, _OPEN_S)
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
        handover = _Handover(self._prefix + topic)
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
        listener = _Listener(on_assigned, on_revoked, on_wanted or group.give, handover)
        consumer.subscribe([self._prefix + topic], listener=listener)
        await _started(consumer, 40.0)
        _keep_commits_out_of_joins(consumer)
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
                await _in_time(self._admin.start())
            found = await _in_time(self._admin.list_consumer_group_offsets(self._prefix + group_id))
        except BaseException:
            # A client that was cut off does not always find its way back: the next one to ask gets a new one.
            await self._close_admin()
            raise
        offsets = {part.partition: entry.offset for part, entry in found.items() if part.topic == self._prefix + topic}
        return {partition: max(offsets.get(partition, begin), begin) for partition, begin in begins.items()}

    async def _close_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await _ended(admin.close(), 1.0)

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        ends = await self.ends(topic)
        found = await _in_time(self._asker.offsets_for_times(dict.fromkeys(self._all(topic), time_ms)))
        return {
            part.partition: ends[part.partition] if entry is None else int(entry.offset)
            for part, entry in found.items()
        }

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._close_admin()
            await _stop(self._asker)

    def _all(self, topic: str) -> list[TopicPartition]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        return [TopicPartition(self._prefix + topic, p) for p in range(self._partitions)]

    async def _offsets(self, asked: Awaitable[Mapping[Any, int]]) -> dict[int, int]:
        return {part.partition: offset for part, offset in (await _in_time(asked)).items()}


def _incoming(topic: str, record: Any) -> Incoming:
    return Incoming(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )


def _foreign(topic: str, record: Any) -> Incoming:
    """A record that anybody may have written: Kafka knows headers without a value, the port does not."""
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Incoming(topic, record.partition, record.offset, record.timestamp, record.key, record.value, headers)


def _check_alive(consumer: AIOKafkaConsumer) -> None:
    """Raise when one of aiokafka's own tasks has died: it would idle for ever and say nothing (#983, #1154)."""
    fetcher = consumer._fetcher
    if fetcher is not None and fetcher._fetch_task.done():
        raise LogUnavailable("aiokafka's fetch task is dead")
    coordinator = consumer._coordinator
    task = getattr(coordinator, "_coordination_task", None)
    if task is not None and task.done():
        raise LogUnavailable("aiokafka's group coordination task is dead")


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
        _check_alive(self._consumer)
        try:
            found = await self._consumer.getmany(timeout_ms=int(min(timeout_s, _POLL_S) * 1000), max_records=limit)
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
        await _stop(self._consumer)

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


class _Handover:
    """The assignor of one member (see `handover`), in the shape in which aiokafka calls one."""

    name = "parley-handover-1"

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.share = Share(-1, frozenset())

    def metadata(self, topics: Any) -> ConsumerProtocolMemberMetadata:
        held = Held(self.share.round, self.share.partitions)
        return ConsumerProtocolMemberMetadata(0, list(topics), held.encode())

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        partitions = cluster.partitions_for_topic(self._topic) or ()
        held = {name: Held.decode(member.user_data) for name, member in members.items()}
        return {
            name: ConsumerProtocolMemberAssignment(
                0, [(self._topic, sorted(share.partitions))] if share.partitions else [], share.encode()
            )
            for name, share in shares(partitions, held).items()
        }

    def on_assignment(self, assignment: Any) -> None:
        partitions = [part.partition for part in assignment.partitions()]
        self.share = Share.decode(partitions, assignment.user_data)

    def give(self, partitions: frozenset[int]) -> bool:
        """Let go of partitions; whether there was anything to let go of."""
        share = self.share
        kept = share.partitions - partitions
        self.share = Share(share.round, kept, share.wanted - partitions)
        return kept != share.partitions


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self, on_assigned: OnAssigned, on_revoked: OnRevoked, on_wanted: OnWanted, handover: _Handover
    ) -> None:
        self._on_assigned, self._on_revoked, self._on_wanted = on_assigned, on_revoked, on_wanted
        self._handover = handover

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._on_assigned(frozenset(part.partition for part in assigned))
        # Not within the rebalance: what is given at once would begin the next one before this one has ended.
        asyncio.get_running_loop().call_later(0.05, self._ask)

    def _ask(self) -> None:
        self._on_wanted(self._handover.share.wanted)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            await self._on_revoked(frozenset(part.partition for part in revoked))


class KafkaGroup:
    """See `port.Group`."""

    def __init__(self, topic: str, name: str, consumer: AIOKafkaConsumer, handover: _Handover) -> None:
        self._topic, self._name, self._consumer, self._handover = topic, name, consumer, handover
        self._polling: asyncio.Task[Any] | None = None
        self._polled_from: tuple[Any, dict[TopicPartition, int]] = (None, {})
        self._closed = False

    async def batch(self, timeout_s: float = 1.0, limit: int = 500) -> Sequence[Incoming]:
        _check_alive(self._consumer)
        if self._polling is None:
            self._polled_from = self._positions()
            # During a rebalance getmany waits for as long as that takes: it runs apart, and is asked again later.
            self._polling = asyncio.create_task(
                self._consumer.getmany(timeout_ms=int(min(timeout_s, _POLL_S) * 1000), max_records=limit)
            )
        done, _ = await asyncio.wait({self._polling}, timeout=timeout_s)
        if not done:
            return ()
        polled, self._polling = self._polling, None
        try:
            found = polled.result()
        except (KafkaError, UnicodeDecodeError) as error:
            _log.warning("reading %s: %s", self._topic, type(error).__name__)
            if isinstance(error, CorruptRecordException | UnicodeDecodeError):
                forgive()
            await self._set_back()
            await asyncio.sleep(0.2)
            return ()
        return [
            _foreign(self._topic, record)
            for part, batch in found.items()
            if self._still_after(part, batch[0].offset, batch[-1].offset)
            for record in batch
        ]

    def _positions(self) -> tuple[Any, dict[TopicPartition, int]]:
        """The assignment, and where its partitions stand."""
        subscription = self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return None, {}
        states = {part: assignment.state_value(part) for part in assignment.tps}
        return assignment, {part: state.position for part, state in states.items() if state.has_valid_position}

    async def _set_back(self) -> None:
        """Read again what a poll that failed may have taken; after a rebalance everything is read again anyway."""
        before, positions = self._polled_from
        assignment, now = self._positions()
        if assignment is not before:
            return
        for part in now:
            if part in positions:
                self._consumer.seek(part, positions[part])
            else:
                with suppress(LogUnavailable):
                    await self.rewind(part.partition)

    def _still_after(self, part: TopicPartition, first: int, last: int) -> bool:
        """Whether the partition still stands behind these records. It was polled by a task of its own: meanwhile it may
        have been revoked, or set back (then it comes again, in order), or paused (then it must come again)."""
        subscription = self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or part not in assignment.tps:
            return False
        state = assignment.state_value(part)
        if not state.has_valid_position or state.position <= last:
            return False
        if state.paused:
            self._consumer.seek(part, first)
            return False
        return True

    def pause(self, partition: int) -> None:
        part = TopicPartition(self._name, partition)
        if part in self._consumer.assignment():
            self._consumer.pause(part)

    def resume(self, partition: int) -> None:
        part = TopicPartition(self._name, partition)
        if part in self._consumer.assignment():
            self._consumer.resume(part)

    def give(self, partitions: frozenset[int]) -> None:
        if not self._closed and self._handover.give(partitions):
            self._consumer._coordinator.request_rejoin()

    async def committed(self, partition: int) -> int:
        part = TopicPartition(self._name, partition)
        offset = await _in_time(self._consumer.committed(part))
        if offset is None:
            offset = (await _in_time(self._consumer.beginning_offsets([part])))[part]
        return int(offset)

    async def owns(self, partition: int) -> bool:
        part = TopicPartition(self._name, partition)
        if self._rebalancing:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await self._consumer._subscription.wait_for_assignment()
        coordinator = self._consumer._coordinator
        # A heartbeat of our own: aiokafka's commits, which would say the same, leave the group when they are refused.
        asked = HeartbeatRequest(coordinator.group_id, coordinator.generation, coordinator.member_id)
        answer = await _in_time(coordinator._send_req(asked))
        counted = for_code(answer.error_code) in (NoError, RebalanceInProgressError)
        return counted and not self._rebalancing and part in self._consumer.assignment()

    @property
    def _rebalancing(self) -> bool:
        subscription = self._consumer._subscription.subscription
        return subscription is None or bool(subscription._reassignment_in_progress)

    async def rewind(self, partition: int) -> None:
        part = TopicPartition(self._name, partition)
        offset = await self.committed(partition)
        if part in self._consumer.assignment():
            self._consumer.seek(part, offset)

    async def commit(self, offsets: Mapping[int, int]) -> None:
        assigned = self._consumer.assignment()
        mine = {
            part: OffsetAndMetadata(offset, "")
            for part, offset in ((TopicPartition(self._name, p), o) for p, o in offsets.items())
            if part in assigned
        }
        if mine:
            await _in_time(self._consumer.commit(mine))

    def assignment(self) -> frozenset[int]:
        return frozenset(part.partition for part in self._consumer.assignment())

    async def close(self) -> None:
        self._closed = True
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling}, timeout=1.0)
            self._polling = None
        await _stop(self._consumer)

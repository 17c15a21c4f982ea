"""Reading Kafka in a group: partitions come and go, and what was committed is where the next one begins.

`handover` says who gets which partition; here it is told in Kafka's words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import CorruptRecordException, KafkaError, NoError, RebalanceInProgressError, for_code
from aiokafka.protocol.group import HeartbeatRequest

from parley_events.errors import LogUnavailable
from parley_events.log.handover import Held, Share, shares
from parley_events.log.kafka_consumer import ANSWER_S, POLL_S, check_alive, in_time, stop
from parley_events.log.kafka_records import forgive
from parley_events.log.port import Incoming, OnAssigned, OnRevoked, OnWanted

_log = logging.getLogger(__name__)


class Handover:
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


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """What a rebalance brings, told in the port's words."""

    def __init__(self, on_assigned: OnAssigned, on_revoked: OnRevoked, on_wanted: OnWanted, handover: Handover) -> None:
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

    def __init__(self, topic: str, name: str, consumer: AIOKafkaConsumer, handover: Handover) -> None:
        self._topic, self._name, self._consumer, self._handover = topic, name, consumer, handover
        self._polling: asyncio.Task[Any] | None = None
        self._polled_from: tuple[Any, dict[TopicPartition, int]] = (None, {})
        self._closed = False

    async def batch(self, timeout_s: float = 1.0, limit: int = 500) -> Sequence[Incoming]:
        check_alive(self._consumer)
        if self._polling is None:
            self._polled_from = self._positions()
            # During a rebalance getmany waits for as long as that takes: it runs apart, and is asked again later.
            self._polling = asyncio.create_task(
                self._consumer.getmany(timeout_ms=int(min(timeout_s, POLL_S) * 1000), max_records=limit)
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
        offset = await in_time(self._consumer.committed(part))
        if offset is None:
            offset = (await in_time(self._consumer.beginning_offsets([part])))[part]
        return int(offset)

    async def owns(self, partition: int) -> bool:
        part = TopicPartition(self._name, partition)
        if self._rebalancing:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await self._consumer._subscription.wait_for_assignment()
        coordinator = self._consumer._coordinator
        # A heartbeat of our own: aiokafka's commits, which would say the same, leave the group when they are refused.
        asked = HeartbeatRequest(coordinator.group_id, coordinator.generation, coordinator.member_id)
        answer = await in_time(coordinator._send_req(asked))
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
            await in_time(self._consumer.commit(mine))

    def assignment(self) -> frozenset[int]:
        return frozenset(part.partition for part in self._consumer.assignment())

    async def close(self) -> None:
        self._closed = True
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling}, timeout=1.0)
            self._polling = None
        await stop(self._consumer)


def _foreign(topic: str, record: Any) -> Incoming:
    """A record that anybody may have written: Kafka knows headers without a value, the port does not."""
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Incoming(topic, record.partition, record.offset, record.timestamp, record.key, record.value, headers)

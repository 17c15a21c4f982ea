"""Writing to Kafka: records of one partition in the order of `send`, gathered into batches, broken as a whole.

Idempotent, acks=all, linger 0. One batch of a partition is under way at a time; what is sent meanwhile goes into the
next, so that batches grow with the load and a lone record leaves at once. What leaves for all partitions leaves
together, in turns that are spread out when there are many (`pace`). aiokafka's idempotent batches never expire
while the broker is away (#1101), and after some failures every later send fails (#1017): so a producer that had one
failure, or waited too long, is broken for good, and its user makes a new one.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from parley_events.errors import LogUnavailable, ProducerBroken, RecordTooLarge
from parley_events.log.kafka_address import client_options
from parley_events.log.pace import Pace
from parley_events.log.port import Outgoing
from parley_events.topics import MAX_RECORD_BYTES

_START_S = 20.0
_ACKNOWLEDGE_S = 15.0
_BATCH_BYTES = 256 * 1024

_Waiting = deque[tuple[Outgoing, Future[int]]]


class KafkaProducer:
    """See `port.Producer`."""

    def __init__(
        self, bootstrap: str, client_id: str, prefix: str, pace: Pace, acknowledge_s: float = _ACKNOWLEDGE_S
    ) -> None:
        self._producer: Any = AIOKafkaProducer(
            **client_options(bootstrap),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES + 1024 * 1024,
            request_timeout_ms=int(acknowledge_s * 1000),
        )
        self._prefix, self._pace, self._acknowledge_s = prefix, pace, acknowledge_s
        self._loop = asyncio.get_running_loop()
        self._queues: dict[tuple[str, int], _Waiting] = {}
        self._pumps: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._flying: dict[Future[int], float] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._soon = False
        self._broken = False
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises LogUnavailable."""
        try:
            await asyncio.wait_for(self._producer.start(), _START_S)
        except BaseException as error:
            self._broken = True
            await self._end()
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise LogUnavailable(f"no producer: {type(error).__name__}") from error
            raise

    @property
    def broken(self) -> bool:
        return self._broken

    def send(self, record: Outgoing, *, now: bool = False) -> Future[int]:
        if self._broken:
            raise ProducerBroken("this producer failed before; make a new one")
        size = len(record.value or b"") + len(record.key or b"") + sum(len(k) + len(v) for k, v in record.headers)
        if size > MAX_RECORD_BYTES:
            raise RecordTooLarge(f"a record of {size} bytes; {MAX_RECORD_BYTES} fit")
        future: Future[int] = self._loop.create_future()
        sent_at = self._flying[future] = self._loop.time()
        future.add_done_callback(self._landed)
        place = (record.topic, record.partition)
        self._queues.setdefault(place, deque()).append((record, future))
        if self._turn is not None:
            if self._pace.came(record.key, sent_at) or now:
                self._hurry()
        elif place not in self._pumps:
            wait_s = 0.0 if now else self._pace.take(sent_at, record.key)
            # Never at once: whatever else this turn of the loop sends goes along. A batch that left a moment too early
            # would keep the records after it waiting for a whole round trip.
            later = self._loop.call_later
            self._turn = later(wait_s, self._leave) if wait_s else self._loop.call_soon(self._leave)
            self._soon = not wait_s
        if self._watch is None:
            self._watch = self._loop.call_later(1.0, self._look)
        return future

    async def close(self, grace_s: float = 5.0) -> None:
        self._hurry()
        if self._flying and grace_s > 0 and not self._broken:
            await asyncio.wait(set(self._flying), timeout=grace_s)
        self._break("the producer was closed")
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=3.0)

    def _hurry(self) -> None:
        if self._turn is not None and not self._soon:
            self._turn.cancel()
            self._turn, self._soon = self._loop.call_soon(self._leave), True

    def _leave(self) -> None:
        """Send what waits, of every partition."""
        self._turn = None
        for place, queue in self._queues.items():
            if queue and place not in self._pumps:
                self._pumps[place] = self._loop.create_task(self._pump(place))

    async def _pump(self, place: tuple[str, int]) -> None:
        """Send what waits for one partition, batch after batch, until nothing waits."""
        queue = self._queues[place]
        topic, partition = place
        try:
            while queue:
                builder = self._producer.create_batch()
                taken: list[Future[int]] = []
                while queue:
                    record, future = queue[0]
                    added = builder.append(
                        timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
                    )
                    if added is None:
                        break
                    queue.popleft()
                    taken.append(future)
                builder.close()
                sent = await self._producer.send_batch(builder, self._prefix + topic, partition=partition)
                sent.add_done_callback(lambda result, taken=taken: self._acknowledged(result, taken))
        except (KafkaError, OSError) as error:
            self._break(type(error).__name__)
        except asyncio.CancelledError:
            raise
        finally:
            if self._pumps.get(place) is asyncio.current_task():
                del self._pumps[place]

    def _acknowledged(self, result: Future[Any], taken: list[Future[int]]) -> None:
        if result.cancelled() or result.exception() is not None:
            error = None if result.cancelled() else result.exception()
            self._break(type(error).__name__ if error else "cancelled")
            return
        base = result.result().offset
        for place, future in enumerate(taken):
            if not future.done():
                future.set_result(base + place)

    def _landed(self, future: Future[int]) -> None:
        self._flying.pop(future, None)
        if future.cancelled():
            return
        future.exception()

    def _look(self) -> None:
        """Once a second while something is under way: has the oldest send waited too long, or can it never come?"""
        self._watch = None
        if self._broken or not self._flying:
            return
        if self._loop.time() - next(iter(self._flying.values())) > self._acknowledge_s:
            self._break(f"no acknowledgement within {self._acknowledge_s:g} s")
        elif self._producer._sender.sender_task is not None and self._producer._sender.sender_task.done():
            self._break("aiokafka's sending task is dead")
        else:
            self._watch = self._loop.call_later(1.0, self._look)

    def _break(self, why: str) -> None:
        if self._broken:
            return
        self._broken = True
        for timer in (self._watch, self._turn):
            if timer is not None:
                timer.cancel()
        for pump in list(self._pumps.values()):
            if pump is not asyncio.current_task():
                pump.cancel()
        for future in list(self._flying):
            if not future.done():
                future.set_exception(LogUnavailable(f"the outcome is unknown: {why}"))
        self._queues.clear()
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        """Close the connection without flushing: what was not acknowledged is sent again by another producer."""
        sender = self._producer._sender
        with suppress(Exception, asyncio.CancelledError):
            await asyncio.wait_for(sender.close(), 1.0)
        with suppress(Exception):
            await asyncio.wait_for(self._producer.client.close(), 1.0)
        self._producer._closed = True

"""Sending: one request = one command, and its outcome as the log has it.

The outcome is awaited on the hub's tail, not the acknowledgement of the send: what is read back is proof, and one hop
less. No outcome in time: 202 with ids that follow from the command's id if the log took it, else 503. A send whose
fate is unknown is never sent anew; its outcome decides, and a repeated request is recognised by its command id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import orjson

from parley_events.body import Json
from parley_events.clock import Clock
from parley_events.codec import Command, Fact, encode_command
from parley_events.commands import CommandBody
from parley_events.contents import Contents
from parley_events.errors import EventsError, LogUnavailable, ObjectsUnavailable, ProducerBroken, RecordTooLarge
from parley_events.facts import CommandRejected, CommandRepeated
from parley_events.ids import NewUuid, derived_uuid
from parley_events.log import Outgoing, Producer
from parley_gateway import answered
from parley_gateway.auth import Principal
from parley_gateway.errors import Problem, Unavailable, refusal
from parley_gateway.feed.hub import Hub
from parley_gateway.telemetry import Instruments
from parley_gateway.told import Told

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command. `fact` None: it was decided before (`repeated`), and only the receipt is here.
    `pending`: the log has it, and nothing was decided in time."""

    stream: str
    type: str
    seq: int | None
    time_ms: int
    receipt: Json
    fact: Fact | None = None
    repeated: bool = False
    pending: bool = False

    @property
    def position(self) -> str:
        """What a reader must have come to, to see it."""
        return f"{self.stream}@{self.seq or 0}"


class Sender:
    """Puts commands on the log and brings their outcomes."""

    def __init__(
        self,
        hub: Hub,
        clock: Clock,
        new_uuid: NewUuid,
        outcome_s: float,
        contents: Contents,
        instruments: Instruments | None = None,
    ) -> None:
        self._hub, self._clock, self._new_uuid, self._outcome_s = hub, clock, new_uuid, outcome_s
        self._contents, self._instruments = contents, instruments or Instruments()
        self._producer: Producer | None = None
        self._making: asyncio.Task[Producer] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.told = Told()

    def command_id(self, principal: Principal, operation: str, target: str, key: str | None) -> str:
        """The id of a command: derived from the idempotency key and what it covers, else random."""
        if key is None:
            return self._new_uuid()
        return derived_uuid("command", principal.workspace_id, principal.user_id, operation, target, key)

    def thread_id(self, principal: Principal, operation: str, key: str | None) -> str:
        """The id of a thread that a request makes."""
        if key is None:
            return self._new_uuid()
        return derived_uuid("thread", principal.workspace_id, principal.user_id, operation, key)

    def command(
        self,
        principal: Principal,
        command_id: str,
        stream: str,
        body: CommandBody,
        meaning: Any = None,
        *,
        fresh: bool = False,
        workspace_id: str | None = None,
        traceparent: str | None = None,
    ) -> Command:
        """The command with its envelope. `meaning`: what a repeat under the same key must be equal in."""
        return Command(
            id=command_id,
            stream=stream,
            workspace_id=workspace_id or principal.workspace_id,
            time_ms=self._clock(),
            body=body,
            body_hash=body_hash(body.type, meaning),
            fresh=fresh,
            correlation_id=self._new_uuid(),
            traceparent=traceparent,
        )

    async def ask(self, principal: Principal, command: Command) -> Outcome:
        """Send a command and wait for its outcome. A refusal is raised as a Problem; a log that cannot be reached is
        503, and then nothing was accepted that is known of."""
        ready = self._hub.log
        if ready is None:
            raise Unavailable("the log cannot be reached right now")
        sending = self._instruments.sending(command)
        command = sending.command
        try:
            await self._contents.keep(command.workspace_id, command.body)
            record = encode_command(command, ready.partitions, self._contents.stored)
        except ObjectsUnavailable as error:
            sending.close()
            log.warning("a large request cannot be taken: %s", error)
            raise Unavailable("the object store cannot be reached right now") from None
        except RecordTooLarge:
            sending.close()
            raise Problem("too_large", "the request does not fit a record of 8 MiB", 413) from None
        outcome = self._hub.expect(command.id, command.correlation_id)
        producer: Producer | None = None
        taken: asyncio.Future[int] | None = None
        try:
            async with asyncio.timeout(self._outcome_s):
                producer, taken = await self._send(record)
                sending.watch(record, taken)
                fact = await outcome
        except TimeoutError:
            if taken is not None and taken.done() and not taken.cancelled() and taken.exception() is None:
                return Outcome(command.stream, command.type, None, command.time_ms, {}, pending=True)
            if producer is not None:
                self._replace(producer)
            raise Unavailable("the log did not take the request in time; try again") from None
        finally:
            self._hub.forget(command.id, outcome)
            sending.close()
        return self._read(principal, fact)

    async def close(self) -> None:
        """Let go of the producer, within seconds."""
        if self._making is not None:
            self._making.cancel()
        if self._producer is not None:
            self._replace(self._producer)
        if self._closing:
            await asyncio.wait(self._closing, timeout=5)

    # ---- inside

    async def _send(self, record: Outgoing) -> tuple[Producer, asyncio.Future[int]]:
        for _ in range(2):
            producer = self._producer
            if producer is None or producer.broken:
                producer = await self._new_producer()
            with contextlib.suppress(ProducerBroken):
                taken = producer.send(record)
                taken.add_done_callback(_noted)
                return producer, taken
        raise Unavailable("the log cannot be reached right now")

    async def _new_producer(self) -> Producer:
        """A producer that works. One is made for all who wait: each waits no longer than its own time."""
        if self._making is None:
            if self._producer is not None:
                self._replace(self._producer)
            # Not in the context of the one request that is the first: the producer's tasks outlive it.
            self._making = asyncio.create_task(self._make(), context=Context())
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    async def _make(self) -> Producer:
        ready = self._hub.log
        assert ready is not None
        try:
            async with asyncio.timeout(self._outcome_s):
                return await ready.producer()
        except (EventsError, TimeoutError, OSError) as error:
            raise Unavailable("the log cannot be reached right now") from error

    def _made(self, making: asyncio.Task[Producer]) -> None:
        self._making = None
        if not making.cancelled() and making.exception() is None:
            self._producer = making.result()

    def _replace(self, producer: Producer) -> None:
        """Let go of a producer: what it has not sent yet is dropped. One that was replaced before is let be."""
        if self._producer is producer:
            closing = asyncio.ensure_future(producer.close(0.5))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._producer = None

    def _read(self, principal: Principal, fact: Fact) -> Outcome:
        body = fact.body
        if isinstance(body, CommandRejected):
            raise refusal(body.code, body.message)
        if isinstance(body, CommandRepeated):
            if body.outcome_type == CommandRejected.type:
                problem = refusal(str(body.first.get("code", "invalid")), str(body.first.get("message", "")))
                problem.headers["Idempotency-Replayed"] = "true"
                raise problem
            outcome = Outcome(
                fact.stream, body.outcome_type, body.outcome_seq, body.outcome_time_ms, body.first, repeated=True
            )
        else:
            outcome = Outcome(fact.stream, fact.type, fact.seq, fact.time_ms, body.receipt(), fact)
        if outcome.seq is not None:
            self.told.tell(principal.key_id, outcome.stream, outcome.seq)
            answered.wrote(outcome.stream, outcome.seq)
        return outcome


def body_hash(kind: str, meaning: Any) -> str:
    """SHA-256 of what a request means, in a form that does not depend on the order of its fields."""
    return hashlib.sha256(orjson.dumps([kind, meaning], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _noted(sent: asyncio.Future[int]) -> None:
    """Take note of a failed send, so that it is not reported as forgotten; its outcome is awaited on the tail."""
    if not sent.cancelled() and (error := sent.exception()) is not None and not isinstance(error, LogUnavailable):
        log.warning("a command was not taken by the log: %s", error)

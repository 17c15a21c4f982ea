"""The hub: one per process. It tails `parley.events` and `parley.deltas` once, and feeds everyone who listens.

Above it: `join` (a client's feed), `send` (who waits for a command's outcome), `auth` and `workspaces` (who keep their
caches current). Below it: the log port, `listener` (the queues that it fills), `kept` (pieces of unfinished calls, so
that whoever joins in the middle of one gets its beginning). Events start where history stands, with the epoch in force
there; deltas two minutes back. Records are told apart by their headers; a body is decoded once, and only if someone
wants it. A fact whose large contents must be fetched holds up the later facts of its stream, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

from parley_events.clock import Clock, elapsed_s
from parley_events.codec import EVENTS_TOPIC, Fact, FactHead, decode_fact, head_of
from parley_events.contents import Contents
from parley_events.errors import EventsError, LogUnavailable, ObjectError, Undecodable
from parley_events.facts import KeyCreated, KeyRevoked, KeyRotated, PartitionClaimed
from parley_events.fence import FactFence, PieceFence
from parley_events.log import Incoming, Log, Tail
from parley_events.partition import partition_of
from parley_events.pieces import DELTAS_TOPIC, Piece, decode_pieces, pieces_epoch
from parley_events.reads import Positions
from parley_gateway.errors import GatewayError
from parley_gateway.feed.kept import Kept
from parley_gateway.feed.listener import Counts, HubLimits, Listener

log = logging.getLogger(__name__)

PIECES_BACK_MS = 120_000
_PIECE_COST = 200
_FACT_COST = 1000
_WORKSPACES_LIMIT = 10_000
CONTENTS_S = 30.0
"""How long the listeners of a stream wait for a fact's contents; then they are closed, and resume by their cursors."""
_CONTENTS_LOOK_S = 1.0
_CONTENTS_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

_AT_ONCE = (KeyCreated.type, KeyRotated.type, KeyRevoked.type)
"""Facts that depend on no other fact of their stream: a revoked key must not go on while an object store is away."""


class Hub:
    """See the module. `run()` is a task of its own; everything else is synchronous and never waits."""

    def __init__(
        self,
        open_log: Callable[[], Awaitable[Log]],
        positions: Callable[[], Awaitable[Positions]],
        clock: Clock,
        limits: HubLimits,
        contents: Contents,
    ) -> None:
        self._open_log, self._positions, self._clock = open_log, positions, clock
        self._limits, self._contents = limits, contents
        self.counts = Counts()
        self._log: Log | None = None
        self._next: dict[int, int] = {}
        self._goal: dict[int, int] = {}
        self._next_piece: dict[int, int] = {}
        self._fences: dict[int, FactFence] = {}
        self._piece_fences: dict[int, PieceFence] = {}
        self._waiting: dict[str, deque[tuple[str | None, asyncio.Future[Fact]]]] = {}
        self._coming: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._muted: dict[Listener, None] = {}
        self._watchers: dict[str, list[Callable[[Fact], None]]] = {}
        self.unfinished = Kept(limits.kept_bytes)
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._held: dict[str, deque[tuple[FactHead, Incoming]]] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        self._polled_at: dict[str, float] = {}
        self.draining = False
        """Whether nothing new is begun here; what is open goes on until `drain`."""
        self._ended = False

    # ---- what others ask of it

    @property
    def log(self) -> Log | None:
        """The log, once it is open and the tails stand."""
        return self._log if self._next else None

    @property
    def poll_age_s(self) -> float:
        """How long ago the log was last asked for records, or waited for; 0 before the first time."""
        return elapsed_s() - min(self._polled_at.values()) if self._polled_at else 0.0

    @property
    def ready(self) -> bool:
        """Whether it has read what was on the log when it started."""
        return bool(self._next) and all(self._next[p] >= goal for p, goal in self._goal.items())

    @property
    def limits(self) -> HubLimits:
        return self._limits

    @property
    def reached(self) -> dict[int, int]:
        """Each partition's next offset, as far as the hub has read."""
        return dict(self._next)

    def partition(self, stream: str) -> int:
        """The partition of a stream; only once the log is open."""
        assert self._log is not None
        return partition_of(stream.encode(), self._log.partitions)

    def end_of(self, stream: str) -> str:
        """The position `<partition>.<next offset>` of the stream's partition, as far as the hub has read."""
        partition = self.partition(stream)
        return f"{partition}.{self._next[partition]}"

    async def real_end_of(self, stream: str) -> str:
        """The same as the log itself knows it now; LogUnavailable when it cannot be asked."""
        assert self._log is not None
        partition = self.partition(stream)
        ends = await self._log.ends(EVENTS_TOPIC)
        return f"{partition}.{max(ends[partition], self._next[partition])}"

    async def real_ends(self) -> list[str]:
        """The same for every partition."""
        return [f"{partition}.{end}" for partition, end in (await self.real_reach()).items()]

    async def real_reach(self) -> dict[int, int]:
        """The same as numbers."""
        assert self._log is not None
        ends = await self._log.ends(EVENTS_TOPIC)
        return {partition: max(end, self._next[partition]) for partition, end in ends.items()}

    async def come_to(self, position: str, timeout_s: float) -> None:
        """Wait until everything below a position of `end_of` has been read; TimeoutError when it takes longer."""
        partition, _, offset = position.partition(".")
        place = (int(partition), int(offset))
        if self._next[place[0]] >= place[1]:
            return
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming[there] = place
        try:
            async with asyncio.timeout(timeout_s):
                await there
        finally:
            del self._coming[there]

    def expect(self, command_id: str, correlation_id: str | None) -> asyncio.Future[Fact]:
        """A future of the outcome of a command that is about to be sent. Give it to `forget` in the end.

        One command may be sent several times at once (under one idempotency key); each has an outcome of its own,
        and the correlation id tells them apart.
        """
        future: asyncio.Future[Fact] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(command_id, deque()).append((correlation_id, future))
        return future

    def forget(self, command_id: str, future: asyncio.Future[Fact]) -> None:
        """Wait no more."""
        waiting = self._waiting.get(command_id)
        if waiting is not None:
            left = deque(entry for entry in waiting if entry[1] is not future)
            if left:
                self._waiting[command_id] = left
            else:
                del self._waiting[command_id]
        future.cancel()

    def listen(self, stream: str, owner: str = "", pieces: bool = True) -> Listener:
        """A listener that gets every fact of the stream from now on, and its pieces. `owner`: whose key it was."""
        listener = Listener(stream, self._limits, owner, pieces, self.counts)
        self.attend(listener)
        return listener

    def attend(self, listener: Listener) -> None:
        """Give a listener what comes of its streams from now on."""
        self._muted.pop(listener, None)
        if self._ended:
            listener.close()
        for stream in listener.streams:
            self._listeners.setdefault(stream, []).append(listener)

    def mute(self, listener: Listener) -> None:
        """Give the listener nothing more, but close it when its owner's are closed, or all are."""
        self._take_out(listener)
        self._muted[listener] = None

    def unmute(self, listener: Listener) -> None:
        """Give the listener again what comes from now on."""
        if listener in self._muted:
            self.attend(listener)

    def leave(self, listener: Listener) -> None:
        """Feed the listener no more."""
        listener.closed = True
        self._muted.pop(listener, None)
        self._take_out(listener)

    def _take_out(self, listener: Listener) -> None:
        for stream in listener.streams:
            listeners = self._listeners.get(stream)
            if listeners is not None and listener in listeners:
                listeners.remove(listener)
                if not listeners:
                    del self._listeners[stream]

    def kept(self, stream: str) -> list[Piece]:
        """The pieces of the stream's unfinished calls, in the order in which they came."""
        return self.unfinished.of(stream)

    def watch(self, kind: str, callback: Callable[[Fact], None]) -> None:
        """Call `callback` with every fact of that type, of any stream."""
        self._watchers.setdefault(kind, []).append(callback)

    def newest(self, workspace_stream: str) -> int:
        """The seq of the newest fact of a workspace's stream that was heard here; 0: none was, lately."""
        return self._newest.get(workspace_stream, 0)

    def close_owned_by(self, owner: str) -> None:
        """Close all listeners of an owner (its key was revoked)."""
        for listener in self._all():
            if listener.owner == owner:
                listener.close()

    def drain(self) -> None:
        """Close every listener, now and from now on, so that open streams end cleanly."""
        self.draining = self._ended = True
        for listener in self._all():
            listener.close()

    def _all(self) -> list[Listener]:
        return [*self._hearing(), *self._muted]

    @property
    def listening(self) -> int:
        """How many listeners there are that hear something; a channel is one, however many watch it."""
        return len(self._hearing())

    def _hearing(self) -> dict[Listener, None]:
        return dict.fromkeys(listener for listeners in self._listeners.values() for listener in listeners)

    def queued(self) -> tuple[int, int]:
        """How many items wait for all listeners, and about how many bytes they take."""
        queues = [listener.queued for listener in self._hearing()]
        return sum(items for items, _ in queues), sum(size for _, size in queues)

    async def lag(self) -> list[tuple[str, int, int]]:
        """Topic, partition and number of records that the log has and the hub has not read; () before it has begun."""
        if self.log is None:
            return []
        ends = await self.log.ends(EVENTS_TOPIC)
        return [(EVENTS_TOPIC, p, max(ends[p] - offset, 0)) for p, offset in self._next.items()]

    # ---- reading the log

    async def run(self) -> None:
        """Read for ever. Starts as soon as the log and history answer; goes on by itself after every outage."""
        while not self._next:
            try:
                await self._start()
            except (EventsError, GatewayError, OSError) as error:
                log.warning("cannot start reading the log yet: %s: %s", type(error).__name__, error)
                await asyncio.sleep(0.5)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._read(EVENTS_TOPIC, self._next, self._events))
                both.create_task(self._read(DELTAS_TOPIC, self._next_piece, self._deltas))
        finally:
            for task in self._fetching:
                task.cancel()

    async def _start(self) -> None:
        if self._log is None:
            self._log = await self._open_log()
        positions = await self._positions()
        starts = dict.fromkeys(range(self._log.partitions), 0)
        for p in range(self._log.partitions):
            self._fences[p], self._piece_fences[p] = FactFence(), PieceFence()
        for row in positions.partitions:
            if row.partition in starts:
                starts[row.partition] = row.next_offset
                self._fences[row.partition].epoch = row.epoch
                self._piece_fences[row.partition].claimed(row.epoch)
        begins = await self._log.begins(EVENTS_TOPIC)
        starts = {p: max(offset, begins.get(p, 0)) for p, offset in starts.items()}
        self._goal = await self._log.ends(EVENTS_TOPIC)
        self._next_piece = dict(await self._log.at_time(DELTAS_TOPIC, self._clock() - PIECES_BACK_MS))
        self._next = starts

    async def _read(self, topic: str, position: dict[int, int], dispatch: Callable[[Incoming], None]) -> None:
        assert self._log is not None
        while True:
            tail: Tail | None = None
            try:
                tail = await self._log.tail(topic, position)
                while True:
                    self._polled_at[topic] = elapsed_s()
                    for record in await tail.batch():
                        if record.offset < position[record.partition]:
                            continue
                        try:
                            dispatch(record)
                        except Undecodable as error:
                            log.error("%s[%d]@%d is no record: %s", topic, record.partition, record.offset, error)
                        except Exception:
                            # One bad record must not keep all clients from everything after it.
                            log.exception("%s[%d]@%d could not be passed on", topic, record.partition, record.offset)
                        position[record.partition] = record.offset + 1
                    for there, (partition, offset) in self._coming.items():
                        if self._next[partition] >= offset and not there.done():
                            there.set_result(None)
            except LogUnavailable as error:
                log.warning("%s cannot be read right now: %s", topic, error)
            except EventsError:
                log.exception("%s cannot be read", topic)
            finally:
                if tail is not None:
                    await tail.close()
            self._polled_at[topic] = elapsed_s()
            await asyncio.sleep(0.5)

    def _events(self, record: Incoming) -> None:
        head = head_of(record)
        if not self._fences[record.partition].accepts(record.offset, head.type, head.epoch):
            return
        if head.type == PartitionClaimed.type:
            self._piece_fences[record.partition].claimed(record.offset)
            return
        if head.seq is not None and head.stream.startswith("ws:"):
            self._newest[head.stream] = max(head.seq, self._newest.get(head.stream, 0))
            self._newest.move_to_end(head.stream)
            if len(self._newest) > _WORKSPACES_LIMIT:
                self._newest.popitem(last=False)
        if self._held and head.stream in self._held and head.type not in _AT_ONCE:
            self._held[head.stream].append((head, record))
            self._announce(head, record)
        elif head.objects and self._wanted(head):
            self._held[head.stream] = deque([(head, record)])
            self._announce(head, record)
            task = asyncio.get_running_loop().create_task(self._fetch(head.stream))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        else:
            self._pass_on(head, record)

    def _wanted(self, head: FactHead) -> bool:
        """Whether anyone wants to know more of a fact than its headers."""
        return (
            head.causation_id in self._waiting
            or (head.seq is not None and head.type in self._watchers)
            or (head.seq is not None and any(stream in self._listeners for stream in _heard_by(head)))
        )

    def _pass_on(self, head: FactHead, record: Incoming) -> None:
        """Give a fact to those who want it. Its body is whole, or nobody does."""
        fact: Fact | None = None
        if head.causation_id is not None and head.causation_id in self._waiting:
            fact = decode_fact(record)
            self._resolve(head.causation_id, fact)
        if head.seq is None:
            return
        watchers = self._watchers.get(head.type)
        if watchers is not None:
            fact = fact or decode_fact(record)
            for callback in watchers:
                callback(fact)
        for stream in _heard_by(head):
            listeners = self._listeners.get(stream)
            if listeners is not None:
                fact = fact or decode_fact(record)
                cost = _FACT_COST + 4 * len(record.value or b"")
                for listener in listeners:
                    listener.put(fact, cost)
        if head.run_id is not None:
            self.unfinished.note(head, head.run_id)

    # ---- facts whose contents lie in the object store

    def _announce(self, head: FactHead, record: Incoming, *, lost: bool = False) -> None:
        """Tell who hears a fact that it comes later than its place, or not at all."""
        for stream in _heard_by(head) if head.seq is not None else ():
            for listener in self._listeners.get(stream, ()):
                (listener.lost if lost else listener.held)(record.partition, record.offset)

    async def _fetch(self, stream: str) -> None:
        """Pass on what is held of a stream, in order, each fact once its contents are here."""
        held = self._held[stream]
        try:
            while held:
                head, record = held[0]
                whole: Incoming | None = record
                if head.objects and self._wanted(head):
                    whole = await self._whole(head, record)
                held.popleft()
                try:
                    if whole is not None:
                        self._pass_on(head, whole)
                        continue
                    if head.run_id is not None:
                        self.unfinished.note(head, head.run_id)
                except Undecodable as error:
                    log.error("%s[%d]@%d is no record: %s", EVENTS_TOPIC, record.partition, record.offset, error)
                except Exception:
                    log.exception("%s[%d]@%d could not be passed on", EVENTS_TOPIC, record.partition, record.offset)
                self._announce(head, record, lost=True)
        finally:
            del self._held[stream]

    async def _whole(self, head: FactHead, record: Incoming) -> Incoming | None:
        """The record with its contents. Who listens to the stream waits for `CONTENTS_S` and is closed then; a fact
        that keeps a cache current is waited for however long it takes. None: nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CONTENTS_S
        asking = loop.create_task(self._asked_for(record))
        try:
            while True:
                # A store may also say nothing for long: that is no reason to wait longer, or to hold more.
                await asyncio.wait((asking,), timeout=_CONTENTS_LOOK_S)
                if asking.done():
                    return asking.result()
                if loop.time() > until or self._crowded(head.stream):
                    for heard in _heard_by(head):
                        for listener in self._listeners.get(heard, ()):
                            listener.close()
                    if head.type not in self._watchers:
                        return None
        finally:
            asking.cancel()

    async def _asked_for(self, record: Incoming) -> Incoming | None:
        """The record with its contents, asked for until they are there. None: what is there is no record."""
        tries = 0
        while True:
            try:
                return await self._contents.whole(record)
            except Undecodable as error:
                log.error("%s[%d]@%d is no record: %s", EVENTS_TOPIC, record.partition, record.offset, error)
                return None
            except ObjectError as error:
                if tries % 10 == 0:
                    log.warning("%s[%d]@%d waits: %s", EVENTS_TOPIC, record.partition, record.offset, error)
            await asyncio.sleep(_CONTENTS_PAUSES_S[min(tries, len(_CONTENTS_PAUSES_S) - 1)])
            tries += 1

    def _crowded(self, stream: str) -> bool:
        """Whether more of a stream is held than a listener's queue would take."""
        held = self._held[stream]
        size = sum(_FACT_COST + 4 * len(record.value or b"") for _, record in held)
        return len(held) > self._limits.queue_items or size > self._limits.queue_bytes

    def _resolve(self, command_id: str, fact: Fact) -> None:
        for correlation_id, future in self._waiting[command_id]:
            if not future.done() and fact.correlation_id in (None, correlation_id):
                future.set_result(fact)
                return

    def _deltas(self, record: Incoming) -> None:
        epoch = pieces_epoch(record)
        if not self._piece_fences[record.partition].accepts(epoch):
            return
        for piece in decode_pieces(record, epoch):
            place = (piece.thread_id, piece.call)
            if place in self.unfinished.over:
                continue
            cost = _PIECE_COST + 4 * len(piece.text)
            listeners = self._listeners.get(piece.thread_id)
            if listeners is not None:
                for listener in listeners:
                    if listener.pieces:
                        listener.put(piece, cost)
            self.unfinished.add(place, piece, cost)


def every_thread(workspace_id: str) -> str:
    """What to listen to for the facts of all threads of a workspace, instead of one thread's."""
    return f"every:{workspace_id}"


def _heard_by(head: FactHead) -> tuple[str, ...]:
    """What those listen to who hear a fact."""
    if head.stream.startswith("ws:"):
        return (head.stream,)
    return head.stream, every_thread(head.workspace_id)

"""One partition under one claim: deciding its commands, holding its states, reading its own writes back.

    worker   gives it records of `parley.commands` and of its own tail of `parley.events`
    owner    claims; loads states (history + window); decides in order per stream; knows what was read back
    runner   runs the runs that its facts open

An owner is born with a claim and never survives it: when its tail shows a claim that it does not hold, it closes, drops
everything, and a new owner may claim again. Two owners of one partition do no harm: every reader believes the newest
claim alone (`parley_events.fence`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from parley_dispatcher.agents import Agents
from parley_dispatcher.appender import Appender
from parley_dispatcher.decide import answering_agent, decide
from parley_dispatcher.dues import fire
from parley_dispatcher.errors import HistoryUnavailable, NotOwner
from parley_dispatcher.history import History
from parley_dispatcher.sender import Sender
from parley_dispatcher.state import State, ThreadState, evolve, initial
from parley_dispatcher.telemetry import Instruments
from parley_dispatcher.timers import Timers
from parley_dispatcher.window import Window
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Body, Principal
from parley_events.clock import Clock
from parley_events.codec import (
    EVENTS_TOPIC,
    Command,
    CommandHead,
    Fact,
    command_head,
    decode_command,
    decode_fact,
    encode_fact,
    head_of,
    rejected_record,
)
from parley_events.contents import MOST_CONTENT_BYTES, Contents
from parley_events.errors import ObjectError, ObjectMissing, ObjectsUnavailable, RecordTooLarge, Undecodable
from parley_events.fence import FactFence
from parley_events.ids import derived_uuid
from parley_events.large import LARGE_BYTES, OBJECTS_HEADER, references_of
from parley_events.log import Incoming, Log
from parley_events.objects import Objects
from parley_events.partition import partition_of
from parley_events.reads import Due

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

REJECTED_TOPIC = "parley.rejected"
COMMANDS_TOPIC = "parley.commands"
_MOST_WAITING = 2000
_MOST_REJECTED = 1024 * 1024
_KEEP_S = 5.0
"""The longest pause between two tries to store a content; about twice as long in all."""


@dataclass(frozen=True, slots=True)
class World:
    """What owners share: the outside, as arguments."""

    log: Log
    history: History
    agents: Agents
    sender: Sender
    objects: Objects
    contents: Contents
    clock: Clock
    name: str
    cache_bytes: int
    window_bytes: int
    timer_ms: int = 1000
    instruments: Instruments = field(default_factory=Instruments)


class Owner:
    """`wake(owner, state)` is called whenever a thread may have a run to start; `lost(owner)` once, when the claim is
    not ours any more."""

    def __init__(
        self,
        partition: int,
        world: World,
        wake: Callable[[Owner, ThreadState], None],
        lost: Callable[[Owner], None],
    ) -> None:
        self.partition = partition
        self.epoch = -1
        self.ready = False
        self.closed = False
        self.read_to = 0
        """The offset up to which the own tail was read."""
        self.next_command = -1
        """The offset of the next command to decide; those below are decided or known to be finished."""
        self.running: dict[str, asyncio.Task[None]] = {}
        """The tasks of the runs, by run id; the runner's."""
        self._world, self._wake, self._lost = world, wake, lost
        self._fence = FactFence()
        self._window = Window()
        self._appender: Appender | None = None
        self._states: OrderedDict[str, State] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._held = 0
        self._read_seq: dict[str, int] = {}
        self._queues: dict[str, deque[tuple[int, Command | Incoming]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog: deque[Incoming] = deque()
        self._unfinished: dict[int, None] = {}
        self._by_cause: dict[str, deque[int]] = {}
        self._waiters: dict[tuple[str, int], list[asyncio.Future[None]]] = {}
        self._claimed: asyncio.Future[int] | None = None
        self._advanced = asyncio.Event()
        self._fresh_from = 0
        self._touched: dict[str, None] = {}
        self._resting: set[str] = set()
        self._timers = Timers(partition, world.history, world.clock, self._fire)

    # ---- the claim

    async def claim(self, tail_from: Callable[[int, int], None]) -> None:
        """Claim the partition, read what came before, and begin. `tail_from(partition, offset)` starts the own tail."""
        view = await self.patiently(lambda: self._world.history.partition(self.partition))
        self._fence.epoch = view.epoch
        self.read_to = view.next_offset
        self._window.trim(view.next_offset)
        tail_from(self.partition, view.next_offset)
        acknowledged = self._claimed = asyncio.get_running_loop().create_future()
        body = f.PartitionClaimed(owner=self._world.name)
        fact = Fact(body.type, "", None, 0, "", self._world.clock(), body, causation_id=self._world.name)
        self._world.sender.send(
            encode_fact(fact, self.partition),
            lambda offset: None if acknowledged.done() else acknowledged.set_result(offset),
        )
        self.epoch = await acknowledged
        while self.read_to <= self.epoch and not self.closed:
            self._advanced.clear()
            await self._advanced.wait()
        ends = await self._world.log.ends(COMMANDS_TOPIC)
        # The tail goes on while the log is asked: only what it shows now counts.
        if self.closed:
            return
        if self._fence.epoch != self.epoch:
            self.lose("another dispatcher claimed it at the same time")
            return
        self._fresh_from = ends[self.partition]
        self._appender = Appender(
            self.partition,
            self.epoch,
            max(view.last_number, 0),
            self._world.sender,
            self._world.clock,
            self._world.contents.stored,
        )
        self.ready = True
        _log.info("partition %d is ours with epoch %d", self.partition, self.epoch)
        for stream in dict.fromkeys([*view.open_threads, *self._touched]):
            if stream not in view.waiting_threads or stream in self._touched:
                self._spawn(self._recover(stream))
        self._touched.clear()
        self._spawn(self._timers.watch(self._world.timer_ms))
        backlog, self._backlog = self._backlog, deque()
        for record in backlog:
            self.take(record)

    async def _recover(self, stream: str) -> None:
        """Load a thread that had open runs, and go on with them."""
        state = await self._load(stream)
        if state is not None and isinstance(state, ThreadState):
            self._wake(self, state)

    def lose(self, why: str) -> None:
        """The claim is another's: drop everything, at once."""
        if not self.closed:
            _log.warning("partition %d is not ours any more: %s", self.partition, why)
            self.close()
            self._lost(self)

    def close(self) -> None:
        """Append nothing more, stop the runs (they go on elsewhere), forget what was held."""
        self.closed, self.ready = True, False
        if self._appender is not None:
            self._appender.close()
        for task in [*self._tasks, *self.running.values()]:
            task.cancel()
        waiting: list[asyncio.Future[Any]] = [future for futures in self._waiters.values() for future in futures]
        if self._claimed is not None:
            waiting.append(self._claimed)
        for future in waiting:
            if not future.done():
                future.set_exception(NotOwner(f"partition {self.partition} is not ours any more"))
                future.exception()
        self._waiters.clear()
        self._states.clear()
        self._queues.clear()
        self._backlog.clear()
        self._advanced.set()

    # ---- the own tail

    def see(self, record: Incoming) -> None:
        """A record of the own tail of `parley.events`."""
        try:
            head = head_of(record)
        except Undecodable as error:
            _log.error("parley.events[%d]@%d: %s", self.partition, record.offset, error)
            self.read_to = record.offset + 1
            return
        if head.type == f.PartitionClaimed.type:
            self._fence.accepts(record.offset, head.type, head.epoch)
            if self.ready and record.offset != self.epoch:
                self.lose(f"a newer claim stands at offset {record.offset}")
                return
        elif self._fence.accepts(record.offset, head.type, head.epoch):
            if head.seq is not None:
                self._window.add(head.stream, head.seq, record)
                if head.stream in self._read_seq:
                    self._read_seq[head.stream] = max(self._read_seq[head.stream], head.seq)
                for future in self._waiters.pop((head.stream, head.seq), ()):
                    if not future.done():
                        future.set_result(None)
            if not self.ready and head.run_id is not None:
                self._touched[head.stream] = None
            if head.causation_id is not None and self.ready:
                self._finished(head.causation_id)
        self.read_to = record.offset + 1
        self._advanced.set()

    def passed(self, next_offset: int) -> None:
        """History's view of the partition stands at `next_offset`."""
        self._window.trim(next_offset)

    @property
    def choked(self) -> bool:
        """Whether commands must wait: the window or a queue is over its limit."""
        return self.waiting > _MOST_WAITING or max(self._window.size, self._held_back) > self._world.window_bytes

    @property
    def _held_back(self) -> int:
        """The bytes of the commands that wait for their contents or for a claim; those that are decoded are small."""
        queued = (waiting for queue in self._queues.values() for _, waiting in queue)
        records = [waiting for waiting in queued if isinstance(waiting, Incoming)]
        return sum(len(record.value or b"") for record in [*records, *self._backlog])

    @property
    def waiting(self) -> int:
        """Commands that were read and are not decided yet."""
        return sum(len(queue) for queue in self._queues.values()) + len(self._backlog)

    @property
    def window_size(self) -> int:
        """What the window holds, in bytes."""
        return self._window.size

    async def read_back(self, fact: Fact) -> None:
        """Until the fact was read back with no newer claim before it. Raises NotOwner when that cannot be any more."""
        if self.closed or fact.seq is None:
            raise NotOwner(f"partition {self.partition} is not ours any more")
        if self._read_seq.get(fact.stream, 0) >= fact.seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault((fact.stream, fact.seq), []).append(future)
        await future

    # ---- commands

    def watermark(self) -> int:
        """Everything below this offset of `parley.commands` is finished; -1: nothing is known."""
        if not self.ready:
            return -1
        return min(self._unfinished) if self._unfinished else self.next_command

    def take(self, record: Incoming) -> None:
        """A record of `parley.commands`, in the order of the partition; seen ones are dropped."""
        if self.closed:
            return
        if not self.ready:
            self._backlog.append(record)
            return
        if record.offset < self.next_command:
            return
        self.next_command = record.offset + 1
        self._unfinished[record.offset] = None
        try:
            head = command_head(record)
            if partition_of(head.stream.encode(), self._world.log.partitions) != self.partition:
                self._reject(record, "wrong_partition", "the record's key belongs to another partition")
                return
            command = record if _is_large(record) else decode_command(record, head)
        except Undecodable as error:
            self._reject(record, "undecodable", str(error))
            return
        queue = self._queues.get(head.stream)
        if queue is not None:
            queue.append((record.offset, command))
            return
        if isinstance(command, Command):
            state = self._states.get(command.stream) or self._untouched(record.offset, command)
            if state is not None and self._decidable(state, command):
                self._decide(record.offset, state, command, command_version(command))
                return
        self._queues[head.stream] = deque([(record.offset, command)])
        self._spawn(self._drain(head.stream))

    def _untouched(self, offset: int, command: Command) -> State | None:
        """The state of a stream that nobody else can have written to; None when that is not sure."""
        return self._hold(initial(command.stream)) if command.fresh and offset >= self._fresh_from else None

    async def _resolve(self, command: Command, agent_id: str) -> int | None:
        return await self._world.agents.resolve(command.workspace_id, agent_id, command_version(command))

    def _decidable(self, state: State, command: Command) -> bool:
        """Whether nothing must be waited for."""
        agent_id = answering_agent(state, command)
        return agent_id is None or self._world.agents.known(command.workspace_id, agent_id, command_version(command))

    async def _drain(self, stream: str) -> None:
        """Decide what waits for a stream, in order, once its contents and its state are here."""
        queue = self._queues[stream]
        while queue:
            offset, waiting = queue[0]
            command = waiting if isinstance(waiting, Command) else await self._settled(waiting)
            if command is None:
                queue.popleft()
                continue
            state = self._states.get(stream) or self._untouched(offset, command) or await self._load(stream)
            if state is None:
                return
            version = None
            agent_id = answering_agent(state, command)
            if agent_id is not None:
                version = await self.patiently(partial(self._resolve, command, agent_id))
            state = self._states.get(stream) or await self._load(stream)
            if state is None:
                return
            queue.popleft()
            self._decide(offset, state, command, version)
        self._queues.pop(stream, None)

    async def _settled(self, record: Incoming) -> Command | None:
        """A large command, decoded: its contents are here and stored, so that its outcome can refer to them. None: it
        was refused."""
        try:
            size = sum(reference.size for reference in references_of(record))
            if size > MOST_CONTENT_BYTES:
                raise Undecodable(f"contents of {size} bytes; {MOST_CONTENT_BYTES} are the most of a command")
            command = decode_command(await self.patiently(partial(self._world.contents.whole, record)))
        except ObjectMissing as error:
            await self._refuse(record, "object_missing", str(error))
            return None
        except Undecodable as error:
            self._reject(record, "undecodable", str(error))
            return None
        await self.keep(command.workspace_id, command.body)
        return command

    async def _refuse(self, record: Incoming, code: str, message: str) -> None:
        """Refuse a command of which only the headers can be read, by an outcome that who asked will hear."""
        head = command_head(record)
        state = self._states.get(head.stream) or await self._load(head.stream)
        if state is not None and not self.closed:
            _log.warning("parley.commands[%d]@%d refused: %s", self.partition, record.offset, message)
            self._by_cause.setdefault(head.id, deque()).append(record.offset)
            self._append_outcome(state, head, f.CommandRejected(command_type=head.type, code=code, message=message))

    async def keep(self, workspace_id: str, body: Body) -> None:
        """Store the large contents of what is about to be appended. While the store is away it is tried for a while;
        then the record is written whole, if it fits."""
        pause_s = 0.05
        while not self.closed:
            try:
                await self._world.contents.keep(workspace_id, body)
                return
            except ObjectsUnavailable as error:
                if pause_s > _KEEP_S:
                    _log.warning("a large content stays in its record: %s", error)
                    return
                await asyncio.sleep(pause_s)
                pause_s *= 2

    def _decide(self, offset: int, state: State, command: Command, version: int | None) -> None:
        if self.closed:
            return
        self._by_cause.setdefault(command.id, deque()).append(offset)
        with self._world.instruments.deciding(self.partition, offset, command) as (command, decided):
            try:
                body = decide(state, command, version)
                self._append_outcome(state, command, body)
            except RecordTooLarge as error:
                body = f.CommandRejected(command_type=command.type, code="too_large", message=str(error))
                self._append_outcome(state, command, body)
            except NotOwner:
                return
            except Exception:
                _log.exception("deciding %s at offset %d failed", command.type, offset)
                body = f.CommandRejected(
                    command_type=command.type, code="poison", message="the dispatcher cannot decide this command"
                )
                self._append_outcome(state, command, body)
            decided(body)
        self._states.move_to_end(state.stream)
        if isinstance(state, ThreadState):
            self._wake(self, state)

    async def _fire(self, due: Due, now_ms: int) -> None:
        """A timer: a command of the owner's to itself, on no log. What means nothing any more has no outcome."""
        if partition_of(due.stream.encode(), self._world.log.partitions) != self.partition:
            return
        state = self._states.get(due.stream) or await self._load(due.stream)
        if self.closed or not isinstance(state, ThreadState):
            return
        body = fire(state, due.due_key, now_ms)
        if body is not None:
            command = c.FireTimer(principal=Principal(user_id="parley"), due_key=due.due_key, due_at_ms=due.due_at_ms)
            self._append_outcome(state, _timer(state, command, now_ms), body)
        self._wake(self, state)

    def _append_outcome(self, state: State, command: Command | CommandHead, body: f.FactBody) -> None:
        self.append(
            state,
            body,
            workspace_id=command.workspace_id,
            run_id=getattr(body, "run_id", None),
            causation_id=command.id,
            body_hash=command.body_hash,
            correlation_id=command.correlation_id,
            traceparent=command.traceparent,
        )

    def append(self, state: State, body: f.FactBody, **envelope: Any) -> Fact:
        """Number a fact and send it on its way (see `Appender.append`)."""
        if self._appender is None or self.closed:
            raise NotOwner(f"partition {self.partition} is not ours any more")
        fact = self._appender.append(state, body, **envelope)
        if self._states.get(state.stream) is state:
            self._account(state)
        return fact

    def _reject(self, record: Incoming, reason: str, message: str) -> None:
        _log.warning("parley.commands[%d]@%d rejected: %s", self.partition, record.offset, reason)

        def done(_: int) -> None:
            self._unfinished.pop(record.offset, None)

        try:
            self._world.sender.send(rejected_record(record, REJECTED_TOPIC, reason, message), done)
        except RecordTooLarge:
            # With the reason beside it the record is larger than the log takes: its beginning has to do.
            begun = replace(record, value=(record.value or b"")[:_MOST_REJECTED], headers=())
            cut = f"{message} (cut: the record is too large to be kept whole)"
            self._world.sender.send(rejected_record(begun, REJECTED_TOPIC, reason, cut), done)

    def _finished(self, command_id: str) -> None:
        offsets = self._by_cause.get(command_id)
        if offsets:
            self._unfinished.pop(offsets.popleft(), None)
            if not offsets:
                del self._by_cause[command_id]

    # ---- states

    async def _load(self, stream: str) -> State | None:
        """The stream's state: what history answers, and the window beyond it. None once the owner is closed."""
        while not self.closed:
            held = self._states.get(stream)
            if held is not None:
                return held
            stored = await self.patiently(lambda: self._world.history.facts(stream, 0))
            held = self._states.get(stream)
            if held is not None:
                return held
            if stored.next_offset < self._window.start:
                # The window was cut between the answer and now: what is missing may have been the newest.
                _log.info("loading %s again: the answer is older than the window", stream)
                await asyncio.sleep(0.05)
                continue
            state = initial(stream)
            try:
                for fact in stored.facts:
                    evolve(state, fact)
                while beyond := self._window.since(stream, state.seq):
                    # Contents are fetched first: meanwhile the window may grow, and be cut.
                    whole = [
                        await self.patiently(partial(self._world.contents.whole, record), missing=True)
                        for record in beyond
                    ]
                    for record in whole:
                        evolve(state, decode_fact(record))
            except ValueError as hole:
                _log.info("loading again: %s", hole)
                await asyncio.sleep(0.05)
                continue
            held = self._states.get(stream)
            if held is not None:
                return held
            if stored.next_offset < self._window.start:
                continue
            return self._hold(state)
        return None

    def _hold(self, state: State) -> State:
        self._states[state.stream] = state
        self._read_seq[state.stream] = state.seq
        self._account(state)
        return state

    def _account(self, state: State) -> None:
        before = self._sizes.get(state.stream, 0)
        self._sizes[state.stream] = state.size
        self._held += state.size - before
        if self._held > self._world.cache_bytes:
            self._evict(state)

    def _evict(self, used: State) -> None:
        """Let go of the threads used longest ago: those with nothing running, waiting, or not read back yet. Never of
        the one that is being used: two states of one stream would number its facts twice."""
        for stream in list(self._states):
            if self._held <= self._world.cache_bytes * 0.9:
                return
            state = self._states[stream]
            busy = isinstance(state, ThreadState) and bool(state.open_runs.keys() & self.running.keys())
            if state is used or busy or stream in self._queues or self._read_seq.get(stream, 0) < state.seq:
                continue
            self._let_go(stream)

    def rest(self, state: ThreadState) -> None:
        """Let go of a thread whose every run is parked, as soon as all that is known of it was read back: whoever
        answers loads it again. Until then nobody has to hold it."""
        if state.stream not in self._resting and self._states.get(state.stream) is state:
            self._resting.add(state.stream)
            self._spawn(self._rest(state))

    async def _rest(self, state: ThreadState) -> None:
        stream = state.stream
        try:
            while self._states.get(stream) is state and state.parked:
                seq = state.seq
                if self._read_seq.get(stream, 0) < seq:
                    read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.setdefault((stream, seq), []).append(read)
                    await read
                if self._states.get(stream) is not state or state.seq != seq:
                    continue
                if stream not in self._queues and not state.open_runs.keys() & self.running.keys() and state.parked:
                    self._let_go(stream)
                return
        finally:
            self._resting.discard(stream)

    def _let_go(self, stream: str) -> None:
        del self._states[stream]
        self._held -= self._sizes.pop(stream, 0)
        self._read_seq.pop(stream, None)

    # ---- waiting

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            if isinstance(error, NotOwner):
                return
            _log.error("partition %d: a task died", self.partition, exc_info=error)
            self.lose("one of its tasks died")

    async def patiently(self, ask: Callable[[], Awaitable[Answer]], *, missing: bool = False) -> Answer:
        """Ask history or the object store until it answers; the thread waits, others go on. `missing`: an object that
        is not there is waited for, too, because a fact refers to it."""
        pause_s = 0.05
        while True:
            if self.closed:
                raise NotOwner(f"partition {self.partition} is not ours any more")
            try:
                answer = await ask()
                if not self.closed:
                    return answer
            except (HistoryUnavailable, ObjectError) as error:
                if isinstance(error, ObjectMissing) and not missing:
                    raise
                if pause_s > 1:
                    _log.warning("waiting: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)


def _is_large(record: Incoming) -> bool:
    """Whether contents must be fetched or stored before the command can be decided."""
    return len(record.value or b"") > LARGE_BYTES or record.header(OBJECTS_HEADER) is not None


def _timer(state: ThreadState, body: c.FireTimer, now_ms: int) -> Command:
    """The command of a timer; its id follows from what is due, so that a fact names its cause whoever fired it."""
    return Command(
        id=derived_uuid("timer", state.stream, body.due_key, str(body.due_at_ms)),
        stream=state.stream,
        workspace_id=state.workspace_id,
        time_ms=now_ms,
        body=body,
    )


def command_version(command: Command) -> int | None:
    """The agent version that the command's writer saw as newest."""
    return getattr(command.body, "agent_version", None)


__all__ = ["COMMANDS_TOPIC", "EVENTS_TOPIC", "Owner", "World"]

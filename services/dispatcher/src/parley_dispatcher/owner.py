"""One partition under one claim: deciding its commands, holding its states, reading its own writes back.

    worker   gives it records of `parley.commands` and of its own tail of `parley.events`
    owner    claims; decides in order per stream; knows what was read back
    states   holds, loads (history + window) and lets go of the states of streams
    runner   runs the runs that its facts open

An owner is born with a claim and never survives it: when its tail shows a claim that it does not hold, it closes, drops
everything, and a new owner may claim again. Two owners of one partition do no harm: every reader believes the newest
claim alone (`parley_events.fence`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from parley_dispatcher.agents import Agents
from parley_dispatcher.appender import Appender
from parley_dispatcher.decide import answering_agent, decide
from parley_dispatcher.dues import fire
from parley_dispatcher.errors import HistoryUnavailable, NotOwner, Unreadable
from parley_dispatcher.history import History
from parley_dispatcher.redelivery import MOST_TRIES, SKEW_MS, Redelivered, reading_from
from parley_dispatcher.sender import Sender
from parley_dispatcher.state import State, ThreadState, initial
from parley_dispatcher.states import States
from parley_dispatcher.telemetry import Instruments
from parley_dispatcher.timers import Timers
from parley_dispatcher.window import Window
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Body, Principal
from parley_events.clock import Clock, elapsed_s
from parley_events.codec import (
    EVENTS_TOPIC,
    Command,
    CommandHead,
    Fact,
    command_head,
    decode_command,
    encode_fact,
    head_of,
    rejected_record,
)
from parley_events.contents import MOST_CONTENT_BYTES, Contents
from parley_events.errors import (
    LogUnavailable,
    ObjectError,
    ObjectMissing,
    ObjectsUnavailable,
    RecordTooLarge,
    Undecodable,
)
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
TRUST_S = 2.0
"""How long a look at the own tail is good for: an effect begins within that time of it, or looks again. Shorter than
any session time-out, so that a process that stood still meanwhile (SIGSTOP, a pause of its machine) looks again."""
_FIRST_COMMAND_S = 2.0
_RECOVERED_AT_ONCE = 16
"""So many of the threads that a claim finds active are loaded at once: after a time without history they may be all."""
_MOST_HOLES = 200


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
    elapsed: Callable[[], float] = elapsed_s
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a suspect command is decided: one at a time in the process, so that it is known which one ended it."""
    awaited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when someone begins to wait for what an own tail will show."""


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
        self.stopped = ""
        """Why the partition cannot be gone on with until a person has looked at it; "": nothing is wrong."""
        self.leaving = asyncio.Event()
        """Set: no step is begun any more, the partition goes to another dispatcher soon."""
        self.waited_at = 0.0
        """When history, the object store or the log last did not answer (by the loop's clock)."""
        self.claimed_ms = 0
        """When the claim was in force; no effect of an earlier owner began later than `TRUST_S` after it."""
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
        self.states = States(self._window, world.history, world.contents, world.cache_bytes, self.patiently, self._busy)
        self._queues: dict[str, deque[tuple[int, Command | Incoming]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering = asyncio.Semaphore(_RECOVERED_AT_ONCE)
        self._backlog: deque[Incoming] = deque()
        self._unfinished: dict[int, None] = {}
        self._before = Redelivered()
        self._suspects: set[int] = set()
        self._history_at = 0
        self._given = asyncio.Event()
        self._waiters: dict[tuple[str, int], list[asyncio.Future[None]]] = {}
        self._claimed: asyncio.Future[int] | None = None
        self._advanced = asyncio.Event()
        self._reading = 0
        self._fresh_from = 0
        self._touched: dict[str, None] = {}
        self._resting: set[str] = set()
        self._timers = Timers(self._fire)

    # ---- the claim

    async def claim(self, tail_from: Callable[[int, int], None], committed: Callable[[int], Awaitable[int]]) -> None:
        """Claim the partition, read what came before, and begin. `tail_from(partition, offset)` starts the own tail;
        `committed(partition)` is the first command that may not be finished."""
        view = await self.patiently(lambda: self._world.history.partition(self.partition))
        first = await committed(self.partition)
        end = (await self._world.log.ends(COMMANDS_TOPIC))[self.partition]
        start, self._fence.epoch = view.next_offset, view.epoch
        # An outcome is never older than its command. Those of commands that may not be finished are looked for from
        # there on, also where history is ahead: a refusal stands on the log alone.
        if first < end and (since_ms := await self._first_ms()) is not None:
            since = (await self._world.log.at_time(EVENTS_TOPIC, since_ms - SKEW_MS))[self.partition]
            start, self._fence.epoch = reading_from(view.next_offset, view.epoch, view.claims, since)
        self._check_ours()
        self.read_to, self._history_at = start, view.next_offset
        self._window.trim(view.next_offset)
        tail_from(self.partition, start)
        await self._read_to((await self._world.log.ends(EVENTS_TOPIC))[self.partition])
        unfinished = self._before.first_unfinished(first, end)
        acknowledged = self._claimed = asyncio.get_running_loop().create_future()
        body = f.PartitionClaimed(
            owner=self._world.name,
            first_unfinished=unfinished,
            attempt=1 if unfinished is None else self._before.tries(unfinished) + 1,
        )
        fact = Fact(body.type, "", None, 0, "", self._world.clock(), body, causation_id=self._world.name)
        self._world.sender.send(
            encode_fact(fact, self.partition),
            lambda offset: None if acknowledged.done() else acknowledged.set_result(offset),
        )
        self.epoch = await acknowledged
        await self._read_to(self.epoch + 1)
        ends = await self._world.log.ends(COMMANDS_TOPIC)
        # The tail goes on while the log is asked: only what it shows now counts.
        if self.closed:
            return
        if self._fence.epoch != self.epoch:
            self.lose("another dispatcher claimed it at the same time")
            return
        self._fresh_from = self._before.until = ends[self.partition]
        self._appender = Appender(
            self.partition,
            self.epoch,
            max(view.last_number, 0),
            self._world.sender,
            self._world.clock,
            self._world.contents.stored,
        )
        self.ready, self.claimed_ms = True, self._world.clock()
        _log.info("partition %d is ours with epoch %d", self.partition, self.epoch)
        for stream in dict.fromkeys([*view.open_threads, *self._touched]):
            if stream not in view.waiting_threads or stream in self._touched:
                self._spawn(self._recover(stream))
        self._touched.clear()
        backlog, self._backlog = self._backlog, deque()
        for record in backlog:
            self.take(record)

    async def _read_to(self, offset: int) -> None:
        """Until the own tail has shown everything below `offset`. Raises NotOwner once the owner is closed."""
        self._reading += 1
        self._world.awaited.set()
        try:
            while self.read_to < offset:
                self._check_ours()
                self._advanced.clear()
                await self._advanced.wait()
        finally:
            self._reading -= 1
        self._check_ours()

    def _check_ours(self) -> None:
        if self.closed:
            raise NotOwner(f"partition {self.partition} is not ours any more")

    async def _first_ms(self) -> int | None:
        """When the first of the commands that may not be finished was written; None when none comes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_COMMAND_S):
                await self._given.wait()
        return self._backlog[0].time_ms if self._backlog else None

    async def _recover(self, stream: str) -> None:
        """Load a thread that had open runs, and go on with them."""
        async with self._recovering:
            state = await self.states.load(stream)
        if isinstance(state, ThreadState):
            self._wake(self, state)

    def lose(self, why: str) -> None:
        """The claim is another's: drop everything, at once."""
        if not self.closed:
            _log.warning("partition %d is not ours any more: %s", self.partition, why)
            self.close()
            self._lost(self)

    def stop(self, why: str) -> None:
        """This partition cannot be gone on with, and claiming it again at once would not help: leave it alone."""
        if not self.closed:
            _log.error("partition %d stands still: %s", self.partition, why)
            self.stopped = why
            self.close()
            self._lost(self)

    def stay(self) -> None:
        """The partition does not go to another dispatcher after all: begin what was held back."""
        self.leaving = asyncio.Event()
        for state in list(self.states.held.values()):
            if isinstance(state, ThreadState) and state.open_runs:
                self._wake(self, state)

    @property
    def settled(self) -> bool:
        """Whether all that was appended was read back, and no command waits for its outcome."""
        return not (self.states.unread or self._unfinished)

    def close(self) -> None:
        """Append nothing more, stop the runs (they go on elsewhere), forget what was held."""
        self.closed, self.ready = True, False
        self._given.set()
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
        self.states.held.clear()
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
            if not self.ready:
                self._before.see(head)
            if head.seq is not None and record.offset >= self._history_at:
                self._window.add(head.stream, head.seq, record)
                self.states.saw(head.stream, head.seq)
                self._show((head.stream, head.seq))
            if not self.ready and head.run_id is not None and record.offset >= self._history_at:
                self._touched[head.stream] = None
            if head.command_offset is not None and self.ready:
                if head.causation_id is not None:
                    self._unfinished.pop(head.command_offset, None)
                else:
                    self._show((head.type, head.command_offset))
        self.read_to = record.offset + 1
        self._advanced.set()

    def _show(self, place: tuple[str, int]) -> None:
        """Tell those who wait for it that a record was read back."""
        for future in self._waiters.pop(place, ()):
            if not future.done():
                future.set_result(None)

    def passed(self, next_offset: int) -> None:
        """History's view of the partition stands at `next_offset`."""
        self._window.trim(next_offset)

    @property
    def awaits(self) -> bool:
        """Whether someone waits for what the own tail will show."""
        return bool(self._waiters or self._reading)

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
        """Until the fact was read back with no newer claim before it. Raises NotOwner when that cannot be any more.

        Where that took longer than `TRUST_S`, what was read is old (the log was slow, or the process stood still): then
        the tail is looked at again. Called right after the append.
        """
        if fact.seq is None:
            raise NotOwner(f"partition {self.partition} is not ours any more")
        looked = self._world.elapsed()
        await self._seen(fact.stream, fact.seq)
        if (late := self._world.elapsed() - looked) > TRUST_S:
            _log.info("partition %d: looking again before an effect, %.1f s have passed", self.partition, late)
            await self.look()

    async def look(self) -> None:
        """Until the own tail was read to its end as of now, and that took no longer than `TRUST_S`. Raises NotOwner
        when it showed another's claim."""
        while True:
            looked = self._world.elapsed()
            await self._read_to(await self.patiently(self._events_end))
            if self._world.elapsed() - looked <= TRUST_S:
                return

    async def _seen(self, stream: str, seq: int) -> None:
        """Until the tail has shown all of a stream up to `seq`."""
        self._check_ours()
        if self.states.read.get(stream, 0) < seq:
            await self._shown((stream, seq))

    async def _shown(self, place: tuple[str, int]) -> None:
        """Until the tail has shown a record that was just appended."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(place, []).append(future)
        self._world.awaited.set()
        await future

    async def _events_end(self) -> int:
        return (await self._world.log.ends(EVENTS_TOPIC))[self.partition]

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
            self._given.set()
            return
        if record.offset < self.next_command:
            return
        self.next_command = record.offset + 1
        if self._before.done(record.offset):
            return
        self._unfinished[record.offset] = None
        try:
            head = command_head(record)
            if partition_of(head.stream.encode(), self._world.log.partitions) != self.partition:
                self._reject(record, "wrong_partition", "the record's key belongs to another partition")
                return
            suspect = self._before.suspect(record.offset)
            if suspect and self._before.tries(record.offset) >= MOST_TRIES:
                self._poisoned(record, head)
                return
            command = record if _is_large(record) else decode_command(record, head)
        except Undecodable as error:
            self._reject(record, "undecodable", str(error))
            return
        if suspect:
            self._suspects.add(record.offset)
        queue = self._queues.get(head.stream)
        if queue is not None:
            queue.append((record.offset, command))
            return
        if isinstance(command, Command) and not suspect:
            state = self.states.held.get(command.stream) or self._untouched(record.offset, command)
            if state is not None and self._decidable(state, command):
                self._decide(record.offset, state, command, command_version(command))
                return
        self._queues[head.stream] = deque([(record.offset, command)])
        self._spawn(self._drain(head.stream))

    def _untouched(self, offset: int, command: Command) -> State | None:
        """The state of a stream that nobody else can have written to; None when that is not sure."""
        return self.states.hold(initial(command.stream)) if command.fresh and offset >= self._fresh_from else None

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
            state = self.states.held.get(stream) or self._untouched(offset, command) or await self.states.load(stream)
            version = None
            agent_id = answering_agent(state, command)
            if agent_id is not None:
                version = await self.patiently(partial(self._resolve, command, agent_id))
            state = self.states.held.get(stream) or await self.states.load(stream)
            if offset in self._suspects:
                async with self._world.alone:
                    await self._tried(offset)
                    queue.popleft()
                    self._decide(offset, state, command, version)
                continue
            queue.popleft()
            self._decide(offset, state, command, version)
        self._queues.pop(stream, None)

    async def _tried(self, offset: int) -> None:
        """Put on record that the command is about to be decided alone, until it was read back."""
        self._check_ours()
        self._suspects.discard(offset)
        tried = f.CommandTried(attempt=self._before.tries(offset) + 1)
        fact = Fact(tried.type, "", None, self.epoch, "", self._world.clock(), tried, command_offset=offset)
        self._world.sender.send(encode_fact(fact, self.partition))
        await self._shown((tried.type, offset))

    def _poisoned(self, record: Incoming, head: CommandHead) -> None:
        """Set a command aside that ended its dispatchers: the bytes first, then the outcome that who asked will hear.
        Its thread is not loaded for it: that may be what kills."""
        message = f"the command ended {MOST_TRIES + 1} dispatchers"

        def kept(_: int) -> None:
            if not self.closed:
                state = self.states.held.get(head.stream) or initial(head.stream)
                body = f.CommandRejected(command_type=head.type, code="poison", message=message)
                self._append_outcome(state, head, body, record.offset)

        self._reject(record, "poison", message, kept)

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
        state = self.states.held.get(head.stream) or await self.states.load(head.stream)
        if not self.closed:
            _log.warning("parley.commands[%d]@%d refused: %s", self.partition, record.offset, message)
            rejected = f.CommandRejected(command_type=head.type, code=code, message=message)
            self._append_outcome(state, head, rejected, record.offset)

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
        with self._world.instruments.deciding(self.partition, offset, command) as (command, decided):
            try:
                body = decide(state, command, version)
                self._append_outcome(state, command, body, offset)
            except RecordTooLarge as error:
                body = f.CommandRejected(command_type=command.type, code="too_large", message=str(error))
                self._append_outcome(state, command, body, offset)
            except NotOwner:
                return
            except Exception:
                _log.exception("deciding %s at offset %d failed", command.type, offset)
                body = f.CommandRejected(
                    command_type=command.type, code="poison", message="the dispatcher cannot decide this command"
                )
                self._append_outcome(state, command, body, offset)
            decided(body)
        self.states.held.move_to_end(state.stream)
        if isinstance(state, ThreadState):
            self._wake(self, state)

    def fire_due(self, listed: Sequence[Due], now_ms: int) -> None:
        """Fire what history lists as due at that time, unless an earlier list is still gone through."""
        if self.ready and not self._timers.firing:
            self._spawn(self._timers.take(listed, now_ms))

    async def _fire(self, due: Due, now_ms: int) -> None:
        """A timer: a command of the owner's to itself, on no log. What means nothing any more has no outcome."""
        state = self.states.held.get(due.stream) or await self.states.load(due.stream)
        if self.closed or not isinstance(state, ThreadState):
            return
        body = fire(state, due.due_key, now_ms)
        if body is not None:
            command = c.FireTimer(principal=Principal(user_id="parley"), due_key=due.due_key, due_at_ms=due.due_at_ms)
            self._append_outcome(state, _timer(state, command, now_ms), body)
        self._wake(self, state)

    def _append_outcome(
        self, state: State, command: Command | CommandHead, body: f.FactBody, offset: int | None = None
    ) -> None:
        """The outcome of the command at `offset`; None: of an internal one, which stands nowhere."""
        self.append(
            state,
            body,
            workspace_id=command.workspace_id,
            run_id=getattr(body, "run_id", None),
            causation_id=command.id,
            command_offset=offset,
            body_hash=command.body_hash,
            correlation_id=command.correlation_id,
            traceparent=command.traceparent,
        )

    def append(self, state: State, body: f.FactBody, **envelope: Any) -> Fact:
        """Number a fact and send it on its way (see `Appender.append`)."""
        if self._appender is None or self.closed:
            raise NotOwner(f"partition {self.partition} is not ours any more")
        fact = self._appender.append(state, body, **envelope)
        if self.states.held.get(state.stream) is state:
            self.states.account(state)
        return fact

    def _reject(self, record: Incoming, reason: str, message: str, kept: Callable[[int], None] | None = None) -> None:
        """Put a command aside on `parley.rejected`. `kept` is called once it is there; without it the command is
        finished then."""
        _log.warning("parley.commands[%d]@%d rejected: %s", self.partition, record.offset, reason)
        done = kept or (lambda _: self._unfinished.pop(record.offset, None))

        try:
            self._world.sender.send(rejected_record(record, REJECTED_TOPIC, reason, message), done)
        except RecordTooLarge:
            # With the reason beside it the record is larger than the log takes: its beginning has to do.
            begun = replace(record, value=(record.value or b"")[:_MOST_REJECTED], headers=())
            cut = f"{message} (cut: the record is too large to be kept whole)"
            self._world.sender.send(rejected_record(begun, REJECTED_TOPIC, reason, cut), done)

    # ---- states

    def _busy(self, state: State) -> bool:
        """Whether something waits or runs in a stream that needs its very state."""
        runs = isinstance(state, ThreadState) and bool(state.open_runs.keys() & self.running.keys())
        return runs or state.stream in self._queues

    def rest(self, state: ThreadState) -> None:
        """Let go of a thread whose every run is parked, as soon as all that is known of it was read back: whoever
        answers loads it again. Until then nobody has to hold it."""
        if state.stream not in self._resting and self.states.held.get(state.stream) is state:
            self._resting.add(state.stream)
            self._spawn(self._rest(state))

    async def _rest(self, state: ThreadState) -> None:
        stream = state.stream
        try:
            while self.states.held.get(stream) is state and state.parked:
                seq = state.seq
                await self._seen(stream, seq)
                if self.states.held.get(stream) is not state or state.seq != seq:
                    continue
                if not self._busy(state) and state.parked:
                    self.states.let_go(stream)
                return
        finally:
            self._resting.discard(stream)

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
            if not isinstance(error, Unreadable):
                _log.error("partition %d: a task died", self.partition, exc_info=error)
            self.stop(str(error) if isinstance(error, Unreadable) else f"a task died ({type(error).__name__})")

    async def patiently(self, ask: Callable[[], Awaitable[Answer]], *, missing: bool = False) -> Answer:
        """Ask history, the object store or the log until it answers; the thread waits, others go on. `missing`: an
        object that is not there is waited for, too, because a fact refers to it."""
        pause_s = 0.05
        while True:
            self._check_ours()
            try:
                answer = await ask()
                if not self.closed:
                    return answer
            except (HistoryUnavailable, ObjectError, LogUnavailable) as error:
                if isinstance(error, ObjectMissing) and not missing:
                    raise
                self.waited_at = asyncio.get_running_loop().time()
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

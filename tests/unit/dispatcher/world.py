"""A dispatcher on a memory log, with a history folded out of that log, and a client that puts commands on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import orjson

from parley_dispatcher.app import build
from parley_dispatcher.history import History
from parley_dispatcher.owner import Owner
from parley_dispatcher.providers.base import Event, Provider, Request, Said
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_dispatcher.runner import Runner
from parley_dispatcher.settings import Settings
from parley_dispatcher.state import ThreadState, evolve
from parley_dispatcher.worker import Worker
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import AgentSpec, Principal, ThreadSeed
from parley_events.clock import Clock, system_clock
from parley_events.codec import COMMANDS_TOPIC, EVENTS_TOPIC, Command, Fact, decode_fact, encode_command, encode_fact
from parley_events.contents import Contents
from parley_events.log import Group, Incoming, Outgoing, Producer, Tail
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.port import OnAssigned, OnRevoked, OnWanted
from parley_events.objects import Objects, open_objects
from parley_events.partition import partition_of
from parley_events.pieces import DELTAS_TOPIC, Piece, decode_pieces
from parley_events.telemetry import OFF, Telemetry

PARTITIONS = 2
LIMIT_S = 4.0
WORKSPACE = "11111111-2222-4333-8444-555555555555"
ANN = Principal(user_id="ann", name="Ann")
BOB = Principal(user_id="bob")
RUN_ENDS = (f.RunCompleted, f.RunFailed, f.RunCancelled)


def agent(agent_id: str = "scripted", **more: Any) -> AgentSpec:
    return AgentSpec(agent_id=agent_id, name=agent_id.title(), tools=("*",), **more)


_numbers = itertools.count(1)


def new_thread(partition: int | None = None) -> str:
    """A thread id of a partition (None: of any)."""
    while True:
        thread = f"00000000-0000-4000-8000-{next(_numbers):012d}"
        if partition is None or partition_of(thread.encode(), PARTITIONS) == partition:
            return thread


def post(text: str, *, principal: Principal = ANN, open_thread: bool = True, **more: Any) -> c.PostMessage:
    fields: dict[str, Any] = {"agent_id": "scripted", "agent_version": 1} | more
    seed = ThreadSeed(user_id=principal.user_id) if open_thread else None
    return c.PostMessage(principal=principal, text=text, open=seed, **fields)


def command(stream: str, body: c.CommandBody, command_id: str | None = None, **more: Any) -> Command:
    return Command(
        id=command_id or f"command-{next(_numbers)}",
        stream=stream,
        workspace_id=WORKSPACE,
        time_ms=system_clock(),
        body=body,
        **more,
    )


class Gate:
    """Open, until it is closed."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()


class GatedTail:
    """A tail that gives nothing while its gate is closed."""

    def __init__(self, tail: Tail, gate: Gate) -> None:
        self._tail, self._gate = tail, gate
        self.add, self.remove, self.position, self.close = tail.add, tail.remove, tail.position, tail.close

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        await self._gate.passed()
        found = await self._tail.batch(timeout_s, limit)
        await self._gate.passed()
        return found


class GatedLog:
    """One dispatcher's way to the log: `own_tail` and `ends` can be held up, commits are written down."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.own_tail, self.commands_ends = Gate(), Gate()
        self.ends_asked = asyncio.Event()
        self._asks = 0
        self.commits: list[dict[int, int]] = []
        self.groups: list[Group] = []
        self.producer, self.begins, self.at_time = log.producer, log.begins, log.at_time
        self.committed = log.committed

    @property
    def partitions(self) -> int:
        return self._log.partitions

    async def tail(self, topic: str, starts: Mapping[int, int]) -> Tail:
        return GatedTail(await self._log.tail(topic, starts), self.own_tail)

    async def group(
        self,
        topic: str,
        group_id: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        on_wanted: OnWanted | None = None,
    ) -> Group:
        group = await self._log.group(topic, group_id, on_assigned, on_revoked, on_wanted)
        commit = group.commit

        async def noted(offsets: Mapping[int, int]) -> None:
            await commit(offsets)
            self.commits.append(dict(offsets))

        group.commit = noted  # type: ignore[method-assign]
        self.groups.append(group)
        return group

    async def ends(self, topic: str) -> dict[int, int]:
        if topic == COMMANDS_TOPIC:
            self._asks += 1
            if self._asks > PARTITIONS:  # each claim asks before and after it; the second time counts
                self.ends_asked.set()
                await self.commands_ends.passed()
        return await self._log.ends(topic)

    async def close(self) -> None:
        return None


class HeldModel:
    """The scripted model, which stops before the word HOLD until `gate` is open; `holding` is set when it does."""

    def __init__(self) -> None:
        self._model = ScriptedModel(60.0)
        self.gate, self.holding = Gate(), asyncio.Event()
        self.gate.close()

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        async for event in self._model.stream(request):
            if isinstance(event, Said) and "HOLD" in event.text:
                self.holding.set()
                await self.gate.passed()
            yield event


class Past:
    """History's internal API, folded out of the log, spoken over the real client. `taking` closed: it stays where it
    is. `away`: PostgreSQL is away. `slow[stream]`: a gate before that stream's answer, `late[stream]`: one behind it,
    so that the answer is as old as the question."""

    def __init__(self, log: EmbeddedLog, agents: Sequence[AgentSpec], contents: Contents) -> None:
        self._log, self.agents = log, {spec.agent_id: spec for spec in agents}
        self._contents = contents
        self.facts: dict[str, list[tuple[Incoming, Fact]]] = {}
        self.next = dict.fromkeys(range(PARTITIONS), 0)
        self.epoch = dict.fromkeys(range(PARTITIONS), -1)
        self.claims: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
        self.taking = Gate()
        self.away = False
        self.slow: dict[str, Gate] = {}
        self.late: dict[str, Gate] = {}
        self.asked: list[str] = []
        self.workspace: dict[str, Any] = {}
        self._states: dict[str, ThreadState] = {}
        self.grown = asyncio.Condition()
        self.client = History(("http://history",), "token", transport=httpx2.MockTransport(self._serve))

    async def start(self) -> None:
        self._tail = await self._log.tail(EVENTS_TOPIC, dict(self.next))
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.close()
        await self.client.close()

    async def _read(self) -> None:
        while True:
            records = await self._tail.batch()
            await self.taking.passed()
            records = [await self._contents.whole(record) for record in records]
            async with self.grown:
                for record in records:
                    fact = decode_fact(record)
                    if fact.type == f.PartitionClaimed.type:
                        self.epoch[record.partition] = record.offset
                        self.claims[record.partition].append(record.offset)
                    elif fact.epoch == self.epoch[record.partition] and fact.seq is not None:
                        kept = self.facts.setdefault(fact.stream, [])
                        if fact.seq == len(kept) + 1:
                            kept.append((record, fact))
                    self.next[record.partition] = record.offset + 1
                self.grown.notify_all()

    async def reaches(self, offsets: Mapping[int, int]) -> None:
        """Until it has everything below these offsets."""
        async with asyncio.timeout(LIMIT_S), self.grown:
            await self.grown.wait_for(lambda: all(self.next[p] >= offset for p, offset in offsets.items()))

    async def _serve(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/internal/")
        self.asked.append(path)
        if self.away:
            return httpx2.Response(503)
        stream = path.split("/")[1] if path.startswith("streams/") else ""
        if stream in self.slow:
            await self.slow[stream].passed()
        answer = self._find(path.split("/"), request.url.params)
        if stream in self.late:
            await self.late[stream].passed()
        return httpx2.Response(404) if answer is None else httpx2.Response(200, content=orjson.dumps(answer))

    def _find(self, path: list[str], query: httpx2.QueryParams) -> Any:
        match path:
            case ["positions"]:
                return {"partitions": [self._position(p) for p in self.next]}
            case ["partitions", number]:
                partition = int(number)
                threads = [
                    s
                    for s in self.facts
                    if not s.startswith("ws:") and partition_of(s.encode(), PARTITIONS) == partition
                ]
                return {
                    **self._position(partition),
                    "open_threads": [stream for stream in threads if self._open_runs(stream)],
                    "waiting_threads": [
                        stream
                        for stream in threads
                        if (runs := self._state(stream).open_runs.values())
                        and all(run.status == "waiting" for run in runs)
                    ],
                    "claims": self.claims[partition],
                }
            case ["due"]:
                asked = {int(number) for number in query["partitions"].split(",")}
                return {"items": self._dues(asked, int(query["until_ms"]))}
            case ["streams", stream, "facts"]:
                partition = partition_of(stream.encode(), PARTITIONS)
                kept = self.facts.get(stream, [])
                found = kept[int(query["after"]) :][: int(query["limit"])]
                return {
                    "items": [_stored(record) for record, _ in found],
                    "last_seq": len(kept),
                    "partition": partition,
                    "next_offset": self.next[partition],
                    "epoch": self.epoch[partition],
                }
            case ["workspaces", _, "agents", agent_id]:
                spec = self.agents.get(agent_id)
                if spec is None or query.get("version", "1") != "1":
                    return None
                return {"id": agent_id, "uuid": agent_id, "version": 1, "spec": spec.model_dump(mode="json")}
            case ["workspaces", workspace]:
                count, seq = len(self._documents(workspace)), len(self.facts.get(f"ws:{workspace}", []))
                return {"id": workspace, "name": "default", "documents": count, "seq": seq, **self.workspace}
            case ["workspaces", workspace, "knowledge", name]:
                return self._documents(workspace).get(name)
            case ["workspaces", workspace, "passages"]:
                items = [
                    {"knowledge_id": one["id"], "title": one["title"], "number": 0, "text": one["content"]}
                    for one in self._documents(workspace).values()
                    if query["query"] in one["content"]
                ]
                return {"items": items[: int(query["limit"])]}
        return None

    def _documents(self, workspace: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _, fact in self.facts.get(f"ws:{workspace}", []):
            body = fact.body
            if isinstance(body, f.KnowledgeAdded):
                found[body.knowledge_id] = {
                    "id": body.knowledge_id,
                    "title": body.title,
                    "content": body.text,
                    "created_at": "",
                    "characters": len(body.text),
                    "content_type": body.content_type,
                }
            elif isinstance(body, f.KnowledgeRemoved):
                del found[body.knowledge_id]
        return found

    def _position(self, p: int) -> dict[str, int]:
        facts = [fact for kept in self.facts.values() for record, fact in kept if record.partition == p]
        numbers = [number for fact in facts for number in getattr(fact.body, "numbers", ())]
        return {
            "partition": p,
            "next_offset": self.next[p],
            "epoch": self.epoch[p],
            "last_number": max(numbers, default=0),
        }

    def _open_runs(self, stream: str) -> set[str]:
        return set(self._state(stream).open_runs)

    def _state(self, stream: str) -> ThreadState:
        """The thread as its facts tell it; they come one by one, so it is folded anew only from where it stands."""
        state = self._states.setdefault(stream, ThreadState(stream))
        for _, fact in self.facts[stream][state.seq :]:
            evolve(state, fact)
        return state

    def _dues(self, partitions: set[int], until_ms: int) -> list[dict[str, Any]]:
        """What is due, by the rules of the view: each with its key, until something takes it away."""
        found = {}
        for stream in self.facts:
            if stream.startswith("ws:") or partition_of(stream.encode(), PARTITIONS) not in partitions:
                continue
            state = self._state(stream)
            if state.exists and not state.expired and not state.open_runs and state.idle_s is not None:
                found[stream, "session"] = state.last_ms + state.idle_s * 1000
            for run in state.open_runs.values():
                if run.due_at_ms is not None:
                    found[stream, run.run_id] = run.due_at_ms
                for _, use in run.uses():
                    if use.asked is not None and use.asked.decision is None:
                        found[stream, use.asked.approval_id] = use.asked.due_at_ms
                    elif use.effect == "client" and use.open and use.due_at_ms is not None:
                        found[stream, use.message_id] = use.due_at_ms
        return [
            {"stream": stream, "workspace_id": WORKSPACE, "due_key": key, "due_at_ms": at}
            for (stream, key), at in sorted(found.items(), key=lambda due: due[1])
            if at <= until_ms
        ]


def _stored(record: Incoming) -> dict[str, Any]:
    return {
        "offset": record.offset,
        "time_ms": record.time_ms,
        "headers": {name: value.decode() for name, value in record.headers},
        "body": orjson.Fragment(record.value or b"{}"),
    }


class Reader:
    """What everybody may believe: the facts of the newest claims, each seq once; `all` has every record, made whole,
    and `sizes` the bytes that each had on the log."""

    def __init__(self, log: EmbeddedLog, contents: Contents) -> None:
        self._log, self._contents = log, contents
        self.sizes: list[int] = []
        self.all: list[tuple[Incoming, Fact]] = []
        self.facts: list[Fact] = []
        self.pieces: list[Piece] = []
        self._epoch = dict.fromkeys(range(PARTITIONS), -1)
        self._seqs: dict[str, int] = {}
        self._grown = asyncio.Condition()

    async def start(self) -> None:
        self._tails = [
            await self._log.tail(topic, dict.fromkeys(range(PARTITIONS), 0)) for topic in (EVENTS_TOPIC, DELTAS_TOPIC)
        ]
        self._tasks = [asyncio.create_task(self._read(tail)) for tail in self._tails]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tail in self._tails:
            await tail.close()

    async def _read(self, tail: Tail) -> None:
        while True:
            records = await tail.batch()
            whole = [await self._contents.whole(record) for record in records]
            async with self._grown:
                for record, read in zip(records, whole, strict=True):
                    if record.topic == DELTAS_TOPIC:
                        self.pieces.extend(decode_pieces(record))
                    else:
                        self._take(read)
                        self.sizes.append(len(record.value or b""))
                self._grown.notify_all()

    def _take(self, record: Incoming) -> None:
        fact = decode_fact(record)
        self.all.append((record, fact))
        if isinstance(fact.body, f.PartitionClaimed):
            self._epoch[record.partition] = record.offset
        elif fact.epoch == self._epoch[record.partition]:
            known = self._seqs.get(fact.stream, 0)
            if fact.seq is not None:
                if fact.seq <= known:
                    return
                assert fact.seq == known + 1, f"a hole in {fact.stream}: {fact.seq} after {known}"
                self._seqs[fact.stream] = fact.seq
            self.facts.append(fact)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; asked whenever something was read."""
        async with asyncio.timeout(LIMIT_S), self._grown:
            await self._grown.wait_for(condition)

    def of(self, stream: str, *kinds: type[f.FactBody]) -> list[Any]:
        """The bodies of a stream's facts, of these kinds (none: of all)."""
        return [
            fact.body for fact in self.facts if fact.stream == stream and (not kinds or isinstance(fact.body, kinds))
        ]

    def types(self, stream: str) -> list[str]:
        return [fact.type for fact in self.facts if fact.stream == stream]

    def outcomes(self, command_id: str) -> list[f.FactBody]:
        return [fact.body for fact in self.facts if fact.causation_id == command_id]

    async def outcome(self, command_id: str, count: int = 1) -> Any:
        """The newest outcome of a command, once there are `count`."""
        await self.until(lambda: len(self.outcomes(command_id)) >= count)
        return self.outcomes(command_id)[-1]

    async def wait_for(self, stream: str, *kinds: type[f.FactBody], count: int = 1) -> Any:
        """The body of the `count`-th fact of these kinds in the stream."""
        await self.until(lambda: len(self.of(stream, *kinds)) >= count)
        return self.of(stream, *kinds)[count - 1]

    async def ended(self, stream: str, count: int = 1) -> Any:
        """The end of the stream's `count`-th run that ended."""
        return await self.wait_for(stream, *RUN_ENDS, count=count)


@dataclass
class Dispatcher:
    """A dispatcher that runs."""

    worker: Worker
    log: GatedLog

    @property
    def runner(self) -> Runner:
        return self.worker._runner

    def owner(self, stream: str) -> Owner:
        return self.worker.owners[partition_of(stream.encode(), PARTITIONS)]


class World:
    """The log, history, and what a test does with them."""

    def __init__(self, log: EmbeddedLog, folder: Path, agents: Sequence[AgentSpec]) -> None:
        self.log, self.folder = log, folder
        self.objects = open_objects("memory:")
        self.contents = Contents(self.objects)
        self.history = Past(log, agents, self.contents)
        self.read = Reader(log, self.contents)

    async def put(self, stream: str, body: c.CommandBody, command_id: str | None = None, **more: Any) -> str:
        """Put a command on the log; its id."""
        asked = command(stream, body, command_id, **more)
        await self.producer.send(encode_command(asked, PARTITIONS, self.contents.stored))
        return asked.id

    async def ask(self, stream: str, body: c.CommandBody, command_id: str | None = None, **more: Any) -> Any:
        """Put a command on the log and wait for its outcome."""
        return await self.read.outcome(await self.put(stream, body, command_id, **more))

    async def send(self, record: Outgoing) -> int:
        return await self.producer.send(record)

    async def claim(self, partition: int, owner: str = "another") -> int:
        """A claim of somebody else's; its epoch."""
        claim = Fact(f.PartitionClaimed.type, "", None, -1, "", system_clock(), f.PartitionClaimed(owner=owner))
        return await self.producer.send(encode_fact(claim, partition))

    async def start(self) -> None:
        self.producer: Producer = await self.log.producer()
        await self.history.start()
        await self.read.start()

    async def close(self) -> None:
        await self.read.close()
        await self.history.close()
        await self.producer.close()

    @asynccontextmanager
    async def dispatcher(
        self,
        *,
        providers: Mapping[str, Provider] | None = None,
        wait: bool = True,
        log: GatedLog | None = None,
        objects: Objects | None = None,
        telemetry: Telemetry = OFF,
        clock: Clock = system_clock,
        **settings: Any,
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher as `app.build` makes it, of this world's log and history. It leaves without a grace period."""
        chosen = replace(
            Settings(
                data=self.folder, partitions=PARTITIONS, drain_s=0.0, delta_tick_ms=5, timer_ms=10, model_backoff_ms=1
            ),
            **settings,
        )
        gated = log or GatedLog(self.log)
        failures: list[str] = []
        app = build(
            chosen,
            log=gated,
            history=self.history.client,
            objects=objects or self.objects,
            providers=providers,
            telemetry=telemetry,
            clock=clock,
            on_failure=failures.append,
        )
        async with app.router.lifespan_context(app):
            worker = app.state.running.worker
            if wait:
                await eventually(lambda: worker.ready)
            yield Dispatcher(worker, gated)
        assert not failures, failures


async def eventually(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Until the condition holds, which nobody signals."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


async def within(work: Awaitable[Any], limit_s: float = LIMIT_S) -> Any:
    async with asyncio.timeout(limit_s):
        return await work


@asynccontextmanager
async def make_world(folder: Path, *agents: AgentSpec) -> AsyncIterator[World]:
    log = await EmbeddedLog.open(None, PARTITIONS)
    world = World(log, folder, agents or (agent(), agent("assistant")))
    await world.start()
    try:
        yield world
    finally:
        await world.close()
        await log.close()


def run_id(stream: str, command_id: str) -> str:
    return ids.run_id(stream, command_id)

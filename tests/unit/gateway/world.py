"""A gateway on a memory log, with a dispatcher that plays what a test says and a history folded out of the log.

Deciding is the dispatcher's own pure code; what runs then say is in the hands of the test (`Play`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from parley_dispatcher.decide import answering_agent, decide
from parley_dispatcher.state import State, ThreadState, WorkspaceState, evolve, initial
from parley_events import facts as f
from parley_events import ids
from parley_events.body import AgentSpec, Block, Principal, TeamSpec, Usage
from parley_events.clock import Clock, parse_rfc3339, rfc3339, system_clock
from parley_events.codec import (
    COMMANDS_TOPIC,
    EVENTS_TOPIC,
    Command,
    Fact,
    decode_command,
    decode_fact,
    encode_command,
    encode_fact,
)
from parley_events.commands import ChangeWorkspace, CommandBody, CreateKey, CreateWorkspace, PutAgent, PutTeam
from parley_events.contents import Contents
from parley_events.keys import key_hash, make_key
from parley_events.log import Incoming, Log
from parley_events.log.embedded import EmbeddedLog
from parley_events.objects import open_objects
from parley_events.partition import partition_of
from parley_events.pieces import Kind, Piece, encode_pieces
from parley_events.positions import PartitionPosition, Position, parse_positions
from parley_events.retelling import retold
from parley_events.serve import Http
from parley_events.telemetry import OFF, Telemetry
from parley_gateway.app import build
from parley_gateway.core import Core
from parley_gateway.history import History
from parley_gateway.runs import RunTold, text_of
from parley_gateway.settings import Settings

GROUP = "parley.dispatcher"
PARTITIONS = 4
TOKEN = "between-services"
WORKSPACE = "11111111-2222-4333-8444-555555555555"
STRUCTURE = "6f6c1f6e-0000-4000-8000-000000000001"
LIMIT_S = 10.0


async def _nothing(partitions: frozenset[int]) -> None:
    """What the group gives and takes is all the same here."""


class Dispatcher:
    """Decides commands with the real `decide`; `play` says what each run does."""

    def __init__(self, log: Log, clock: Clock, contents: Contents) -> None:
        self._log, self._clock, self._contents = log, clock, contents
        self.states: dict[str, State] = {}
        self.epochs: dict[int, int] = {}
        self.play: Play = say("Hello ", "world")
        self.deaf = False
        self.heard: list[Command] = []
        self.numbers = 0
        self.written: dict[str, list[Fact]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []

    async def start(self) -> None:
        self._producer = await self._log.producer()
        for p in range(PARTITIONS):
            await self.claim(p)
        self._group = await self._log.group(COMMANDS_TOPIC, GROUP, _nothing, _nothing)
        self._spawn(self._listen())

    async def claim(self, partition: int) -> None:
        """A new claim on a partition."""
        claim = Fact(f.PartitionClaimed.type, "", None, -1, "", self._clock(), f.PartitionClaimed(owner="test"))
        self.epochs[partition] = await self._producer.send(encode_fact(claim, partition))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._group.close()
        await self._producer.close()
        assert not self.errors, self.errors

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def _listen(self) -> None:
        while True:
            for record in await self._group.batch():
                command = decode_command(await self._contents.whole(record))
                self.heard.append(command)
                if not self.deaf:
                    self._decide(command)
                    await self._group.commit({record.partition: record.offset + 1})

    def _decide(self, command: Command) -> None:
        state = self.state(command.stream)
        agent = answering_agent(state, command)
        version = None
        if agent is not None:
            workspace = self.state(ids.workspace_stream(command.workspace_id))
            assert isinstance(workspace, WorkspaceState)
            known = workspace.agents.get(agent)
            version = known.version if known and not known.deleted else None
        fact = self.append(
            command.stream,
            decide(state, command, version),
            workspace_id=command.workspace_id,
            causation_id=command.id,
            body_hash=command.body_hash,
            correlation_id=command.correlation_id,
        )
        if isinstance(fact.body, f.MessagePosted):
            self._spawn(self.play(self, fact))

    def state(self, stream: str) -> State:
        return self.states.setdefault(stream, initial(stream))

    def append(self, stream: str, body: f.FactBody, **envelope: Any) -> Fact:
        """The next fact of a stream."""
        state = self.state(stream)
        numbered = body.type not in f.UNNUMBERED
        partition = partition_of(stream.encode(), PARTITIONS)
        if isinstance(body, f.Numbered):
            self.numbers += body.wanted
            numbers = tuple(range(self.numbers - body.wanted + 1, self.numbers + 1))
            body = body.model_copy(update={"numbers": numbers})
        if isinstance(body, f.ToolCalled | f.ToolReturned | f.ToolAnswered):
            body = body.model_copy(update={"message_id": ids.fact_message_id(stream, state.seq + 1)})
        elif isinstance(body, f.ApprovalRequested):
            body = body.model_copy(update={"approval_id": ids.approval_id(stream, state.seq + 1)})
        fact = Fact(
            type=body.type,
            stream=stream,
            seq=state.seq + 1 if numbered else None,
            epoch=self.epochs[partition],
            time_ms=self._clock(),
            body=body,
            workspace_id=envelope.pop("workspace_id", state.workspace_id),
            run_id=body.parent_run_id if isinstance(body, f.ChildStarted) else getattr(body, "run_id", None),
            call=getattr(body, "call", None)
            if isinstance(body, f.ModelReturned | f.ModelFailed | f.RunCancelled)
            else None,
            **envelope,
        )
        evolve(state, fact)
        self.written.setdefault(stream, []).append(fact)
        self._producer.send(encode_fact(fact, partition, self._contents.stored))
        return fact

    def pieces(self, *pieces: Piece, epoch: int | None = None) -> None:
        """One batch of pieces, of one thread."""
        partition = partition_of(pieces[0].thread_id.encode(), PARTITIONS)
        self._producer.send(encode_pieces(partition, self.epochs[partition] if epoch is None else epoch, pieces))

    def stale(self, posted: Fact, epoch: int, piece: Piece) -> None:
        """What an owner writes whose claim was overtaken, and who does not know it: a piece, and the run's end."""
        run = run_id_of(posted)
        seq = (self.state(posted.stream).seq or 0) + 1
        body = f.RunCompleted(run_id=run, message_id=ids.answer_id(run), stop_reason="end_turn", usage=Usage())
        fact = posted._replace(type=body.type, seq=seq, epoch=epoch, body=body, causation_id=None)
        self.pieces(piece, epoch=epoch)
        self._producer.send(encode_fact(fact, partition_of(posted.stream.encode(), PARTITIONS)))

    # ---- the steps of a run

    def member(self, posted: Fact, at: int, round: int = 0) -> Fact:
        """A member of the team that answers begins; its steps are told as those of a message."""
        run, play = run_id_of(posted), posted.body.play  # type: ignore[attr-defined]
        body = f.ChildStarted(
            run_id=ids.member_run_id(run, round, at),
            parent_run_id=run,
            tool_call_id="",
            agent_id=play.members[at],
            agent_version=1,
            text="",
            member=at,
            round=round,
        )
        return self.append(posted.stream, body)

    def called(self, posted: Fact, turn: int = 0, attempt: int = 1) -> int:
        body = posted.body
        assert isinstance(body, f.MessagePosted | f.ChildStarted)
        fact = self.append(
            posted.stream,
            f.ModelCalled(
                run_id=body.run_id,
                turn=turn,
                attempt=attempt,
                agent_id=body.agent_id,
                agent_version=body.agent_version,
                model="scripted",
                shown=self.state(posted.stream).seq,
            ),
        )
        assert fact.seq is not None
        return fact.seq

    def speak(self, posted: Fact, call: int, words: tuple[str, ...], block: int = 0, kind: Kind = "text") -> None:
        at = 0
        for word in words:
            self.pieces(Piece(posted.stream, call, block, kind, at, word))
            at += len(word)

    def returned(self, posted: Fact, call: int, *blocks: Block, turn: int = 0) -> Fact:
        stop = "tool_use" if any(block.kind == "tool" for block in blocks) else "end_turn"
        body = f.ModelReturned(
            run_id=run_id_of(posted),
            call=call,
            turn=turn,
            blocks=blocks,
            stop_reason=stop,
            usage=Usage(input_tokens=3, output_tokens=4),
        )
        return self.append(posted.stream, body)

    def failed(self, posted: Fact, call: int, attempt: int = 1, retry: bool = True) -> Fact:
        body = f.ModelFailed(
            run_id=run_id_of(posted),
            call=call,
            turn=0,
            attempt=attempt,
            kind="cut",
            message="the stream broke",
            usage=Usage(),
            retry=retry,
        )
        return self.append(posted.stream, body)

    def completed(self, posted: Fact) -> Fact:
        run = run_id_of(posted)
        body = f.RunCompleted(
            run_id=run,
            message_id=ids.answer_id(run),
            stop_reason="end_turn",
            usage=Usage(input_tokens=3, output_tokens=4),
        )
        return self.append(posted.stream, body)

    def ended(self, posted: Fact, kind: str, message: str) -> Fact:
        """The run fails."""
        run = run_id_of(posted)
        body = f.RunFailed(
            run_id=run,
            message_id=ids.answer_id(run),
            code=f"model_{kind}",
            message=message,
            usage=Usage(input_tokens=3),
        )
        return self.append(posted.stream, body)

    def cancelled(self, posted: Fact, call: int | None, *blocks: Block) -> Fact:
        """The run stops, with what the call had said so far."""
        run = run_id_of(posted)
        body = f.RunCancelled(
            run_id=run, message_id=ids.answer_id(run), by="ann", call=call, blocks=blocks, usage=Usage(input_tokens=3)
        )
        return self.append(posted.stream, body)

    def use(self, posted: Fact, call: int, name: str, arguments: dict[str, Any], result: str, **more: Any) -> None:
        """A tool call and its result."""
        run = run_id_of(posted)
        call_id = f"call-{call}-{name}"
        self.append(
            posted.stream,
            f.ToolCalled(
                run_id=run,
                call=call,
                index=more.get("index", 0),
                tool_call_id=call_id,
                name=name,
                arguments=arguments,
                effect="read_only",
                effect_key="k",
            ),
        )
        self.append(
            posted.stream,
            f.ToolReturned(
                run_id=run,
                call=call,
                index=more.get("index", 0),
                tool_call_id=call_id,
                name=name,
                status=more.get("status", "ok"),
                result=result,
                note=more.get("note"),
                files=more.get("files", ()),
            ),
        )

    def asked(self, posted: Fact, call: int, name: str, arguments: dict[str, Any], **more: Any) -> str:
        """A person is asked before a tool is called; the approval's id."""
        fact = self.append(
            posted.stream,
            f.ApprovalRequested(
                run_id=run_id_of(posted),
                call=call,
                index=more.pop("index", 0),
                tool_call_id=f"call-{call}-{name}",
                name=name,
                arguments=arguments,
                due_at_ms=self._clock() + 86_400_000,
                **more,
            ),
        )
        return ids.approval_id(posted.stream, fact.seq or 0)

    def handed(self, posted: Fact, call: int, name: str, arguments: dict[str, Any], index: int = 0) -> str:
        """A tool that the client is to run; the call's id."""
        call_id = f"call-{call}-{name}"
        body = f.ToolCalled(
            run_id=run_id_of(posted),
            call=call,
            index=index,
            tool_call_id=call_id,
            name=name,
            arguments=arguments,
            effect="client",
            effect_key="k",
            due_at_ms=self._clock() + 86_400_000,
        )
        self.append(posted.stream, body)
        return call_id

    def parked(self, posted: Fact, *call_ids: str, waits_for: Any = "client_tool") -> None:
        """The run waits for these."""
        body = f.RunWaiting(
            run_id=run_id_of(posted),
            waits_for=waits_for,
            tool_call_ids=call_ids,
            due_at_ms=self._clock() + 86_400_000,
        )
        self.append(posted.stream, body)


Play = Callable[[Dispatcher, Fact], Awaitable[None]]


def run_id_of(posted: Fact) -> str:
    assert isinstance(posted.body, f.MessagePosted | f.ChildStarted)
    return posted.body.run_id


def tool_block(name: str, call: int, arguments: dict[str, Any]) -> Block:
    return Block(kind="tool", tool_call_id=f"call-{call}-{name}", name=name, arguments=arguments)


def say(*words: str) -> Play:
    """A run of one turn that streams these words."""

    async def play(dispatcher: Dispatcher, posted: Fact) -> None:
        call = dispatcher.called(posted)
        dispatcher.speak(posted, call, words)
        dispatcher.returned(posted, call, Block(kind="text", text="".join(words)))
        dispatcher.completed(posted)

    return play


async def silence(dispatcher: Dispatcher, posted: Fact) -> None:
    """A run that is left to the test."""


class Past:
    """History's internal API over a fold of the log. `away`: PostgreSQL is away; `behind`: it takes nothing in."""

    def __init__(self, log: Log, contents: Contents) -> None:
        self._log, self._contents = log, contents
        self.facts: dict[str, list[tuple[Incoming, Fact]]] = {}
        self.next = dict.fromkeys(range(PARTITIONS), 0)
        self.epoch = dict.fromkeys(range(PARTITIONS), -1)
        self.away = False
        self.held = asyncio.Event()
        self.held.set()
        self.asked: list[str] = []
        self._grown = asyncio.Condition()
        self.app = FastAPI(openapi_url=None)
        self.stops: list[dict[str, Any]] = []
        self.skips: list[dict[str, Any]] = []
        self.app.add_route("/internal/skips", self._skip, methods=["POST"])
        self.app.add_route("/internal/{path:path}", self._serve)

    async def start(self) -> None:
        self._tail = await self._log.tail(EVENTS_TOPIC, dict(self.next))
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.close()

    async def _read(self) -> None:
        while True:
            for record in await self._tail.batch():
                await self.held.wait()
                record = await self._contents.whole(record)
                fact = decode_fact(record)
                if fact.type == f.PartitionClaimed.type:
                    self.epoch[record.partition] = record.offset
                elif fact.epoch == self.epoch[record.partition] and fact.seq is not None:
                    kept = self.facts.setdefault(fact.stream, [])
                    if fact.seq > len(kept):  # it may be sent twice
                        kept.append((record, fact))
                async with self._grown:
                    self.next[record.partition] = record.offset + 1
                    self._grown.notify_all()

    def _reached(self, text: str) -> bool:
        return all(map(self._there, parse_positions(text)))

    def _there(self, position: Position) -> bool:
        if isinstance(position, PartitionPosition):
            return self.next[position.partition] >= position.next_offset
        return len(self.facts.get(position.stream, [])) >= position.seq

    async def _serve(self, request: Request) -> JSONResponse:
        path = request.path_params["path"]
        self.asked.append(path)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "unauthorized"}, 401)
        if self.away:
            return JSONResponse({"error": "unavailable"}, 503)
        wanted = request.query_params.getlist("min_position")
        try:
            async with asyncio.timeout(int(request.query_params.get("wait_ms", "2000")) / 1000), self._grown:
                await self._grown.wait_for(lambda: all(map(self._reached, wanted)))
        except TimeoutError:
            return JSONResponse({"error": "behind"}, 503)
        if re.fullmatch("(more)*", request.query_params.get("cursor", "")) is None:
            return JSONResponse({"error": "bad_cursor"}, 400)
        parts = path.split("/")
        position = ",".join([*(f"{p}.{end}" for p, end in self.next.items()), *(p for p in wanted if "@" in p)])
        if parts[2:3] in (["threads"], ["runs"]) and len(parts) > 3:
            stream = parts[3][:36]
            position = f"{stream}@{len(self.facts.get(stream, []))}"
        found = self._find(parts, request) if "as_of" not in str(request.query_params) else self._then(parts, request)
        if found == "ahead":
            return JSONResponse({"error": "as_of_ahead"}, 400)
        if found is None:
            return JSONResponse({"error": "not_found"}, 404, {"parley-position": position})
        return JSONResponse(found, headers={"parley-position": position})

    def _then(self, path: list[str], request: Request) -> Any:
        """What a thread, its messages or a run were, with its facts up to a seq or a time alone."""
        stream = path[3][:36]
        whole, kept = self.facts, self.facts.get(stream, [])
        seq = int(request.query_params.get("as_of_seq", 2**53))
        until = int(request.query_params.get("as_of_ms", 2**53))
        if "as_of_seq" in request.query_params and seq > len(kept):
            return "ahead"
        self.facts = {stream: [one for one in kept if (one[1].seq or 0) <= seq and one[1].time_ms <= until]}
        try:
            return self._find(path, request)
        finally:
            self.facts = whole

    async def _skip(self, request: Request) -> JSONResponse:
        asked = await request.json()
        place = asked["partition"], asked["offset"]
        for made in self.skips:
            if (made["partition"], made["offset"]) == place:
                same = (made["reason"], made["user_id"]) == (asked["reason"], asked["user_id"])
                return JSONResponse(
                    made | {"repeated": True} if same else {"error": "skipped_before"}, 200 if same else 409
                )
        for stop in self.stops:
            if stop["skippable"] and (stop["partition"], stop["offset"]) == place:
                self.skips.append({**stop, **asked, "skipped_at": "2026-04-20T14:30:00Z"})
                return JSONResponse(self.skips[-1] | {"repeated": False})
        return JSONResponse({"error": "not_found"}, 404)

    def _find(self, path: list[str], request: Request) -> Any:
        query = request.query_params
        limit = int(query.get("limit", "50"))
        match path:
            case ["positions"]:
                return {
                    "partitions": [
                        {"partition": p, "next_offset": n, "epoch": self.epoch[p], "last_number": 0}
                        for p, n in self.next.items()
                    ]
                }
            case ["stops"]:
                return {"items": self.stops}
            case ["skips"]:
                return {"items": self.skips[:limit], "total": len(self.skips)}
            case ["streams", stream, "facts"]:
                return self._page(stream, query["workspace_id"], int(query["after"]), limit, query["order"] == "desc")
            case ["workspaces", w, "facts"]:
                return self._between(w, query.getlist("thread"), dict(query), limit)
            case ["workspaces", w, "owners"]:
                return {"items": [owner for at in query.getlist("at") if (owner := self._owner(w, at)) is not None]}
            case ["workspaces", w]:
                return self._workspace(w)
            case ["workspaces", w, "keys"]:
                return {"items": list(self._keys(w).values())}
            case ["workspaces", w, "keys", "by-hash", digest]:
                return next((key for key in self._keys(w).values() if key["key_hash"] == digest), None)
            case ["workspaces", w, "agents"]:
                return {"items": self._specs(w, f.AgentChanged, "agent")}
            case ["workspaces", w, "teams"]:
                return {"items": self._specs(w, f.TeamChanged, "team")}
            case ["workspaces", w, "agents", name, "versions"]:
                return self._versions(w, f.AgentChanged, "agent", name, query.get("version"))
            case ["workspaces", w, "teams", name, "versions"]:
                return self._versions(w, f.TeamChanged, "team", name, query.get("version"))
            case ["workspaces", w, "threads"]:
                return self._threads(w, dict(query), limit)
            case ["workspaces", w, "threads", thread]:
                return self._thread(w, thread)
            case ["workspaces", w, "threads", thread, "messages"]:
                return self._messages(w, thread, dict(query), limit)
            case ["workspaces", w, "messages"]:
                return self._numbered(w, dict(query), limit)
            case ["workspaces", w, "client-call"]:
                return self._client_call(w, dict(query))
            case ["workspaces", w, "threads", thread, "messages", message]:
                page = self._messages(w, thread, {}, 10_000) or {"items": []}
                return next((item for item in page["items"] if item["id"] == message), None)
            case ["workspaces", w, "said"]:
                rows = self._said(w, dict(query), query.getlist("channel"))
                rows = [row for row in rows if "before" not in query or row["number"] < int(query["before"])]
                return {"items": rows[-limit:]}
            case ["workspaces", w, "inbox"]:
                rows = [row for own in self._unread(w, dict(query)).values() for row in own]
                return {"items": rows[-limit:], "unread": len(rows)}
            case ["workspaces", w, "unread"]:
                found = sorted(self._unread(w, dict(query)).items())
                rows = [{"thread_id": name, "answered_seq": own[-1]["seq"]} for name, own in found if own]
                return {"items": [row for row in rows if row["thread_id"] > query["after"]][:limit]}
            case ["workspaces", w, "deleted"]:
                return {"count": self._deleted(w, dict(query))}
            case ["workspaces", w, "threads", thread, "files"]:
                return self._files(w, thread, dict(query), limit)
            case ["workspaces", w, "runs"]:
                return self._open_runs(w, dict(query), limit)
            case ["workspaces", w, "approvals"]:
                return self._approvals(w, dict(query), limit)
            case ["workspaces", w, "approvals", approval]:
                page = self._approvals(w, {}, 1000)["items"]
                return next((item for item in page if item["id"] == approval), None)
            case ["workspaces", w, "runs", run]:
                return self._run(w, run)
            case ["workspaces", w, "knowledge"]:
                ids_asked = query.getlist("id")
                views = [{**one, "content": None} for one in self._documents(w).values()]
                views = [one for one in views if not ids_asked or one["id"] in ids_asked][::-1]
                return {
                    "items": views[:limit],
                    "next_cursor": "more" if len(views) > limit else None,
                    "total": len(views),
                }
            case ["workspaces", w, "knowledge", name]:
                return self._documents(w).get(name)
            case ["workspaces", w, "notes"]:
                return {"items": self._notes(w)}
        return None

    def _bodies(self, stream: str) -> list[tuple[Fact, Any]]:
        """The facts of a stream, and what it took over of another."""
        own = [fact for _, fact in self.facts.get(stream, [])]
        past = list(retold(own[0])) if own and isinstance(own[0].body, f.ThreadForked) else []
        return [(fact, fact.body) for fact in [*own[:1], *past, *own[1:]]]

    def _page(self, stream: str, w: str, after: int, limit: int, descending: bool) -> Any:
        partition = partition_of(stream.encode(), PARTITIONS)
        kept = [pair for pair in self.facts.get(stream, []) if pair[1].workspace_id == w]
        found = [kept[i] for i in range(len(kept)) if (kept[i][1].seq or 0) > after]
        if descending:
            found = [pair for pair in kept if (pair[1].seq or 0) < (after or 2**62)][::-1]
        items = [_stored(record, fact) for record, fact in found[:limit]]
        head = {"partition": partition, "next_offset": self.next[partition], "epoch": self.epoch[partition]}
        return {"items": items, "last_seq": len(kept), **head}

    def _between(self, w: str, threads: list[str], query: dict[str, str], limit: int) -> Any:
        """Facts of threads by their offsets, as `parley_history` has them."""
        p, first, below = (int(query[name]) for name in ("partition", "from", "below"))
        found: list[tuple[Incoming, Fact]] = []
        for stream, pairs in self.facts.items():
            owner = self._owner(w, f"{stream}@0")
            if owner is None or (threads and stream not in threads):
                continue
            if "user_id" in query and owner["user_id"] not in (None, query["user_id"]):
                continue
            gone = [fact.seq or 0 for _, fact in pairs if isinstance(fact.body, f.ThreadDeleted)]
            found += [(r, fact) for r, fact in pairs if r.partition == p and (fact.seq or 0) >= max(gone, default=0)]
        found = sorted((pair for pair in found if first <= pair[0].offset < below), key=lambda pair: pair[0].offset)
        then = below if len(found) <= limit else found[limit][0].offset
        return {"items": [_stored(*pair) for pair in found[:limit]], "next_offset": then}

    def _owner(self, w: str, at: str) -> Any:
        stream, _, below = at.partition("@")
        pairs = [pair for pair in self.facts.get(stream, []) if pair[1].workspace_id == w]
        seeds = [getattr(fact.body, "seed", None) or getattr(fact.body, "opened", None) for _, fact in pairs[:1]]
        if not seeds or seeds[0] is None:
            return None
        seq = max((fact.seq or 0 for record, fact in pairs if record.offset < int(below)), default=0)
        return {"id": stream, "seq": seq, **seeds[0].model_dump(include={"user_id", "agent_id", "team_id"})}

    def _workspace(self, w: str) -> Any:
        found: Any = None
        for _, body in self._bodies(f"ws:{w}"):
            if isinstance(body, f.WorkspaceCreated):
                found = {"id": w, "name": body.name}
            elif isinstance(body, f.WorkspaceChanged):
                found |= {"context": body.context, "structures": body.structures}
        return found

    def _keys(self, w: str) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for fact, body in self._bodies(f"ws:{w}"):
            if isinstance(body, f.KeyCreated):
                keys[body.key_id] = {
                    "id": body.key_id,
                    "key_hash": body.key_hash,
                    "workspace_id": w,
                    "workspace": self._workspace(w)["name"],
                    "user_id": body.user_id,
                    "scopes": list(body.scopes),
                    "rate_limit": body.rate_limit,
                    "created_at": rfc3339(fact.time_ms),
                    "revoked": False,
                }
            elif isinstance(body, f.KeyRotated):
                keys[body.key_id]["key_hash"] = body.key_hash
            elif isinstance(body, f.KeyRevoked):
                keys[body.key_id]["revoked"] = True
        return keys

    def _specs(self, w: str, kind: type[Any], name: str) -> list[Any]:
        found: dict[str, Any] = {}
        for _, body in self._bodies(f"ws:{w}"):
            if isinstance(body, kind):
                identity = getattr(body.spec, f"{name}_id")
                found[identity] = {
                    "id": identity,
                    "uuid": ids.agent_uuid(w, identity),
                    "version": getattr(body, f"{name}_version"),
                    "spec": body.spec.model_dump(mode="json"),
                }
            elif isinstance(body, f.AgentDeleted) and name == "agent":
                found.pop(body.agent_id, None)
            elif isinstance(body, f.TeamDeleted) and name == "team":
                found.pop(body.team_id, None)
        return list(found.values())

    def _versions(self, w: str, kind: type[Any], name: str, asked: str, version: str | None) -> Any:
        if all(asked not in (item["id"], item["uuid"]) for item in self._specs(w, kind, name)):
            return None
        items = [
            {
                "id": identity_of(body),
                "uuid": ids.agent_uuid(w, identity_of(body)),
                "version": getattr(body, f"{name}_version"),
                "spec": body.spec.model_dump(mode="json"),
                "created_at": rfc3339(fact.time_ms),
            }
            for fact, body in self._bodies(f"ws:{w}")
            if isinstance(body, kind) and asked in (identity_of(body), ids.agent_uuid(w, identity_of(body)))
        ]
        items = [item for item in items if version in (None, str(item["version"]))][::-1]
        return {"items": items, "next_cursor": None, "total": len(items)}

    def _thread(self, w: str, thread: str) -> Any:
        view: Any = None
        for fact, body in self._bodies(thread):
            made = isinstance(body, f.ThreadCreated | f.ThreadForked)
            opened = body.seed if made else getattr(body, "opened", None)
            if opened is not None:
                taken_over = getattr(body, "past", ())
                view = {
                    **opened.model_dump(),
                    "cleared_seq": taken_over[0].seq - 1 if taken_over else 0,
                    "id": thread,
                    "workspace_id": fact.workspace_id,
                    "pinned": False,
                    "archived": False,
                    "created_at": rfc3339(fact.time_ms),
                    "last_message_at": None,
                    "message_count": 0,
                }
            elif isinstance(body, f.ThreadUpdated):
                view |= {name: getattr(body, name) for name in body.changes}
            elif isinstance(body, f.ThreadDeleted):
                return None
            if view is None:
                return None
            if isinstance(body, f.MessagePosted):
                view["message_count"] += 1
            elif isinstance(body, f.ThreadCleared):
                view |= {"message_count": 0, "cleared_seq": fact.seq}
            if (fact.seq or 0) > 0:
                view |= {"updated_at": rfc3339(fact.time_ms), "position": f"{thread}@{fact.seq}"}
        return view if view is not None and view["workspace_id"] == w else None

    def _threads(self, w: str, query: dict[str, str], limit: int) -> Any:
        views = [view for stream in self.facts if (view := self._thread(w, stream)) is not None]
        views = [
            view
            for view in views
            if view["user_id"] == query["user_id"]
            and view["archived"] == (query.get("archived") == "true")
            and query.get("agent_id") in (None, view["agent_id"])
            and query.get("team_id") in (None, view["team_id"])
        ]
        return {"items": views[::-1][:limit], "next_cursor": None, "total": len(views)}

    def _said(self, w: str, query: dict[str, str], channels: list[str]) -> list[Any]:
        """Questions and answers by their numbers, as the view of `parley_history` has them."""
        rows: list[Any] = []
        for stream in self.facts:
            view = self._thread(w, stream)
            if view is None or (
                query["thread_id"] != stream
                if "thread_id" in query
                else (view["user_id"], view["agent_id"], view["end_user"])
                != (query["user_id"], query["agent_id"], None)
                or view["channel"] not in channels
            ):
                continue
            rows += self._messages(w, stream, {}, 10_000)["items"]
        return sorted(rows, key=lambda row: row["number"])

    def _unread(self, w: str, query: dict[str, str]) -> dict[str, list[Any]]:
        """The answers beyond the user's mark, by thread."""
        found: dict[str, list[Any]] = {}
        for stream in self.facts:
            view = self._thread(w, stream)
            asked = (query["user_id"], query["agent_id"], None)
            if view is None or (view["user_id"], view["agent_id"], view["end_user"]) != asked:
                continue
            marks = [body.up_to for _, body in self._bodies(stream) if isinstance(body, f.ThreadRead)]
            rows = self._messages(w, stream, {"roles": "assistant"}, 10_000)["items"]
            found[stream] = [row for row in rows if row["seq"] > max(marks, default=0)]
        return found

    def _deleted(self, w: str, query: dict[str, str]) -> int:
        count = 0
        for stream in self.facts:
            bodies = [body for fact, body in self._bodies(stream) if fact.workspace_id == w]
            opened = next((body.opened for body in bodies if getattr(body, "opened", None) is not None), None)
            if opened is not None and any(isinstance(body, f.ThreadDeleted) for body in bodies):
                names = ("user_id", "agent_id", "team_id", "channel")
                count += all(getattr(opened, name) == query.get(name) for name in names)
        return count

    def _told(self, thread: str) -> dict[str, RunTold]:
        runs: dict[str, RunTold] = {}
        for fact, body in self._bodies(thread):
            run = getattr(body, "run_id", None)
            if run is not None:
                runs.setdefault(run, RunTold(run, thread)).fold(fact)
        return runs

    def _run(self, w: str, run: str) -> Any:
        told = self._told(run[:36]).get(run)
        if told is None or told.workspace_id != w:
            return None
        view = told.view()
        return (view if view.posted_seq > 0 else view.model_copy(update={"usage": Usage()})).model_dump(mode="json")

    def _open_runs(self, w: str, query: dict[str, str], limit: int) -> Any:
        items: list[Any] = []
        for stream in self.facts:
            thread = self._thread(w, stream)
            for told in self._told(stream).values() if thread is not None else ():
                view = told.view().model_dump(mode="json")
                shown = {name: view[name] for name in ("id", "thread_id", "agent_id", "status", "created_at")}
                item = {**shown, "user_id": thread["user_id"]}
                shared = thread["user_id"] is None and "thread_id" in query
                if (
                    view["ended_seq"] is None
                    and all(query.get(name) in (None, item[name]) for name in ("agent_id", "thread_id"))
                    and (query.get("user_id") in (None, item["user_id"]) or shared)
                    and parse_rfc3339(item["created_at"]) <= int(query.get("until_ms", 2**60))
                ):
                    items.append(item)
        items.sort(key=lambda item: (item["created_at"], item["id"]))
        return {"items": items[:limit], "next_cursor": "more" if len(items) > limit else None}

    def _approvals(self, w: str, query: dict[str, str], limit: int) -> Any:
        items: list[Any] = []
        for stream in self.facts:
            thread = self._thread(w, stream)
            own = self._bodies(stream) if thread is not None else []
            for fact, body in own:
                if isinstance(body, f.ApprovalRequested):
                    items.append({**_approval(fact, body, own), "user_id": thread["user_id"]})
        user, answerer = query.get("user_id"), query.get("answerer")
        items = [
            item
            for item in items
            if all(query.get(name) in (None, item[name]) for name in ("status", "thread_id", "agent_id"))
            and (
                (user is None and answerer is None)
                or (user is not None and item["user_id"] in (None, user))
                or (answerer is not None and (not item["who"] or answerer in item["who"]))
            )
        ]
        more = "more" if len(items) > limit else None
        return {"items": items[::-1][:limit], "next_cursor": more, "total": len(items)}

    def _messages(self, w: str, thread: str, query: dict[str, str], limit: int) -> Any:
        if self._thread(w, thread) is None:
            return None
        items: list[Any] = []
        for fact, body in self._bodies(thread):
            if isinstance(body, f.MessagePosted):
                items.append(
                    {
                        "id": body.message_id,
                        "number": body.numbers[1],
                        "seq": fact.seq,
                        "thread_id": thread,
                        "run_id": body.run_id,
                        "role": "user",
                        "content": body.text,
                        "author": body.author.model_dump(),
                        "attachments": [file.model_dump() for file in body.attachments],
                        "lead_context": body.lead_context,
                        "knowledge_ids": list(body.knowledge_ids),
                        "created_at": rfc3339(fact.time_ms),
                    }
                )
        numbers = {b.run_id: b.numbers[2] for _, b in self._bodies(thread) if isinstance(b, f.MessagePosted)}
        for told in self._told(thread).values():
            message = told.message()
            if message is not None:
                items.append({**message.model_dump(mode="json"), "number": numbers.get(told.run_id, 0)})
        items.sort(key=lambda item: item["seq"], reverse=query.get("order") == "desc")
        roles, page = query.get("roles"), len(query.get("cursor", "")) // len("more")
        items = [item for item in items if roles is None or item["role"] in roles.split(",")]
        more = "more" * (page + 1) if len(items) > limit * (page + 1) else None
        return {"items": items[limit * page :][:limit], "next_cursor": more, "total": len(items)}

    def _numbered(self, w: str, query: dict[str, str], limit: int) -> Any:
        """Messages by their numbers, as the view of `parley_history` has them."""
        rows: list[Any] = []
        for stream in self.facts:
            view = self._thread(w, stream)
            if view is not None and (
                query["thread_id"] == stream
                if "thread_id" in query
                else (view["user_id"], view["agent_id"], view["end_user"])
                == (query["user_id"], query["agent_id"], None)
            ):
                rows += self._parts(stream, query.get("tools") == "true")
        rows.sort(key=lambda row: row["number"])
        total = len(rows)
        if "after" in query:
            rows = [row for row in rows if row["number"] > int(query["after"])]
            return {"items": rows[:limit], "total": total, "has_more": len(rows) > limit}
        rows = [row for row in rows if "before" not in query or row["number"] < int(query["before"])]
        return {"items": rows[-limit:], "total": total, "has_more": len(rows) > limit}

    def _parts(self, stream: str, tools: bool) -> list[Any]:
        rows: list[Any] = []
        runs: dict[str, dict[str, Any]] = {}
        for fact, body in self._bodies(stream):
            if isinstance(body, f.ThreadCleared):
                rows, runs = [], {}
            if isinstance(body, f.MessagePosted):
                runs[body.run_id] = {"number": body.numbers[2], "text": "", "lead": None, "open": set()}
            run = runs.get(getattr(body, "run_id", ""))
            if run is None:
                continue
            row = {
                "id": "",
                "seq": fact.seq,
                "thread_id": stream,
                "run_id": body.run_id,
                "created_at": rfc3339(fact.time_ms),
                "content": None,
                "role": "tool",
            }
            if isinstance(body, f.MessagePosted):
                if body.system_prompt is not None or body.context is not None:
                    text = body.system_prompt or json.dumps(body.context, separators=(",", ":"))
                    rows.append({**row, "number": body.numbers[0], "role": "system", "content": text})
                asked = {"role": "user", "content": body.text, "metadata": body.metadata}
                rows.append({**row, **asked, "number": body.numbers[1]})
            elif isinstance(body, f.ModelReturned):
                run["text"] += text_of(body.blocks)
            elif isinstance(body, f.ToolCalled) and (body.effect == "client" or tools):
                call = {"id": body.tool_call_id, "name": body.name, "arguments": body.arguments, "status": "waiting"}
                row |= {"number": body.numbers[0], "tool_calls": [call], "client": body.effect == "client"}
                if not row["client"]:
                    rows.append(row)
                    continue
                run["open"].add((body.call, body.index))
                if len(run["open"]) > 1:
                    run["lead"]["tool_calls"].append(call)
                    continue
                row |= {"number": run["number"], "content": run["text"] or None}
                run |= {"number": body.numbers[0], "text": "", "lead": row}
                rows.append(row)
            elif isinstance(body, f.ToolReturned | f.ToolAnswered):
                client = isinstance(body, f.ToolAnswered)
                if client or tools:
                    said = {"content": body.result, "tool_call_id": body.tool_call_id, "client": client}
                    rows.append({**row, **said, "number": body.numbers[0]})
                run["open"].discard((body.call, body.index))
                run["number"] = body.numbers[1] if client else run["number"]
            elif fact.type in f.RUN_ENDS and (run["text"] or fact.type == f.RunCompleted.type):
                rows.append({**row, "number": run["number"], "role": "assistant", "content": run["text"]})
        return rows

    def _client_call(self, w: str, query: dict[str, str]) -> Any:
        for row in self._numbered(w, query, 200)["items"][::-1]:
            if any(call["id"] == query["tool_call_id"] for call in row.get("tool_calls") or ()):
                return row
        return None

    def _files(self, w: str, thread: str, query: dict[str, str], limit: int) -> Any:
        if self._thread(w, thread) is None:
            return None
        found: dict[tuple[str, str], Any] = {}
        for fact, body in self._bodies(thread):
            kind = "attachment" if isinstance(body, f.MessagePosted) else "artifact"
            for file in getattr(body, "attachments" if kind == "attachment" else "files", ()):
                view = {"kind": kind, "seq": fact.seq, "run_id": body.run_id, "created_at": rfc3339(fact.time_ms)}
                if query.get("sha256") in (None, file.sha256):
                    found.pop((kind, file.name), None)
                    found[kind, file.name] = {**file.model_dump(), **view}
        items = [
            item for item in found.values() if all(query.get(name) in (None, item[name]) for name in ("kind", "name"))
        ]
        return {"items": items[::-1][:limit], "next_cursor": None, "total": len(items)}

    def _documents(self, w: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for fact, body in self._bodies(f"ws:{w}"):
            if isinstance(body, f.KnowledgeAdded):
                found[body.knowledge_id] = {
                    "id": body.knowledge_id,
                    "title": body.title,
                    "content_type": body.content_type,
                    "characters": len(body.text),
                    "created_at": rfc3339(fact.time_ms),
                    "content": body.text,
                }
            elif isinstance(body, f.KnowledgeRemoved):
                del found[body.knowledge_id]
        return found

    def _notes(self, w: str) -> list[Any]:
        notes: list[Any] = []
        for stream in self.facts:
            for fact, body in self._bodies(stream):
                if isinstance(body, f.ToolReturned) and body.note is not None and fact.workspace_id == w:
                    notes.append(
                        {
                            **body.note.model_dump(include={"id", "kind", "title", "body"}),
                            "agent_id": "assistant",
                            "run_id": body.run_id,
                            "thread_id": stream,
                            "created_at": rfc3339(fact.time_ms),
                        }
                    )
        return notes[::-1]


def _stored(record: Incoming, fact: Fact) -> Any:
    return {
        "offset": record.offset,
        "time_ms": record.time_ms,
        "headers": {name: value.decode() for name, value in record.headers},
        "body": fact.body.model_dump(mode="json"),
    }


def _approval(fact: Fact, body: f.ApprovalRequested, own: list[tuple[Fact, Any]]) -> Any:
    """An approval as history has it, without whose thread it is in."""
    view: Any = {
        **body.model_dump(mode="json", include={"run_id", "tool_call_id", "name", "arguments", "question", "who"}),
        "id": body.approval_id,
        "thread_id": fact.stream,
        "agent_id": next(b.agent_id for _, b in own if isinstance(b, f.MessagePosted) and b.run_id == body.run_id),
        "seq": fact.seq,
        "input_schema": body.input_schema,
        "status": "open",
        "created_at": rfc3339(fact.time_ms),
        "expires_at": rfc3339(body.due_at_ms),
        **dict.fromkeys(("answered_by", "comment", "edited", "answered_at")),
    }
    for later, told in own:
        if view["status"] != "open":
            break
        if isinstance(told, f.ApprovalAnswered | f.ApprovalExpired) and told.approval_id == body.approval_id:
            view |= {"status": "expired", "answered_at": rfc3339(later.time_ms)}
            if isinstance(told, f.ApprovalAnswered):
                view["status"] = {"approve": "approved", "deny": "denied"}[told.decision]
                view |= {"answered_by": told.by, "comment": told.comment, "edited": told.arguments}
        elif told.type in f.RUN_ENDS and told.run_id == body.run_id:
            view |= {"status": "closed", "answered_at": rfc3339(later.time_ms)}
    return view


def identity_of(changed: Any) -> str:
    """The id of the agent or team that a fact changed."""
    spec = changed.spec
    return str(spec.agent_id if isinstance(spec, AgentSpec) else spec.team_id)


class World:
    """Everything, with HTTP clients of one or two gateways."""

    def __init__(
        self,
        log: EmbeddedLog,
        settings: Settings,
        clock: Clock = system_clock,
        new_uuid: ids.NewUuid = ids.random_uuid,
    ) -> None:
        self.log, self.settings, self.clock, self.new_uuid = log, settings, clock, new_uuid
        self.objects = open_objects("memory:")
        contents = Contents(self.objects)
        self.dispatcher, self.past = Dispatcher(log, clock, contents), Past(log, contents)
        self.key = make_key(WORKSPACE, b"k" * 32)
        self.admin_key = make_key(WORKSPACE, b"a" * 32)
        self._stack = contextlib.AsyncExitStack()
        self.gateways: list[tuple[FastAPI, str]] = []
        self.telemetry: Telemetry = OFF

    @property
    def core(self) -> Core:
        core: Core = self.gateways[0][0].state.core
        return core

    async def start(self, sockets: bool = True) -> None:
        await self.dispatcher.start()
        self._stack.push_async_callback(self.dispatcher.close)
        await self.past.start()
        self._stack.push_async_callback(self.past.close)
        await self.seed()
        if sockets:
            await self.gateway()
        else:
            await self.application()

    async def seed(self) -> None:
        """A workspace with agents, a team, and two keys, as commands."""
        await self.workspace(WORKSPACE, "default", {"api": self.key, "admin": self.admin_key}, (STRUCTURE,))

    async def workspace(
        self, workspace_id: str, name: str, keys: dict[str, str], structures: tuple[str, ...] = (), user: str = "ann"
    ) -> None:
        """One more workspace, with the keys named: all have `*`, the one called `admin` has `admin`, too."""
        system = Principal(user_id="system", admin=True)
        bodies: list[CommandBody] = [CreateWorkspace(principal=system, workspace_id=workspace_id, name=name)]
        bodies.append(ChangeWorkspace(principal=system, context="c", structures=structures))
        for agent in ("assistant", "scripted"):
            roles = ("executive-office-cmo",) if agent == "assistant" else ()
            spec = AgentSpec(agent_id=agent, name=agent.title(), roles=roles)
            bodies.append(PutAgent(principal=system, spec=spec, digest=f"{agent} of the file"))
        team = TeamSpec(team_id="pair", name="Pair", members=("assistant",))
        bodies.append(PutTeam(principal=system, spec=team, digest="pair of the file"))
        for key_id, key in keys.items():
            scopes = ("*", "admin") if key_id == "admin" else ("*",)
            bodies.append(
                CreateKey(principal=system, key_id=key_id, key_hash=key_hash(key), user_id=user, scopes=scopes)
            )
        stream = ids.workspace_stream(workspace_id)
        for number, body in enumerate(bodies):
            await self.command(f"seed-{name}-{number}", stream, body, workspace_id)
        await self.eventually(lambda: len(self.past.facts.get(stream, [])) == len(bodies))

    async def resend(self, fact: Fact) -> None:
        """The same bytes once more, as after an outage."""
        producer = await self.log.producer()
        await producer.send(encode_fact(fact, partition_of(fact.stream.encode(), PARTITIONS)))
        await producer.close()

    async def command(self, command_id: str, stream: str, body: CommandBody, workspace_id: str = WORKSPACE) -> None:
        producer = await self.log.producer()
        command = Command(command_id, stream, workspace_id, self.clock(), body)
        await producer.send(encode_command(command, PARTITIONS))
        await producer.close()

    def _build(self, **changes: Any) -> tuple[FastAPI, History]:
        history = History.in_process(self.past.app, TOKEN)
        app = build(
            replace(self.settings, **changes),
            log=self.log,
            history=history,
            objects=self.objects,
            clock=self.clock,
            new_uuid=self.new_uuid,
            telemetry=self.telemetry,
        )
        return app, history

    async def application(self, **changes: Any) -> FastAPI:
        """One more gateway without a server around it, for `tests.support.asgi`."""
        app, history = self._build(**changes)
        self._stack.push_async_callback(history.close)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        await self.eventually(lambda: app.state.core.hub.ready)
        self.gateways.append((app, ""))
        return app

    async def gateway(self, **changes: Any) -> str:
        """One more gateway; its address."""
        app, history = self._build(**changes)
        config = uvicorn.Config(
            app, port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=3, ws="none", http=Http
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        await self.eventually(lambda: server.started and app.state.core.hub.ready)
        port = server.servers[0].sockets[0].getsockname()[1]

        async def stop() -> None:
            app.state.core.hub.drain()
            server.should_exit = True
            await asyncio.wait_for(serving, LIMIT_S)
            await history.close()

        self._stack.push_async_callback(stop)
        self.gateways.append((app, f"http://127.0.0.1:{port}"))
        return self.gateways[-1][1]

    def client(self, gateway: int = 0, key: str | None = None) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self.gateways[gateway][1],
            headers={"Authorization": f"Bearer {key or self.key}"},
            timeout=LIMIT_S,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._stack.aclose()
        await self.log.close()

    async def eventually(self, check: Callable[[], Any]) -> Any:
        """Wait until `check` gives something true; fails after the limit."""
        async with asyncio.timeout(LIMIT_S):
            while not (found := check()):
                await asyncio.sleep(0.005)
        return found


def settings() -> Settings:
    return Settings(internal_token=TOKEN, workspace_id=WORKSPACE, outcome_s=2.0)


@asynccontextmanager
async def world(
    *,
    sockets: bool = True,
    clock: Clock = system_clock,
    new_uuid: ids.NewUuid = ids.random_uuid,
    **changes: Any,
) -> AsyncIterator[World]:
    """A running world; its first gateway is served on a port, or (`sockets` false) called directly."""
    log = await EmbeddedLog.open(None, partitions=PARTITIONS)
    made = World(log, replace(settings(), **changes), clock, new_uuid)
    try:
        await made.start(sockets)
        yield made
    finally:
        await made.close()


__all__ = ["Dispatcher", "Past", "ThreadState", "World", "run_id_of", "say", "silence", "tool_block", "world"]

"""Runs the runs: one task per open run, performing the steps that `steps.next_step` asks for.

Everything a run has done is in its thread's state, which is a fold of its facts; so a task may end at any moment (a
takeover, a cancel, a crash) and another one, here or elsewhere, goes on where the journal ends. Two things are never
waited for: acknowledgements of facts, and other runs. What cannot be taken back is: a tool that does not only read is
called once its intent was read back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from parley_dispatcher.agents import Agents
from parley_dispatcher.deltas import Deltas
from parley_dispatcher.errors import HistoryUnavailable, ModelError, NotOwner, ToolDoubt, ToolError
from parley_dispatcher.history import History
from parley_dispatcher.owner import EVENTS_TOPIC, Owner, World
from parley_dispatcher.prompt import NOT_RUN, UNKNOWN_OUTCOME, build_request
from parley_dispatcher.providers import provider_of
from parley_dispatcher.providers.base import Kept, Provider, Said, Signed, Stopped, Used
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import CallModel, CallTools, Finish, backoff_ms, next_step
from parley_dispatcher.tools import tools_of
from parley_dispatcher.tools.base import Call, Result, Tool
from parley_dispatcher.tools.servers import Servers
from parley_events import facts as f
from parley_events import ids
from parley_events.body import AgentSpec, Block, Json
from parley_events.clock import Clock
from parley_events.codec import Fact
from parley_events.errors import ObjectsUnavailable, RecordTooLarge
from parley_events.pieces import Piece
from parley_events.positions import PartitionPosition
from parley_events.reads import SkillView, WorkspaceView
from parley_events.telemetry import about

_log = logging.getLogger(__name__)

MAX_RESULT_CHARS = 8 * 1024 * 1024
"""A longer tool result is cut, and says so. How much of one the model is shown is `prompt`'s."""
CANCEL_GRACE_S = 5.0
MAX_DEPTH = 3
"""How deep agents may ask agents."""
TOOLS_AT_ONCE = 16
"""How many calls of one model turn are under way at once; the others wait for their place."""


@dataclass(slots=True)
class _Saying:
    """A block that is being said. `before`: the characters of the turn's blocks before it."""

    kind: Literal["text", "thought", "tool", "opaque"]
    before: int = 0
    parts: list[str] = field(default_factory=list)
    length: int = 0
    signature: str | None = None
    used: Used | None = None
    data: Json | None = None

    def block(self) -> Block:
        if self.used is not None:
            return Block(
                kind="tool",
                tool_call_id=self.used.tool_call_id,
                name=self.used.name,
                arguments=self.used.arguments,
                malformed=self.used.malformed,
            )
        return Block(kind=self.kind, text="".join(self.parts), signature=self.signature, data=self.data)


@dataclass(frozen=True, slots=True)
class Attempts:
    """How model calls are tried again."""

    most: int
    backoff_ms: int


class Runner:
    """Starts and stops the tasks of runs. `slots` bounds how many model turns are under way at once."""

    def __init__(
        self,
        world: World,
        deltas: Deltas,
        providers: Mapping[str, Provider],
        attempts: Attempts,
        slots: int,
        tool_timeout_s: float,
        effects: Path,
        default_model: str,
        servers: Servers,
    ) -> None:
        self._world, self._deltas, self._attempts = world, deltas, attempts
        self._providers = dict(providers)
        self._slots = asyncio.Semaphore(slots)
        self._default_model = default_model
        self._tool_timeout_s, self._effects, self._servers = tool_timeout_s, effects, servers
        self._agents: Agents = world.agents
        self._clock: Clock = world.clock
        self.draining = False

    def wake(self, owner: Owner, state: ThreadState) -> None:
        """Start what may start in a thread; stop what is being cancelled."""
        current = state.current()
        for run in list(state.open_runs.values()):
            if run.parent_run_id is not None or run.status == "waiting":
                continue
            task = owner.running.get(run.run_id)
            if run.status == "cancelling" and task is not None:
                # Once: a second one would end the grace that its tools are given.
                if not task.cancelling():
                    task.cancel("run cancelled")
            elif task is None and (run is current or run.status == "cancelling") and not self.draining:
                task = asyncio.get_running_loop().create_task(self._run(owner, state, run))
                owner.running[run.run_id] = task
                task.add_done_callback(partial(self._ended, owner, state, run))

    def _ended(self, owner: Owner, state: ThreadState, run: Run, task: asyncio.Task[None]) -> None:
        """Not the end of `_run`: a task that is cancelled before it begins never comes to that."""
        owner.running.pop(run.run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the task of %s died", run.run_id, exc_info=error)
            owner.lose("the task of a run died")
        if not owner.closed:
            self.wake(owner, state)

    async def _run(self, owner: Owner, state: ThreadState, run: Run) -> None:
        try:
            with about(thread_id=state.stream, run_id=run.run_id):
                await self._drive(owner, state, run, depth=0)
        except NotOwner:
            pass
        except asyncio.CancelledError:
            if not owner.closed and not self.draining:
                self._finish_cancelled(owner, state, run)
        except Exception as error:
            _log.exception("%s broke", run.run_id)
            if not owner.closed and not run.ended:
                failed = f.RunFailed(
                    run_id=run.run_id,
                    message_id=run.answer_id,
                    code="internal",
                    message=f"the run broke inside Parley ({type(error).__name__})",
                    usage=run.usage,
                )
                self._perform_finish(owner, state, run, Finish(failed))

    def _finish_cancelled(self, owner: Owner, state: ThreadState, run: Run) -> None:
        if run.status == "cancelling":
            self._perform_finish(owner, state, run, self._limits_free_finish(run))

    def _limits_free_finish(self, run: Run) -> Finish:
        return Finish(
            f.RunCancelled(
                run_id=run.run_id,
                message_id=run.answer_id,
                by=run.cancelled_by,
                reason=run.cancel_reason,
                usage=run.usage,
            )
        )

    async def _drive(self, owner: Owner, state: ThreadState, run: Run, depth: int) -> None:
        """Step after step until the run has ended or waits."""
        if run.status == "cancelling":
            self._perform_finish(owner, state, run, self._limits_free_finish(run))
            return
        spec = await self._spec(run, state)
        if spec is None:
            self._append(
                owner,
                state,
                run,
                f.RunFailed(
                    run_id=run.run_id,
                    message_id=run.answer_id,
                    code="unknown_agent",
                    message=f"version {run.agent_version} of the agent {run.agent_id!r} is gone",
                    usage=run.usage,
                ),
            )
            return
        while True:
            step = next_step(run, spec.limits, self._clock())
            match step:
                case None:
                    return
                case Finish():
                    self._perform_finish(owner, state, run, step)
                    return
                case _ if self._leaving(depth):
                    return
                case CallModel():
                    pause_ms = step.not_before_ms - self._clock()
                    if pause_ms > 0:
                        await asyncio.sleep(pause_ms / 1000)
                    async with self._slots:
                        if self._leaving(depth):
                            return
                        with self._world.instruments.model_call(state, run, spec, step.turn, step.attempt):
                            await self._call_model(owner, state, run, spec, step)
                case CallTools():
                    await self._call_tools(owner, state, run, spec, step, depth)

    def _leaving(self, depth: int) -> bool:
        """Whether no step is begun any more. A child's steps are within its parent's: they go on."""
        return self.draining and depth == 0

    async def _spec(self, run: Run, state: ThreadState) -> AgentSpec | None:
        pause_s = 0.05
        while True:
            try:
                spec = await self._agents.spec(state.workspace_id, run.agent_id, run.agent_version)
                if spec is not None and spec.model == "default":
                    return spec.model_copy(update={"model": self._default_model})
                return spec
            except HistoryUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)

    def _perform_finish(self, owner: Owner, state: ThreadState, run: Run, step: Finish) -> None:
        """End the run, and before it what is open inside it: its children, and calls that nobody waits for now."""
        for child in [child for child in state.open_runs.values() if child.parent_run_id == run.run_id]:
            self._perform_finish(owner, state, child, self._limits_free_finish(child))
        for turn in run.turns:
            for use in turn.tools:
                if use.open and use.called is not None:
                    self._returned(owner, state, run, turn.call, use, "unknown", Result(UNKNOWN_OUTCOME), 0)
        self._append(owner, state, run, step.body)

    def _append(self, owner: Owner, state: ThreadState, run: Run, body: f.FactBody, call: int | None = None) -> Fact:
        fact = owner.append(
            state,
            body,
            run_id=run.run_id,
            call=call,
            correlation_id=run.command_id,
            traceparent=run.traceparent,
        )
        if fact.type in f.RUN_ENDS:
            self._world.instruments.run_ended(state, run, body, self._clock())
        return fact

    # ---- the model

    async def _call_model(self, owner: Owner, state: ThreadState, run: Run, spec: AgentSpec, step: CallModel) -> None:
        workspace = await self._workspace(state.workspace_id)
        offered = tools_of(spec)
        if workspace is not None and workspace.mcp_servers:
            offered |= await self._servers.tools(workspace.id, workspace.mcp_servers, workspace.connectors, spec.tools)
        tools = [tool.schema() for tool in offered.values()]
        context = workspace.context if workspace is not None else None
        request = build_request(state, run, spec, context, tools, step.attempt)
        called = self._append(
            owner,
            state,
            run,
            f.ModelCalled(
                run_id=run.run_id,
                turn=step.turn,
                attempt=step.attempt,
                agent_id=run.agent_id,
                agent_version=run.agent_version,
                model=spec.model,
                shown=state.seq,
            ),
        )
        call = called.seq or 0
        blocks: list[_Saying] = []
        stopped: Stopped | None = None
        partition, epoch, thread_id = owner.partition, owner.epoch, state.stream
        try:
            async for event in provider_of(self._providers, spec.model).stream(request):
                match event:
                    case Said(index, kind, said):
                        text = without_nul(said)
                        if index == len(blocks):
                            blocks.append(_Saying(kind, sum(saying.length for saying in blocks)))
                        saying = blocks[index]
                        piece = Piece(thread_id, call, index, kind, saying.length, text, saying.before)
                        self._deltas.add(partition, epoch, piece)
                        saying.parts.append(text)
                        saying.length += len(text)
                    case Used():
                        blocks.append(_Saying("tool", used=event))
                    case Signed(index, signature):
                        if index == len(blocks):
                            blocks.append(_Saying("thought", sum(saying.length for saying in blocks)))
                        blocks[index].signature = signature
                    case Kept():
                        blocks.append(_Saying("opaque", data=event.data))
                    case Stopped():
                        stopped = event
            if stopped is None:
                raise ModelError("cut", "the stream ended without saying why", retry=True)
            self._deltas.finish(partition, epoch, thread_id, call)
            returned = f.ModelReturned(
                run_id=run.run_id,
                call=call,
                turn=step.turn,
                blocks=tuple(saying.block() for saying in blocks),
                stop_reason=stopped.stop_reason,
                usage=stopped.usage,
            )
            await owner.keep(state.workspace_id, returned)
        except ModelError as error:
            self._deltas.finish(partition, epoch, thread_id, call)
            self._failed(owner, state, run, step, call, error)
            return
        except asyncio.CancelledError:
            self._deltas.finish(partition, epoch, thread_id, call)
            if not owner.closed and not self.draining and run.status == "cancelling":
                await self._cancelled_call(owner, state, run, call, blocks)
            raise
        self._append(owner, state, run, returned, call=call)

    def _failed(
        self, owner: Owner, state: ThreadState, run: Run, step: CallModel, call: int, error: ModelError
    ) -> None:
        retry = error.retry and run.failures + 1 < self._attempts.most
        wait = error.retry_after_ms or backoff_ms(self._attempts.backoff_ms, run.failures + 1)
        self._append(
            owner,
            state,
            run,
            f.ModelFailed(
                run_id=run.run_id,
                call=call,
                turn=step.turn,
                attempt=step.attempt,
                kind=error.kind,
                message=without_nul(error.message),
                usage=error.usage,
                retry=retry,
                retry_after_ms=wait if retry else 0,
            ),
            call=call,
        )

    async def _cancelled_call(
        self, owner: Owner, state: ThreadState, run: Run, call: int, blocks: list[_Saying]
    ) -> None:
        """The run was cancelled while the model spoke: keep what it said so far, each block at its number, since the
        pieces that clients have carry those."""
        cancelled = f.RunCancelled(
            run_id=run.run_id,
            message_id=run.answer_id,
            by=run.cancelled_by,
            reason=run.cancel_reason,
            call=call,
            blocks=tuple(saying.block() for saying in blocks),
            usage=run.usage,
        )
        try:
            self._append(owner, state, run, cancelled, call=call)
        except RecordTooLarge:
            await owner.keep(state.workspace_id, cancelled)
            try:
                self._append(owner, state, run, cancelled, call=call)
            except RecordTooLarge:
                # Rather cancelled without a word than not cancelled.
                self._append(owner, state, run, cancelled.model_copy(update={"blocks": ()}), call=call)

    async def _workspace(self, workspace_id: str) -> WorkspaceView | None:
        pause_s = 0.05
        while True:
            try:
                return await self._agents.workspace(workspace_id)
            except HistoryUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)

    # ---- tools

    async def _call_tools(
        self, owner: Owner, state: ThreadState, run: Run, spec: AgentSpec, step: CallTools, depth: int
    ) -> None:
        """All open calls of a turn, several at once; their results are recorded as they come."""
        tools = tools_of(spec)
        places = asyncio.Semaphore(TOOLS_AT_ONCE)

        async def in_turn(use: ToolUse) -> None:
            async with places:
                # Those that still wait when the run is cancelled are not begun in the grace of the others.
                if run.status != "cancelling":
                    await self._call_tool(owner, state, run, step.call, use, tools.get(use.name), depth)

        remote = [use.name for use in step.uses if use.name not in tools and "__" in use.name]
        if remote and (workspace := await self._workspace(state.workspace_id)) is not None:
            tools |= await self._servers.tools(
                workspace.id, workspace.mcp_servers, workspace.connectors, spec.tools, called=remote
            )
        work = [asyncio.get_running_loop().create_task(in_turn(use)) for use in step.uses]
        try:
            for task in asyncio.as_completed(work):
                await task
        except asyncio.CancelledError:
            if not owner.closed and not self.draining:
                for task, use in zip(work, step.uses, strict=True):
                    if use.name == "ask_agent":
                        task.cancel()  # its model stops at once, too; the tools that it called get their grace
                await asyncio.wait(work, timeout=CANCEL_GRACE_S)
            raise
        finally:
            for task in work:
                task.cancel()
                if task.done() and not task.cancelled():
                    task.exception()

    async def _call_tool(
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, tool: Tool | None, depth: int
    ) -> None:
        if use.called is not None and _doubtful(use, tool):
            # It was called before, and nobody knows what came of it: never a silent second call.
            self._returned(owner, state, run, call, use, "unknown", Result(UNKNOWN_OUTCOME), 0)
            return
        key = use.effect_key or ids.derived_uuid("effect", run.run_id, str(call), str(use.index))
        if use.called is None:
            called = f.ToolCalled(
                run_id=run.run_id,
                call=call,
                index=use.index,
                tool_call_id=use.tool_call_id,
                name=use.name,
                arguments=use.arguments,
                effect=tool.effect if tool else "read_only",
                effect_key=key,
            )
            await owner.keep(state.workspace_id, called)
            intent = self._append(owner, state, run, called)
            if tool is not None and tool.effect != "read_only":
                await owner.read_back(intent)
                if run.status == "cancelling":
                    self._returned(owner, state, run, call, use, "cancelled", Result(NOT_RUN), 0)
                    return
        began = self._clock()
        with self._world.instruments.tool_call(state, run, use, tool) as came:
            status, result = came(await self._outcome(owner, state, run, use, tool, key, depth))
        returned = self._returned_body(run, call, use, status, result, self._clock() - began)
        await owner.keep(state.workspace_id, returned)
        self._append_result(owner, state, run, returned)

    async def _outcome(
        self, owner: Owner, state: ThreadState, run: Run, use: ToolUse, tool: Tool | None, key: str, depth: int
    ) -> tuple[str, Result]:
        if tool is None:
            return "error", Result(f"There is no tool {use.name!r}.")
        if use.malformed is not None:
            return "error", Result(_malformed(run, use))
        try:
            arguments = tool.arguments.model_validate(use.arguments)
        except ValidationError as error:
            return "error", Result(f"The arguments do not fit: {_problems(error)}")

        async def ask(agent_id: str, message: str) -> str:
            return await self._ask(owner, state, run, use, key, agent_id, message, depth)

        call = Call(
            workspace_id=state.workspace_id,
            thread_id=state.stream,
            run_id=run.run_id,
            agent_id=run.agent_id,
            tool_call_id=use.tool_call_id,
            effect_key=key,
            clock=self._clock,
            skills=_SkillShelf(self._world),
            objects=self._world.objects,
            effects=self._effects,
            ask=ask,
            attachments=state.attachments,
            artifacts=state.artifacts,
        )
        # An answer of another agent takes as long as that agent's own limits allow.
        limit_s = None if tool.name == "ask_agent" else tool.timeout_s or self._tool_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                result = await tool.run(call, arguments)
        except ToolError as error:
            return "error", Result(str(error))
        except ToolDoubt:
            return "unknown", Result(UNKNOWN_OUTCOME)
        except TimeoutError:
            if tool.effect == "read_only":
                return "error", Result(f"The tool did not answer within {limit_s:g} s.")
            return "unknown", Result(UNKNOWN_OUTCOME)
        except NotOwner:
            raise
        except (HistoryUnavailable, ObjectsUnavailable):
            return "error", Result("The tool's store cannot be reached just now.")
        except Exception as error:
            _log.exception("the tool %s broke", tool.name)
            return "error", Result(f"The tool broke ({type(error).__name__}).")
        return "ok", result

    def _returned(
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, status: str, result: Result, ms: int
    ) -> None:
        self._append_result(owner, state, run, self._returned_body(run, call, use, status, result, ms))

    def _returned_body(self, run: Run, call: int, use: ToolUse, status: str, result: Result, ms: int) -> f.ToolReturned:
        text = without_nul(result.text)
        if len(text) > MAX_RESULT_CHARS:
            text = text[:MAX_RESULT_CHARS] + f"\n[cut: the result had {len(result.text)} characters]"
        return f.ToolReturned.model_validate(
            {
                "run_id": run.run_id,
                "call": call,
                "index": use.index,
                "tool_call_id": use.tool_call_id,
                "name": use.name,
                "status": status,
                "result": text,
                "duration_ms": max(ms, 0),
                "note": result.note,
                "files": result.files,
            }
        )

    def _append_result(self, owner: Owner, state: ThreadState, run: Run, body: f.ToolReturned) -> None:
        try:
            self._append(owner, state, run, body)
        except RecordTooLarge:
            nothing = {"result": "The result is too large.", "note": None, "files": ()}
            small = body.model_copy(update={"status": "error", **nothing})
            self._append(owner, state, run, small)

    async def _ask(
        self,
        owner: Owner,
        state: ThreadState,
        run: Run,
        use: ToolUse,
        key: str,
        agent_id: str,
        message: str,
        depth: int,
    ) -> str:
        """Run another agent inside the thread, from wherever its journal stands, and give its answer."""
        child_id = ids.child_run_id(state.stream, key)
        child = state.runs.get(child_id)
        if child is None:
            if depth + 1 > MAX_DEPTH:
                raise ToolError(f"agents may ask agents at most {MAX_DEPTH} deep")
            version = await self._agents.resolve(state.workspace_id, agent_id, None)
            if version is None:
                raise ToolError(f"There is no agent {agent_id!r}.")
            started = f.ChildStarted(
                run_id=child_id,
                parent_run_id=run.run_id,
                tool_call_id=use.tool_call_id,
                agent_id=agent_id,
                agent_version=version,
                text=message,
            )
            await owner.keep(state.workspace_id, started)
            self._append(owner, state, run, started)
            child = state.runs[child_id]
        try:
            await self._drive(owner, state, child, depth + 1)
        except asyncio.CancelledError:
            if not owner.closed and not self.draining and not child.ended:
                self._finish_cancelled(owner, state, child)
            raise
        if child.end != f.RunCompleted.type:
            raise ToolError(f"The agent {agent_id!r} gave no answer ({child.end}).")
        return child.turns[-1].text if child.turns else ""


class _SkillShelf:
    """Skills as tools find them: with everything that was on the log when the call began."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def _now(self) -> list[PartitionPosition]:
        ends = await self._world.log.ends(EVENTS_TOPIC)
        return [PartitionPosition(partition, end) for partition, end in ends.items() if end > 0]

    async def skills(self, workspace_id: str, agent_id: str, query: str | None) -> tuple[SkillView, ...]:
        return await self._history.skills(workspace_id, agent_id, query, await self._now())

    async def skill(self, workspace_id: str, agent_id: str, slug: str) -> SkillView | None:
        return await self._history.skill(workspace_id, agent_id, slug, await self._now())

    @property
    def _history(self) -> History:
        return self._world.history


def _doubtful(use: ToolUse, tool: Tool | None) -> bool:
    """Whether a call that was begun before may not be made again: by what was recorded of the tool then (its server may
    be away now), and by what it is now."""
    if tool is None:
        return use.effect != "read_only"
    return not {use.effect, tool.effect} <= {"read_only", "idempotent"}


def without_nul(text: str) -> str:
    """U+FFFD for U+0000, which no view can hold: so that what is streamed, stored and read is the same."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _malformed(run: Run, use: ToolUse) -> str:
    """What the model is told of arguments that cannot be read."""
    turn = next((turn for turn in run.turns if any(one is use for one in turn.tools)), None)
    if turn is not None and turn.stop_reason == "max_tokens":
        return (
            "This call was not made: the answer was cut off (max_tokens) before its arguments were complete. "
            "Make it again with shorter arguments, or in several steps."
        )
    return f"The arguments are not a JSON object: {(use.malformed or '')[:500]}"


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)[:5]
    )

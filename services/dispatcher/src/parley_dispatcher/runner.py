"""Runs the runs: one task per open run, performing the steps that `steps.next_step` asks for.

Everything a run has done is in its thread's state, which is a fold of its facts; so a task may end at any moment (a
takeover, a cancel, a crash) and another one, here or elsewhere, goes on where the journal ends. Two things are never
waited for: acknowledgements of facts, and other runs. `model_turns` and `tool_calls` do the steps, `journal` writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from parley_dispatcher.agents import Agents
from parley_dispatcher.deltas import Deltas
from parley_dispatcher.documents import Documents
from parley_dispatcher.errors import NotOwner, Parked, ToolError
from parley_dispatcher.journal import Journal
from parley_dispatcher.members import play
from parley_dispatcher.model_turns import Attempts, ModelTurns, Shown
from parley_dispatcher.owner import Owner, World
from parley_dispatcher.parking import Parking
from parley_dispatcher.prompt import documents_named
from parley_dispatcher.providers.base import Provider
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import CallModel, CallTools, Finish, Park, PlayMembers, crashed, next_step
from parley_dispatcher.teams import Place
from parley_dispatcher.tool_calls import ToolCalls
from parley_dispatcher.tools import tools_of
from parley_dispatcher.tools.base import Tool
from parley_dispatcher.tools.servers import Servers
from parley_events import facts as f
from parley_events import ids
from parley_events.body import AgentSpec
from parley_events.clock import Clock
from parley_events.reads import DocumentView
from parley_events.telemetry import about

_log = logging.getLogger(__name__)

MAX_DEPTH = 3
"""How deep agents may ask agents."""


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
        session_s: float,
        effects: Path,
        default_model: str,
        servers: Servers,
    ) -> None:
        self._world, self._servers, self._default_model = world, servers, default_model
        self._slots, self._crashes = asyncio.Semaphore(slots), attempts.crashes
        self._journal = Journal(world)
        self._turns = ModelTurns(self._journal, deltas, providers, attempts, self._stopping, world.clock)
        self._parking = Parking(self._journal, world.clock)
        self._calls = ToolCalls(world, self._journal, tool_timeout_s, session_s, effects, self._stopping)
        self._agents: Agents = world.agents
        self._documents = Documents(world.history)
        self._clock: Clock = world.clock
        self._children: dict[str, asyncio.Task[Any]] = {}
        """The tasks in which children are driven: each is the call of the tool that asked."""
        self.draining = False

    def wake(self, owner: Owner, state: ThreadState) -> None:
        """Start what may start in a thread; stop what is being cancelled; let go of one in which nobody has to do
        anything for now."""
        current = state.current()
        for run in list(state.open_runs.values()):
            if run.parent_run_id is not None:
                self._stop_alone(state, run)
                continue
            if run.status == "waiting":
                continue
            task = owner.running.get(run.run_id)
            if run.status == "cancelling" and task is not None:
                # Once: a second one would end the grace that its tools are given.
                if not task.cancelling():
                    task.cancel("run cancelled")
            elif task is None and (run is current or run.status == "cancelling") and not self._leaves(owner):
                task = asyncio.get_running_loop().create_task(self._run(owner, state, run))
                owner.running[run.run_id] = task
                task.add_done_callback(partial(self._ended, owner, state, run))
        if state.parked:
            owner.rest(state)

    def _stop_alone(self, state: ThreadState, child: Run) -> None:
        """Stop a child whose parent goes on. Where the parent is stopped too, its own task sees to the child."""
        task, parent = self._children.get(child.run_id), state.runs.get(child.parent_run_id or "")
        alone = child.status == "cancelling" and parent is not None and not parent.stopped
        if alone and task is not None and not task.cancelling():
            task.cancel("run cancelled")

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
            if not self._stopping(owner):
                self._journal.finish_cancelled(owner, state, run)
        except Exception as error:
            self._broke(owner, state, run, error)

    def _broke(self, owner: Owner, state: ThreadState, run: Run, error: Exception) -> None:
        """End a run that something unexpected broke off."""
        _log.error("%s broke", run.run_id, exc_info=error)
        if not owner.closed and not run.ended:
            failed = f.RunFailed(
                run_id=run.run_id,
                message_id=run.answer_id,
                code="internal",
                message=f"the run broke inside Parley ({type(error).__name__})",
                usage=run.usage,
            )
            self._journal.finish(owner, state, run, failed)

    def _stopping(self, owner: Owner) -> bool:
        """Whether what is cancelled now goes on elsewhere."""
        return owner.closed or self._leaves(owner)

    def _leaves(self, owner: Owner) -> bool:
        """Whether the partition goes to another dispatcher, so that no step is begun any more."""
        return self.draining or owner.leaving.is_set()

    async def _drive(self, owner: Owner, state: ThreadState, run: Run, depth: int) -> None:
        """Step after step until the run has ended or waits."""
        if run.status == "cancelling":
            self._journal.finish_cancelled(owner, state, run)
            return
        if (over := crashed(run, self._crashes)) is not None:
            self._journal.finish(owner, state, run, over.body)
            return
        spec = await self._spec(owner, run, state)
        if spec is None:
            self._journal.append(owner, state, run, _unknown_agent(run))
            return
        while True:
            step = next_step(run, spec.limits, self._clock())
            match step:
                case None:
                    return
                case Finish():
                    self._journal.finish(owner, state, run, step.body)
                    return
                case Park():
                    self._journal.append(owner, state, run, step.body)
                    return
                case _ if self._leaving(owner, run):
                    return
                case CallModel():
                    pause_ms = step.not_before_ms - self._clock()
                    if pause_ms > 0:
                        await self._pause(owner, run, pause_ms / 1000)
                    async with self._slots:
                        if self._leaving(owner, run):
                            return
                        with self._world.instruments.model_call(state, run, spec, step.turn, step.attempt):
                            shown = await self._shown(owner, state, run, spec)
                            await self._turns.call(owner, state, run, step, spec, shown)
                case CallTools():
                    tools = await self._called(owner, state, spec, step)
                    uses = await self._parking.begin(owner, state, run, step, spec, tools)
                    if uses:
                        ask = partial(self._ask, owner, state, run, depth)
                        await self._calls.call(owner, state, run, CallTools(step.call, uses), tools, ask)
                case PlayMembers():
                    speak = partial(self._speak, owner, state, run, depth)
                    await play(step.places, speak, stays=lambda: not self._stopping(owner))

    def _leaving(self, owner: Owner, run: Run) -> bool:
        """Whether no step is begun any more. The steps of a run that a tool's call started are within that call: they
        go on. A member of a team leaves as its parent does."""
        return self._leaves(owner) and not _within_call(run)

    async def _pause(self, owner: Owner, run: Run, pause_s: float) -> None:
        """Wait before another attempt; what is not begun any more is not waited for."""
        if _within_call(run):
            await asyncio.sleep(pause_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await owner.leaving.wait()

    async def _spec(self, owner: Owner, run: Run, state: ThreadState) -> AgentSpec | None:
        spec = await owner.patiently(lambda: self._agents.spec(state.workspace_id, run.agent_id, run.agent_version))
        if spec is not None and spec.model == "default":
            return spec.model_copy(update={"model": self._default_model})
        return spec

    async def _shown(self, owner: Owner, state: ThreadState, run: Run, spec: AgentSpec) -> Shown:
        """What the model is shown beside the thread."""
        workspace_id = state.workspace_id
        workspace = await owner.patiently(lambda: self._agents.workspace(workspace_id, run.workspace_seq))
        tools = tools_of(spec, documents=workspace is not None and workspace.documents > 0)
        if workspace is not None and workspace.mcp_servers:
            remote = await self._servers.tools(workspace.id, workspace.mcp_servers, workspace.connectors, spec.tools)
            tools |= {name: tool for name, tool in remote.items() if name not in tools}
        named, documents = documents_named(state, run), dict[str, DocumentView]()
        if named:
            seq = workspace.seq if workspace is not None else 0
            documents = await owner.patiently(lambda: self._documents.named(workspace_id, seq, named))
        context = workspace.context if workspace is not None else None
        return Shown(context, [tool.schema() for tool in tools.values()], documents)

    async def _called(self, owner: Owner, state: ThreadState, spec: AgentSpec, step: CallTools) -> dict[str, Tool]:
        """The tools that a turn may call; servers are asked for theirs only where one of them was called."""
        tools = tools_of(spec, documents=True)
        remote = [use.name for use in step.uses if use.name not in tools and "__" in use.name]
        if not remote:
            return tools
        workspace = await owner.patiently(lambda: self._agents.workspace(state.workspace_id))
        if workspace is not None:
            found = await self._servers.tools(
                workspace.id, workspace.mcp_servers, workspace.connectors, spec.tools, called=remote
            )
            tools |= {name: tool for name, tool in found.items() if name not in tools}
        return tools

    async def _ask(
        self,
        owner: Owner,
        state: ThreadState,
        run: Run,
        depth: int,
        use: ToolUse,
        key: str,
        agent_id: str,
        message: str,
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
            self._journal.append(owner, state, run, started)
            child = state.runs[child_id]
        await self._drive_child(owner, state, run, child, depth + 1)
        if not child.ended:
            raise Parked(f"{child_id} waits")
        if child.end != f.RunCompleted.type:
            raise ToolError(f"The agent {agent_id!r} gave no answer ({child.end}).")
        return child.turns[-1].text if child.turns else ""

    async def _speak(self, owner: Owner, state: ThreadState, run: Run, depth: int, place: Place) -> None:
        """Let a member of the team speak, from wherever its journal stands. What becomes of it is its own: the others
        go on."""
        child = run.members.get(place)
        if child is None:
            agent_id = run.play.members[place[1]] if run.play is not None else ""
            # What the message's writer saw of the workspace is waited for: the agent may be as new as that.
            await owner.patiently(lambda: self._agents.workspace(state.workspace_id, run.workspace_seq))
            version = await owner.patiently(lambda: self._agents.resolve(state.workspace_id, agent_id, None))
            if run.stopped:
                return
            started = f.ChildStarted(
                run_id=ids.member_run_id(run.run_id, *place),
                parent_run_id=run.run_id,
                tool_call_id="",
                agent_id=agent_id,
                agent_version=version or 0,
                text="",
                round=place[0],
                member=place[1],
            )
            self._journal.append(owner, state, run, started)
            child = state.runs[started.run_id]
            if version is None:
                self._journal.finish(owner, state, child, _unknown_agent(child))
                return
        try:
            await self._drive_child(owner, state, run, child, depth + 1)
        except NotOwner:
            raise
        except Exception as error:
            self._broke(owner, state, child, error)

    async def _drive_child(self, owner: Owner, state: ThreadState, run: Run, child: Run, depth: int) -> None:
        """Step after step of a run inside `run`; it may be stopped while its parent goes on."""
        task = asyncio.current_task()
        assert task is not None
        self._children[child.run_id] = task
        try:
            await self._drive(owner, state, child, depth)
        except asyncio.CancelledError:
            if self._stopping(owner):
                raise
            if not child.ended:
                self._journal.finish_cancelled(owner, state, child)
            if run.stopped:
                raise
            task.uncancel()  # the child alone was stopped
        finally:
            if self._children.get(child.run_id) is task:
                del self._children[child.run_id]


def _within_call(run: Run) -> bool:
    return run.parent_run_id is not None and run.place is None


def _unknown_agent(run: Run) -> f.RunFailed:
    which = f"version {run.agent_version} of the agent {run.agent_id!r}"
    what = f"{which} is gone" if run.agent_version else f"there is no agent {run.agent_id!r}"
    return f.RunFailed(run_id=run.run_id, message_id=run.answer_id, code="unknown_agent", message=what, usage=run.usage)

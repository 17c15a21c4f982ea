"""Runs the runs: one task per open run, performing the steps that `steps.next_step` asks for.

Everything a run has done is in its thread's state, which is a fold of its facts; so a task may end at any moment (a
takeover, a cancel, a crash) and another one, here or elsewhere, goes on where the journal ends. Two things are never
waited for: acknowledgements of facts, and other runs. `model_turns` and `tool_calls` do the steps, `journal` writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from parley_dispatcher.agents import Agents
from parley_dispatcher.deltas import Deltas
from parley_dispatcher.errors import NotOwner, Parked, ToolError
from parley_dispatcher.journal import Journal
from parley_dispatcher.model_turns import Attempts, ModelTurns, Shown
from parley_dispatcher.owner import Owner, World
from parley_dispatcher.parking import Parking
from parley_dispatcher.providers.base import Provider
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import CallModel, CallTools, Finish, Park, next_step
from parley_dispatcher.tool_calls import ToolCalls
from parley_dispatcher.tools import tools_of
from parley_dispatcher.tools.base import Tool
from parley_dispatcher.tools.servers import Servers
from parley_events import facts as f
from parley_events import ids
from parley_events.body import AgentSpec
from parley_events.clock import Clock
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
        effects: Path,
        default_model: str,
        servers: Servers,
    ) -> None:
        self._world, self._servers, self._default_model = world, servers, default_model
        self._slots = asyncio.Semaphore(slots)
        self._journal = Journal(world)
        self._turns = ModelTurns(self._journal, deltas, providers, attempts, self._stopping, world.clock)
        self._parking = Parking(self._journal, world.clock)
        self._calls = ToolCalls(world, self._journal, tool_timeout_s, effects, self._stopping)
        self._agents: Agents = world.agents
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
            elif task is None and (run is current or run.status == "cancelling") and not self.draining:
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
            _log.exception("%s broke", run.run_id)
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
        return owner.closed or self.draining

    async def _drive(self, owner: Owner, state: ThreadState, run: Run, depth: int) -> None:
        """Step after step until the run has ended or waits."""
        if run.status == "cancelling":
            self._journal.finish_cancelled(owner, state, run)
            return
        spec = await self._spec(owner, run, state)
        if spec is None:
            self._journal.append(
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
                    self._journal.finish(owner, state, run, step.body)
                    return
                case Park():
                    self._journal.append(owner, state, run, step.body)
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
                            shown = await self._shown(owner, state, spec)
                            await self._turns.call(owner, state, run, step, spec, shown)
                case CallTools():
                    tools = await self._called(owner, state, spec, step)
                    uses = await self._parking.begin(owner, state, run, step, spec, tools)
                    if uses:
                        ask = partial(self._ask, owner, state, run, depth)
                        await self._calls.call(owner, state, run, CallTools(step.call, uses), tools, ask)

    def _leaving(self, depth: int) -> bool:
        """Whether no step is begun any more. A child's steps are within its parent's: they go on."""
        return self.draining and depth == 0

    async def _spec(self, owner: Owner, run: Run, state: ThreadState) -> AgentSpec | None:
        spec = await owner.patiently(lambda: self._agents.spec(state.workspace_id, run.agent_id, run.agent_version))
        if spec is not None and spec.model == "default":
            return spec.model_copy(update={"model": self._default_model})
        return spec

    async def _shown(self, owner: Owner, state: ThreadState, spec: AgentSpec) -> Shown:
        """What the model is shown beside the thread."""
        workspace = await owner.patiently(lambda: self._agents.workspace(state.workspace_id))
        tools = tools_of(spec)
        if workspace is not None and workspace.mcp_servers:
            remote = await self._servers.tools(workspace.id, workspace.mcp_servers, workspace.connectors, spec.tools)
            tools |= {name: tool for name, tool in remote.items() if name not in tools}
        return Shown(workspace.context if workspace is not None else None, [tool.schema() for tool in tools.values()])

    async def _called(self, owner: Owner, state: ThreadState, spec: AgentSpec, step: CallTools) -> dict[str, Tool]:
        """The tools that a turn may call; servers are asked for theirs only where one of them was called."""
        tools = tools_of(spec)
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
        task = asyncio.current_task()
        assert task is not None
        self._children[child_id] = task
        try:
            await self._drive(owner, state, child, depth + 1)
        except asyncio.CancelledError:
            if self._stopping(owner):
                raise
            if not child.ended:
                self._journal.finish_cancelled(owner, state, child)
            if run.stopped:
                raise
            task.uncancel()  # the child alone was stopped
        finally:
            if self._children.get(child_id) is task:
                del self._children[child_id]
        if not child.ended:
            raise Parked(f"{child_id} waits")
        if child.end != f.RunCompleted.type:
            raise ToolError(f"The agent {agent_id!r} gave no answer ({child.end}).")
        return child.turns[-1].text if child.turns else ""

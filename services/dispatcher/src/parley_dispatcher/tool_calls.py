"""The tool calls of a model turn: the intent on record first, then the call, then its result.

Above it: `runner`. Beside it: `model_turns`. What a tool does, and what a second call would do, its `Tool` says. A tool
that does not only read is called once its intent was read back: what cannot be taken back is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ValidationError

from parley_dispatcher.errors import HistoryUnavailable, NotOwner, Parked, ToolDoubt, ToolError
from parley_dispatcher.history import History
from parley_dispatcher.journal import Journal, called_of, returned_of
from parley_dispatcher.owner import EVENTS_TOPIC, Owner, World
from parley_dispatcher.prompt import NOT_RUN, UNKNOWN_OUTCOME
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import CallTools
from parley_dispatcher.tools.base import Call, Result, Tool, Verdict
from parley_events.clock import Clock
from parley_events.errors import ObjectsUnavailable
from parley_events.positions import PartitionPosition
from parley_events.reads import PassageView, SkillView

_log = logging.getLogger(__name__)

CANCEL_GRACE_S = 5.0
TOOLS_AT_ONCE = 16
"""How many calls of one model turn are under way at once; the others wait for their place."""

_TRIES_S = (0.0, 0.5, 2.0)
"""The pauses before the tries at a call that may be made again, and at a check."""
_BY_HARM = ("read_only", "idempotent", "checkable", "unsafe")
_UNKNOWN = Result(UNKNOWN_OUTCOME)

Ask = Callable[[ToolUse, str, str, str], Awaitable[str]]
"""Asks another agent for a tool use: the use, its effect key, the agent, the message; gives the answer."""


class ToolCalls:
    """Calls tools. `stopping` says whether this process leaves the partition to another; a dispatcher that was cut off
    knows of it after `session_s` at the latest."""

    def __init__(
        self,
        world: World,
        journal: Journal,
        timeout_s: float,
        session_s: float,
        effects: Path,
        stopping: Callable[[Owner], bool],
    ) -> None:
        self._world, self._journal, self._stopping = world, journal, stopping
        self._tool_timeout_s, self._session_s, self._effects = timeout_s, session_s, effects
        self._clock: Clock = world.clock

    async def call(
        self, owner: Owner, state: ThreadState, run: Run, step: CallTools, tools: Mapping[str, Tool], ask: Ask
    ) -> None:
        """All open calls of a turn, several at once; their results are recorded as they come."""
        places = asyncio.Semaphore(TOOLS_AT_ONCE)

        async def in_turn(use: ToolUse) -> None:
            async with places:
                # Those that still wait when the run is cancelled are not begun in the grace of the others.
                if run.status != "cancelling":
                    with contextlib.suppress(Parked):
                        await self._call_tool(owner, state, run, step.call, use, tools.get(use.name), ask)

        work = [asyncio.get_running_loop().create_task(in_turn(use)) for use in step.uses]
        try:
            for task in asyncio.as_completed(work):
                await task
        except asyncio.CancelledError:
            if not self._stopping(owner):
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
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, tool: Tool | None, ask: Ask
    ) -> None:
        begun = use.called is not None
        if not begun:
            called = called_of(run, call, use, tool.effect if tool else "read_only")
            await owner.keep(state.workspace_id, called)
            intent = self._journal.append(owner, state, run, called)
            if tool is not None and tool.effect != "read_only":
                await owner.read_back(intent)
                if run.status == "cancelling":
                    self._journal.returned(owner, state, run, returned_of(run, call, use, "cancelled", Result(NOT_RUN)))
                    return
        began = self._clock()
        with self._world.instruments.tool_call(state, run, use, tool) as came:
            status, result = came(await self._outcome(owner, state, run, use, tool, ask, begun))
        returned = returned_of(run, call, use, status, result, self._clock() - began)
        await owner.keep(state.workspace_id, returned)
        self._journal.returned(owner, state, run, returned)

    async def _outcome(
        self,
        owner: Owner,
        state: ThreadState,
        run: Run,
        use: ToolUse,
        tool: Tool | None,
        ask: Ask,
        begun: bool,
    ) -> tuple[str, Result]:
        """What came of the call. `begun`: it was made before, and nobody knows what came of it; the same holds after a
        try that nothing came back from. What happens then is the effect's to say: never a silent second call."""
        effect = effect_of(use, tool)
        if tool is None:
            return ("unknown", _UNKNOWN) if begun and effect != "read_only" else ("error", _no_tool(use))
        if use.malformed is not None:
            return "error", Result(_malformed(run, use))
        try:
            arguments = tool.arguments.model_validate(use.given)
        except ValidationError as error:
            return "error", Result(f"The arguments do not fit: {_problems(error)}")
        call = self._call(state, run, use, ask)
        # An answer of another agent takes as long as that agent's own limits allow.
        limit_s = None if tool.name == "ask_agent" else tool.timeout_s or self._tool_timeout_s
        doubt = begun
        for pause_s in _TRIES_S:
            if doubt and effect != "read_only":
                if effect == "unsafe":
                    break
                if effect == "checkable":
                    verdict = await self._verdict(owner, use, tool, call, arguments, limit_s or 0.0)
                    if verdict is None:
                        break
                    if verdict.happened:
                        return "ok", verdict.result
                else:
                    await asyncio.sleep(pause_s)
                # Nothing new is on record to be read back: the tail says whether the call is still ours to make.
                await owner.look()
                if run.status == "cancelling":
                    break
            try:
                return await self._once(tool, call, arguments, limit_s)
            except ToolDoubt:
                if effect == "read_only":
                    return "error", Result("The tool was asked, and gave no answer.")
                doubt = True
        return "unknown", _UNKNOWN

    def _call(self, state: ThreadState, run: Run, use: ToolUse, ask: Ask) -> Call:
        shelf = _Shelf(self._world)
        return Call(
            workspace_id=state.workspace_id,
            thread_id=state.stream,
            run_id=run.run_id,
            agent_id=run.agent_id,
            tool_call_id=use.tool_call_id,
            effect_key=use.effect_key,
            clock=self._clock,
            skills=shelf,
            knowledge=shelf,
            objects=self._world.objects,
            effects=self._effects,
            ask=partial(ask, use, use.effect_key),
            attachments=state.attachments,
            artifacts=state.artifacts,
        )

    async def _once(self, tool: Tool, call: Call, arguments: BaseModel, limit_s: float | None) -> tuple[str, Result]:
        """One try. Raises ToolDoubt when nobody knows whether it did what was asked."""
        try:
            async with asyncio.timeout(limit_s):
                return "ok", await tool.run(call, arguments)
        except ToolError as error:
            return "error", Result(str(error))
        except (ToolDoubt, NotOwner, Parked):
            raise
        except TimeoutError:
            if tool.effect == "read_only":
                return "error", Result(f"The tool did not answer within {limit_s:g} s.")
            raise ToolDoubt(f"it did not answer within {limit_s:g} s", timed_out=True) from None
        except (HistoryUnavailable, ObjectsUnavailable):
            return "error", Result("The tool's store cannot be reached just now.")
        except Exception as error:
            _log.exception("the tool %s broke", tool.name)
            if tool.effect == "read_only":
                return "error", Result(f"The tool broke ({type(error).__name__}).")
            raise ToolDoubt("it broke in the middle") from error

    async def _verdict(
        self, owner: Owner, use: ToolUse, tool: Tool, call: Call, arguments: BaseModel, limit_s: float
    ) -> Verdict | None:
        """Whether the call took place; None when nobody can tell. It is asked once the call can be under way no more,
        also not by a dispatcher that has lost the partition and does not know it yet."""
        if tool.check is None:
            return None
        over_ms = max(use.called_ms, owner.claimed_ms) + round(1000 * (limit_s + self._session_s))
        await asyncio.sleep(max(over_ms - self._clock(), 0) / 1000)
        for pause_s in _TRIES_S:
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(limit_s or None):
                    return await tool.check(call, arguments)
            except ToolError as error:
                _log.warning("whether %s took place cannot be told: %s", tool.name, error)
                return None
            except (ToolDoubt, TimeoutError):
                continue
            except NotOwner:
                raise
            except Exception:
                _log.exception("the check of %s broke", tool.name)
                return None
        return None


class _Shelf:
    """Skills and documents as tools find them: with everything that was on the log when the call began."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def _now(self) -> list[PartitionPosition]:
        ends = await self._world.log.ends(EVENTS_TOPIC)
        return [PartitionPosition(partition, end) for partition, end in ends.items() if end > 0]

    async def skills(self, workspace_id: str, agent_id: str, query: str | None) -> tuple[SkillView, ...]:
        return await self._history.skills(workspace_id, agent_id, query, await self._now())

    async def skill(self, workspace_id: str, agent_id: str, slug: str) -> SkillView | None:
        return await self._history.skill(workspace_id, agent_id, slug, await self._now())

    async def passages(self, workspace_id: str, query: str, limit: int) -> tuple[PassageView, ...]:
        return await self._history.passages(workspace_id, query, limit, await self._now())

    @property
    def _history(self) -> History:
        return self._world.history


def effect_of(use: ToolUse, tool: Tool | None) -> str:
    """What a second call might do: the worse of what was recorded of the tool at the first (its server may be away
    now) and of what it is now. A tool that is not known now cannot be asked anything."""
    if tool is None:
        return "read_only" if use.effect in ("", "read_only") else "unsafe"
    return max(use.effect or tool.effect, tool.effect, key=_BY_HARM.index)


def _no_tool(use: ToolUse) -> Result:
    return Result(f"There is no tool {use.name!r}.")


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

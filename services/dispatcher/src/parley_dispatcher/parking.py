"""What the calls of a model turn need before they are made: a person's word, or the client, who makes them itself.

Above it: `runner`. Beside it: `tool_calls`, which makes the calls that are left. What is recorded here is all that a
parked run needs: the answer is a command, and whoever owns the partition then goes on from the journal.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from parley_dispatcher.journal import Journal, called_of, returned_of
from parley_dispatcher.owner import Owner
from parley_dispatcher.prompt import NOBODY_THERE, instead
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import CallTools
from parley_dispatcher.tools import terms_of
from parley_dispatcher.tools.base import Result, Tool
from parley_events import facts as f
from parley_events.body import AgentSpec, Approval, ClientTool, WaitsFor
from parley_events.clock import Clock


class Parking:
    """Asks people, hands calls over to clients, and closes those that came to nothing."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock

    async def begin(
        self, owner: Owner, state: ThreadState, run: Run, step: CallTools, spec: AgentSpec, tools: Mapping[str, Tool]
    ) -> tuple[ToolUse, ...]:
        """Record what can be recorded without a call; the calls that are to be made now."""
        clients = {tool.name: tool for tool in spec.client_tools}
        left: list[ToolUse] = []
        for use in step.uses:
            closed = instead(use)
            tool = tools.get(use.name)
            if closed is not None:
                status, text = closed
                self._journal.returned(owner, state, run, returned_of(run, step.call, use, status, Result(text)))
            elif use.called is not None or tool is None or not _fits(use, tool):
                left.append(use)  # what cannot be called is told at once: nobody is asked about it
            elif use.asked is None and (terms := terms_of(spec, tool)) is not None:
                if not self._unattended(owner, state, run, step.call, use, "approval"):
                    await self._ask(owner, state, run, step.call, use, tool, terms)
            elif use.name in clients:
                if not self._unattended(owner, state, run, step.call, use, "client_tool"):
                    await self._hand_over(owner, state, run, step.call, use, clients[use.name])
            else:
                left.append(use)
        return tuple(left)

    def _unattended(
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, waits_for: WaitsFor
    ) -> bool:
        """Whether nobody is there to wait for; the model is told so at once."""
        if waits_for not in run.unattended:
            return False
        status, text = NOBODY_THERE[waits_for]
        self._journal.returned(owner, state, run, returned_of(run, call, use, status, Result(text)))
        return True

    async def _ask(
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, tool: Tool, terms: Approval
    ) -> None:
        schema = terms.input_schema if terms.input_schema is not None else tool.schema()["input_schema"]
        requested = f.ApprovalRequested(
            run_id=run.run_id,
            call=call,
            index=use.index,
            tool_call_id=use.tool_call_id,
            name=use.name,
            arguments=use.arguments,
            question=terms.question,
            input_schema=schema,
            who=terms.who,
            due_at_ms=self._clock() + terms.expires_s * 1000,
        )
        await owner.keep(state.workspace_id, requested)
        self._journal.append(owner, state, run, requested)

    async def _hand_over(
        self, owner: Owner, state: ThreadState, run: Run, call: int, use: ToolUse, declared: ClientTool
    ) -> None:
        called = called_of(run, call, use, "client", self._clock() + declared.expires_s * 1000)
        await owner.keep(state.workspace_id, called)
        self._journal.append(owner, state, run, called)


def _fits(use: ToolUse, tool: Tool) -> bool:
    """Whether the call could be made with these arguments, as far as can be told here."""
    if use.malformed is not None:
        return False
    try:
        tool.arguments.model_validate(use.given)
    except ValidationError:
        return False
    return True

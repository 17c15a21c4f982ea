"""What runs put on record: their facts, what tools returned, and their ends.

Above it: `runner`, `model_turns`, `tool_calls`. Below: the partition's `owner`, which numbers what is appended.
"""

from __future__ import annotations

from parley_dispatcher.owner import Owner, World
from parley_dispatcher.prompt import left
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.steps import stopped
from parley_dispatcher.tools.base import Result
from parley_events import facts as f
from parley_events import ids
from parley_events.codec import Fact
from parley_events.errors import RecordTooLarge

MAX_RESULT_CHARS = 8 * 1024 * 1024
"""A longer tool result is cut, and says so. How much of one the model is shown is `prompt`'s."""


class Journal:
    """Appends the facts of runs."""

    def __init__(self, world: World) -> None:
        self._world = world

    def append(self, owner: Owner, state: ThreadState, run: Run, body: f.FactBody, call: int | None = None) -> Fact:
        """A fact of the run. NotOwner, or RecordTooLarge, is raised before anything is numbered."""
        fact = owner.append(
            state,
            body,
            run_id=run.run_id,
            call=call,
            correlation_id=run.command_id,
            traceparent=run.traceparent,
        )
        if fact.type in f.RUN_ENDS:
            self._world.instruments.run_ended(state, run, body, self._world.clock())
        return fact

    def returned(self, owner: Owner, state: ThreadState, run: Run, body: f.ToolReturned) -> None:
        """What a tool returned; an error in its place where it fits no record."""
        try:
            self.append(owner, state, run, body)
        except RecordTooLarge:
            said = "The tool was called and answered, but its result is too large to be kept."
            small = body.model_copy(update={"status": "error", "result": said, "note": None, "files": ()})
            self.append(owner, state, run, small)

    def finish(self, owner: Owner, state: ThreadState, run: Run, end: f.FactBody) -> None:
        """End the run, and before it what is open inside it: its children, and calls that nobody waits for now. People
        and clients may have been shown such a call, so it has a result before the end, whatever ends the run."""
        for child in [child for child in state.open_runs.values() if child.parent_run_id == run.run_id]:
            self.finish(owner, state, child, stopped(child))
        for turn, use in run.uses():
            if use.open and (use.called is not None or use.asked is not None):
                status, text = left(use)
                self.returned(owner, state, run, returned_of(run, turn.call, use, status, Result(text)))
        self.append(owner, state, run, end)

    def finish_cancelled(self, owner: Owner, state: ThreadState, run: Run) -> None:
        """End a run that is being cancelled; nothing for any other."""
        if run.status == "cancelling":
            self.finish(owner, state, run, stopped(run))


def called_of(run: Run, call: int, use: ToolUse, effect: str, due_at_ms: int | None = None) -> f.ToolCalled:
    """The intent of a call, with its effect key: the same however often the call is tried, and by whom."""
    return f.ToolCalled.model_validate(
        {
            "run_id": run.run_id,
            "call": call,
            "index": use.index,
            "tool_call_id": use.tool_call_id,
            "name": use.name,
            "arguments": use.given,
            "effect": effect,
            "effect_key": use.effect_key or ids.derived_uuid("effect", run.run_id, str(call), str(use.index)),
            "due_at_ms": due_at_ms,
        }
    )


def returned_of(run: Run, call: int, use: ToolUse, status: str, result: Result, ms: int = 0) -> f.ToolReturned:
    """The record of a tool's result."""
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


def without_nul(text: str) -> str:
    """U+FFFD for U+0000, which no view can hold: so that what is streamed, stored and read is the same."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text

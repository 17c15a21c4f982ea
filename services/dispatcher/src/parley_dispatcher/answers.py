"""What answers mean: a person's word on an approval, a client's result, what became of a call of unknown outcome. Pure.

Each is one command with one outcome; what follows for the run is its own next step. An answer that comes too late
(another was first in the log, the time ran out, the run was stopped) is refused as `not_open`. Above it: `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from parley_dispatcher.refusals import Refused, of_workspace, visible
from parley_dispatcher.runs import Run, ToolUse, Turn
from parley_dispatcher.schemas import misfit
from parley_dispatcher.state import ThreadState
from parley_events import commands as c
from parley_events import facts as f
from parley_events.codec import Command

MAX_RESULT_CHARS = 8 * 1024 * 1024
"""More is no result of a tool. How much of one the model is shown is `prompt`'s."""
MAX_COMMENT_CHARS = 10_000


def answer_approval(state: ThreadState, command: Command, body: c.AnswerApproval) -> f.FactBody:
    """Whoever may approve in the workspace may answer, and need not own the thread; unless the terms name users."""
    of_workspace(state, command)
    if body.approval_id not in state.approvals:
        raise Refused("not_found", "there is no such approval")
    run, use = state.approvals[body.approval_id]
    asked = use.asked
    if asked is None or asked.decision is not None or not use.open or run.stopped:
        raise Refused("not_open", "the approval was answered, has expired, or its run is over")
    if asked.who and body.principal.user_id not in asked.who and not body.principal.admin:
        raise Refused("forbidden", "this approval is for others to answer")
    _short(body.comment)
    if body.arguments is not None:
        if body.decision == "deny":
            raise Refused("invalid", "arguments: a call that is denied has none")
        wrong = misfit(asked.input_schema or {}, body.arguments)
        if wrong is not None:
            raise Refused("invalid", f"arguments: {wrong}")
    return f.ApprovalAnswered(
        approval_id=body.approval_id,
        run_id=run.run_id,
        decision=body.decision,
        by=body.principal.user_id,
        comment=body.comment,
        arguments=body.arguments,
    )


def answer_tool(state: ThreadState, command: Command, body: c.AnswerTool) -> f.FactBody:
    """The oldest open call of that id is answered: models have been seen to give one id to two calls."""
    visible(state, command)
    run, turn, use = _call(state, body.run_id, body.tool_call_id, lambda run, use: _with_client(run, use))
    if len(body.result) > MAX_RESULT_CHARS:
        raise Refused("too_large", f"a result may have at most {MAX_RESULT_CHARS} characters")
    return f.ToolAnswered(
        run_id=run.run_id,
        tool_call_id=use.tool_call_id,
        result=body.result.replace("\x00", "\ufffd"),
        is_error=body.is_error,
        pending=tuple(one.tool_call_id for _, one in run.uses() if one is not use and _with_client(run, one)),
        call=turn.call,
        index=use.index,
    )


def settle_tool(state: ThreadState, command: Command, body: c.SettleTool) -> f.FactBody:
    """Said once; the model sees it from its next request on, and no run waits for it. What a fork took over was called
    elsewhere, and is settled there."""
    visible(state, command)
    run, turn, use = _call(
        state,
        body.run_id,
        body.tool_call_id,
        lambda run, use: use.status == "unknown" and use.settled is None and not run.taken_over,
    )
    _short(body.comment)
    return f.ToolSettled(
        run_id=run.run_id,
        tool_call_id=use.tool_call_id,
        happened=body.happened,
        by=body.principal.user_id,
        comment=body.comment,
        call=turn.call,
        index=use.index,
    )


def _with_client(run: Run, use: ToolUse) -> bool:
    return not run.stopped and use.waits_for == "client_tool" and use.child is None


def _call(
    state: ThreadState, run_id: str | None, tool_call_id: str, fits: Callable[[Run, ToolUse], bool]
) -> tuple[Run, Turn, ToolUse]:
    """The oldest call of that id that fits."""
    found = list(_calls(state, run_id, tool_call_id))
    if not found:
        raise Refused("not_found", "there is no such call of a tool")
    fitting = [one for one in found if fits(one[0], one[2])]
    if not fitting:
        raise Refused("not_open", "the call was answered, has expired, or its run is over")
    if len({run.run_id for run, _, _ in fitting}) > 1:
        raise Refused("invalid", "run_id: several runs have an open call of this id, so name one")
    return fitting[0]


def _calls(state: ThreadState, run_id: str | None, tool_call_id: str) -> Iterator[tuple[Run, Turn, ToolUse]]:
    for run in state.runs.values():
        if run_id is None or run.run_id == run_id:
            for turn, use in run.uses():
                if use.tool_call_id == tool_call_id:
                    yield run, turn, use


def _short(comment: str | None) -> None:
    if comment is not None and len(comment) > MAX_COMMENT_CHARS:
        raise Refused("invalid", f"comment: at most {MAX_COMMENT_CHARS} characters")

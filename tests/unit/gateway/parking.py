"""What the dispatcher of a test decides about answers, where the real `decide` does not serve a command yet: from the
facts of the stream alone."""

from __future__ import annotations

from collections.abc import Sequence

from parley_events import commands as c
from parley_events import facts as f
from parley_events.codec import Command, Fact


def decided(facts: Sequence[Fact], command: Command) -> f.FactBody | None:
    """The outcome; None for a command that is none of these."""
    body, bodies = command.body, [fact.body for fact in facts]
    if not isinstance(body, c.AnswerApproval | c.AnswerTool | c.SettleTool | c.CancelThread):
        return None
    opened = next((b.seed if isinstance(b, f.ThreadCreated) else getattr(b, "opened", None) for b in bodies), None)
    owner = getattr(opened, "user_id", None)
    mine = owner in (None, body.principal.user_id) or body.principal.admin
    if not facts or facts[0].workspace_id != command.workspace_id:
        return _refused(command, "not_found", "there is no such thread")
    if not mine and not isinstance(body, c.AnswerApproval):
        return _refused(command, "not_found", "there is no such thread")
    ended = {b.run_id for b in bodies if isinstance(b, f.RunCompleted | f.RunFailed | f.RunCancelled)}
    if isinstance(body, c.CancelThread):
        posted = [b.run_id for b in bodies if isinstance(b, f.MessagePosted) and b.run_id not in ended]
        return f.ThreadCancelling(by=body.principal.user_id, reason=body.reason, run_ids=tuple(posted))
    if isinstance(body, c.AnswerApproval):
        return _approval(bodies, command, body, ended)
    if isinstance(body, c.AnswerTool):
        return _tool(bodies, command, body, ended)
    for returned in bodies:
        if isinstance(returned, f.ToolReturned) and (returned.run_id, returned.tool_call_id) == (
            body.run_id,
            body.tool_call_id,
        ):
            settled = any(isinstance(b, f.ToolSettled) and b.tool_call_id == body.tool_call_id for b in bodies)
            if returned.status != "unknown" or settled:
                return _refused(command, "not_open", "the call was answered, has expired, or its run is over")
            return f.ToolSettled(
                run_id=returned.run_id,
                tool_call_id=returned.tool_call_id,
                happened=body.happened,
                by=body.principal.user_id,
                comment=body.comment,
                call=returned.call,
                index=returned.index,
            )
    return _refused(command, "not_found", "there is no such call of a tool")


def _approval(bodies: list[f.FactBody], command: Command, body: c.AnswerApproval, ended: set[str]) -> f.FactBody:
    asked = next(
        (b for b in bodies if isinstance(b, f.ApprovalRequested) and b.approval_id == body.approval_id),
        None,
    )
    if asked is None:
        return _refused(command, "not_found", "there is no such approval")
    over = any(
        isinstance(b, f.ApprovalAnswered | f.ApprovalExpired) and b.approval_id == body.approval_id for b in bodies
    )
    if over or asked.run_id in ended:
        return _refused(command, "not_open", "the approval was answered, has expired, or its run is over")
    if asked.who and body.principal.user_id not in asked.who and not body.principal.admin:
        return _refused(command, "forbidden", "this approval is for others to answer")
    return f.ApprovalAnswered(
        approval_id=body.approval_id,
        run_id=asked.run_id,
        decision=body.decision,
        by=body.principal.user_id,
        comment=body.comment,
        arguments=body.arguments,
    )


def _tool(bodies: list[f.FactBody], command: Command, body: c.AnswerTool, ended: set[str]) -> f.FactBody:
    calls = [b for b in bodies if isinstance(b, f.ToolCalled) and b.effect == "client" and b.run_id == body.run_id]
    done = {(b.call, b.index) for b in bodies if isinstance(b, f.ToolAnswered | f.ToolReturned | f.ToolExpired)}
    named = [b for b in calls if b.tool_call_id == body.tool_call_id]
    still = [b for b in calls if (b.call, b.index) not in done]
    if not named:
        return _refused(command, "not_found", "there is no such call of a tool")
    if named[-1] not in still or body.run_id in ended:
        return _refused(command, "not_open", "the call was answered, has expired, or its run is over")
    return f.ToolAnswered(
        run_id=named[-1].run_id,
        tool_call_id=body.tool_call_id,
        result=body.result,
        is_error=body.is_error,
        pending=tuple(b.tool_call_id for b in still if b is not named[-1]),
        call=named[-1].call,
        index=named[-1].index,
    )


def _refused(command: Command, code: str, message: str) -> f.CommandRejected:
    return f.CommandRejected(command_type=command.type, code=code, message=message)

"""Approvals: what people are asked before a tool is called, and what they answered. They go with their thread's
messages: a clear or a delete takes them away."""

from __future__ import annotations

from parley_events import ids
from parley_events.codec import Fact
from parley_events.facts import ApprovalAnswered, ApprovalExpired, ApprovalRequested
from parley_history.projections.dues import drop_due, set_due
from parley_history.projections.rows import ApprovalRow, RunRow, View
from parley_history.projections.text import clean
from parley_history.projections.tools import resume

_ANSWERS = {"approve": "approved", "deny": "denied"}


def approval_requested(view: View, fact: Fact, body: ApprovalRequested) -> None:
    approval_id = body.approval_id or ids.approval_id(fact.stream, fact.seq or 0)
    run, thread = view.runs.get(body.run_id), view.threads.get(fact.stream)
    if run is None or run.ended_seq is not None:
        return
    set_due(view, fact, approval_id, run.id, body.due_at_ms)
    if thread is None or thread.deleted or run.posted_seq < thread.cleared_seq:
        return
    view.approvals.put(
        ApprovalRow(
            id=approval_id,
            workspace_id=fact.workspace_id,
            thread_id=fact.stream,
            run_id=run.id,
            agent_id=run.agent_id,
            seq=fact.seq or 0,
            tool_call_id=body.tool_call_id,
            name=body.name,
            arguments=body.arguments,
            question=body.question,
            input_schema=body.input_schema,
            who=[clean(user) for user in body.who],  # is looked into by PostgreSQL itself
            created_ms=fact.time_ms,
            due_ms=body.due_at_ms,
        )
    )


def approval_answered(view: View, fact: Fact, body: ApprovalAnswered) -> None:
    """The run needs its task again, so it waits no more, though its next step is not on record yet."""
    drop_due(view, fact.stream, body.approval_id)
    resume(view, view.runs.get(body.run_id))
    row = _settle(view, fact, body.approval_id, _ANSWERS[body.decision])
    if row is not None:
        row.answered_by, row.comment, row.edited = body.by, body.comment, body.arguments


def approval_expired(view: View, fact: Fact, body: ApprovalExpired) -> None:
    drop_due(view, fact.stream, body.approval_id)
    resume(view, view.runs.get(body.run_id))
    _settle(view, fact, body.approval_id, "expired")


def close_approvals(view: View, fact: Fact, run: RunRow) -> None:
    """The run ended: nobody needs to answer any more."""
    for row in view.approvals.all():
        if row.run_id == run.id:
            _settle(view, fact, row.id, "closed")
    view.approvals_closed[run.id] = fact.time_ms


def _settle(view: View, fact: Fact, approval_id: str, status: str) -> ApprovalRow | None:
    row = view.approvals.get(approval_id)
    if row is None or row.status != "open":
        return None
    view.approvals.change(approval_id)
    row.status, row.answered_ms = status, fact.time_ms
    return row

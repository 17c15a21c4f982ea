"""Runs: what an agent is doing, has said, and used; its one assistant message; what it waits for and until when.

A run's facts come in the order of the stream, so each is folded onto the row that the ones before it left. A fact of
a run that is not there, or has ended, changes nothing.
"""

from __future__ import annotations

from parley_events import ids
from parley_events.body import Author, Block, Usage
from parley_events.codec import Fact
from parley_events.facts import (
    ApprovalAnswered,
    ApprovalExpired,
    ApprovalRequested,
    ChildStarted,
    ModelCalled,
    ModelFailed,
    ModelReturned,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunFailed,
    RunWaiting,
)
from parley_history.projections.rows import MAIN_PART, DueRow, MessageRow, RunRow, View
from parley_history.projections.threads import add_message
from parley_history.projections.tools import call_status, resume


def child_started(view: View, fact: Fact, body: ChildStarted) -> None:
    view.runs.put(
        RunRow(
            id=body.run_id,
            workspace_id=fact.workspace_id,
            thread_id=fact.stream,
            partition=view.partition,
            parent_run_id=body.parent_run_id,
            agent_id=body.agent_id,
            agent_version=body.agent_version,
            status="running",
            message_id=ids.answer_id(body.run_id),
            question_id=None,
            answer_number=0,
            posted_seq=fact.seq or 0,
            created_ms=fact.time_ms,
        )
    )


def model_called(view: View, fact: Fact, body: ModelCalled) -> None:
    run = _open_run(view, body.run_id)
    if run is not None:
        resume(view, run)
        run.status, run.attempt = "running", body.attempt
        run.agent_id, run.agent_version = body.agent_id, body.agent_version


def model_returned(view: View, fact: Fact, body: ModelReturned) -> None:
    run = _open_run(view, body.run_id)
    if run is not None:
        run.last_text = _text(body.blocks)
        run.answer += run.last_text
        run.usage = run.usage + body.usage


def model_failed(view: View, fact: Fact, body: ModelFailed) -> None:
    run = _open_run(view, body.run_id)
    if run is not None:
        run.usage = run.usage + body.usage
        run.attempt = body.attempt


def run_waiting(view: View, fact: Fact, body: RunWaiting) -> None:
    run = _open_run(view, body.run_id)
    if run is None:
        return
    run.status = "waiting"
    for call in run.calls:
        if call.tool_call_id in body.tool_call_ids and call.status == "running":
            call_status(view, run, call, "waiting")
    if body.due_at_ms is not None:
        _due(view, fact, run.id, run.id, body.due_at_ms)


def approval_requested(view: View, fact: Fact, body: ApprovalRequested) -> None:
    approval = body.approval_id or ids.approval_id(fact.stream, fact.seq or 0)
    _due(view, fact, approval, body.run_id, body.due_at_ms)


def approval_answered(view: View, fact: Fact, body: ApprovalAnswered) -> None:
    """The run needs its task again, so it waits no more, though its next step is not on record yet."""
    view.dues[(fact.stream, body.approval_id)] = None
    resume(view, view.runs.get(body.run_id))


def approval_expired(view: View, fact: Fact, body: ApprovalExpired) -> None:
    view.dues[(fact.stream, body.approval_id)] = None
    resume(view, view.runs.get(body.run_id))


def run_cancelling(view: View, fact: Fact, body: RunCancelling) -> None:
    resume(view, view.runs.get(body.run_id))


def run_completed(view: View, fact: Fact, body: RunCompleted) -> None:
    run = _end(view, fact, body.run_id, "completed", body.message_id, body.usage)
    if run is not None:
        run.stop_reason = body.stop_reason
        _answer(view, fact, run)


def run_failed(view: View, fact: Fact, body: RunFailed) -> None:
    run = _end(view, fact, body.run_id, "failed", body.message_id, body.usage)
    if run is not None:
        run.error_code, run.error_message = body.code, body.message
        if run.answer:
            _answer(view, fact, run)


def run_cancelled(view: View, fact: Fact, body: RunCancelled) -> None:
    """What the unfinished turn had said is part of the answer."""
    run = _end(view, fact, body.run_id, "cancelled", body.message_id, body.usage)
    if run is not None:
        run.answer += _text(body.blocks)
        if run.answer:
            _answer(view, fact, run)


def _open_run(view: View, run_id: str) -> RunRow | None:
    run = view.runs.get(run_id)
    if run is None or run.ended_seq is not None:
        return None
    return view.runs.change(run_id)


def _end(view: View, fact: Fact, run_id: str, status: str, message_id: str, usage: Usage) -> RunRow | None:
    run = _open_run(view, run_id)
    if run is None:
        return None
    run.status, run.message_id, run.usage = status, message_id, usage
    run.ended_seq, run.ended_ms = fact.seq, fact.time_ms
    for key in [key for key, due in view.dues.items() if due is not None and due.run_id == run_id]:
        view.dues[key] = None
    view.dues_of[(fact.stream, run_id)] = None
    return run


def _answer(view: View, fact: Fact, run: RunRow) -> None:
    """The run's one assistant message."""
    add_message(
        view,
        MessageRow(
            thread_id=run.thread_id,
            seq=fact.seq or 0,
            part=MAIN_PART,
            id=run.message_id,
            workspace_id=run.workspace_id,
            number=run.answer_number,
            run_id=run.id,
            role="assistant",
            content=run.answer,
            created_ms=fact.time_ms,
            author=Author(kind="agent", id=run.agent_id).model_dump(mode="json"),
            told=run.told,
        ),
        run,
    )


def _text(blocks: tuple[Block, ...]) -> str:
    return "".join(block.text for block in blocks if block.kind == "text")


def _due(view: View, fact: Fact, due_key: str, run_id: str, due_ms: int) -> None:
    view.dues[(fact.stream, due_key)] = DueRow(
        stream=fact.stream,
        due_key=due_key,
        partition=view.partition,
        workspace_id=fact.workspace_id,
        run_id=run_id,
        due_ms=due_ms,
    )

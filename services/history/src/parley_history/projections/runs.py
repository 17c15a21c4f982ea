"""Runs: what an agent is doing, has said, and used; its one assistant message; what it waits for and until when.

A run's facts come in the order of the stream, so each is folded onto the row that the ones before it left. A fact of
a run that is not there, or has ended, changes nothing.
"""

from __future__ import annotations

from functools import lru_cache

from parley_events import ids
from parley_events.body import Author, Block, Json, Usage
from parley_events.codec import Fact
from parley_events.facts import (
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
from parley_history.projections.approvals import close_approvals
from parley_history.projections.dues import drop_due, drop_dues_of, set_due
from parley_history.projections.rows import MAIN_PART, MessageRow, RunRow, View
from parley_history.projections.threads import add_message, count_open
from parley_history.projections.tools import call_status, resume


def child_started(view: View, fact: Fact, body: ChildStarted) -> None:
    """A run that a team answers has no model turn of its own before its members'."""
    if body.member is not None and (parent := _open_run(view, body.parent_run_id)) is not None:
        parent.status = "running"
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
        if body.due_at_ms is not None:
            set_due(view, fact, run.id, run.id, body.due_at_ms)
        else:
            drop_due(view, fact.stream, run.id)


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
    # A parked run's deadline stands still: the next model call says when it is due then.
    run.status = "waiting"
    for call in run.calls:
        if call.tool_call_id in body.tool_call_ids and call.status == "running":
            call_status(view, run, call, "waiting")
    drop_due(view, fact.stream, run.id)


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
    # The end of a run inside another names none: it makes no message.
    run.status, run.message_id, run.usage = status, message_id or run.message_id, usage
    run.ended_seq, run.ended_ms = fact.seq, fact.time_ms
    drop_dues_of(view, run)
    close_approvals(view, fact, run)
    if run.parent_run_id is None:
        count_open(view, run.thread_id, -1)
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
            author=_author(run.agent_id),
            told=run.told,
        ),
        run,
    )


@lru_cache(maxsize=1024)
def _author(agent_id: str) -> Json:
    return Author(kind="agent", id=agent_id).model_dump(mode="json")


def _text(blocks: tuple[Block, ...]) -> str:
    return "".join([block.text for block in blocks if block.kind == "text"])

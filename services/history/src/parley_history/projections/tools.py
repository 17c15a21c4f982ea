"""Tool calls and their results: a message each, the call's with a status that later facts move on; notes and skills
out of results."""

from __future__ import annotations

from parley_events import ids
from parley_events.body import Note
from parley_events.codec import Fact
from parley_events.facts import ToolAnswered, ToolCalled, ToolExpired, ToolReturned, ToolSettled
from parley_history.projections.dues import drop_due, set_due
from parley_history.projections.files import add_files
from parley_history.projections.rows import MAIN_PART, Call, MessageRow, NoteRow, RunRow, SkillRow, View
from parley_history.projections.skills import keep_newest
from parley_history.projections.threads import add_message

_OPEN = frozenset({"running", "waiting", "unknown"})
"""Statuses that a later fact may change; calls of these are kept with the run."""


def tool_called(view: View, fact: Fact, body: ToolCalled) -> None:
    run = view.runs.change(body.run_id)
    if run is None:
        return
    resume(view, run)
    seq = fact.seq or 0
    message = MessageRow(
        thread_id=fact.stream,
        seq=seq,
        part=MAIN_PART,
        id=body.message_id or ids.fact_message_id(fact.stream, seq),
        workspace_id=fact.workspace_id,
        number=body.numbers[0] if body.numbers else 0,
        run_id=run.id,
        role="tool",
        content=None,
        created_ms=fact.time_ms,
        tool_call_id=body.tool_call_id,
        tool_name=body.name,
        tool_arguments=body.arguments,
        tool_status="running",
    )
    shown = add_message(view, message, run)
    first = _led(run, message) if shown and body.effect == "client" else None
    due = body.effect == "client" and body.due_at_ms is not None and run.ended_seq is None
    run.calls.append(Call(seq, body.call, body.index, body.tool_call_id, "running", due, first))
    if body.due_at_ms is not None and due:
        set_due(view, fact, ids.fact_message_id(fact.stream, seq), run.id, body.due_at_ms)


def tool_returned(view: View, fact: Fact, body: ToolReturned) -> None:
    run = view.runs.get(body.run_id)
    if run is None:
        return
    resume(view, run)
    call = _find(run, body.tool_call_id, body.call, body.index)
    if call is not None:
        _wait_no_more(view, run, call)
        call_status(view, run, call, body.status)
    message = _result(view, fact, run, body.tool_call_id, body.result, body.numbers, body.message_id)
    message.attachments = [file.model_dump(mode="json") for file in body.files]
    add_files(view, fact, run, "artifact", body.files)
    if body.note is not None:
        _note(view, fact, run, body.note)


def tool_answered(view: View, fact: Fact, body: ToolAnswered) -> None:
    """The run goes on once nothing is pending."""
    run = view.runs.get(body.run_id)
    if run is None:
        return
    if not body.pending:
        resume(view, run)
    call = _find(run, body.tool_call_id, body.call, body.index)
    if call is not None:
        _wait_no_more(view, run, call)
        call_status(view, run, call, "error" if body.is_error else "ok")
    _result(view, fact, run, body.tool_call_id, body.result, body.numbers, body.message_id).client = True
    if len(body.numbers) > 1:
        view.runs.change(run.id)
        run.answer_number = body.numbers[1]


def tool_settled(view: View, fact: Fact, body: ToolSettled) -> None:
    """A person said what became of a call: it happened (`ok`), or it did not (`error`)."""
    run = view.runs.get(body.run_id)
    call = None if run is None else _find(run, body.tool_call_id, body.call, body.index)
    if run is not None and call is not None:
        call_status(view, run, call, "ok" if body.happened else "error")


def tool_expired(view: View, fact: Fact, body: ToolExpired) -> None:
    """The client gave no result in time: the run goes on, and its `tool.returned` says what the model is told."""
    run = view.runs.get(body.run_id)
    if run is None:
        return
    resume(view, run)
    call = _find(run, body.tool_call_id, body.call, body.index)
    if call is not None:
        _wait_no_more(view, run, call)


def _led(run: RunRow, message: MessageRow) -> int:
    """The seq of the call that leads the message in which contracts with numbers show a client's call: the first one
    that is open. It takes the number that was kept for the answer and tells what was said so far; its own number is
    kept for the answer then, in case the client never gives a result."""
    message.client = True
    for call in run.calls:
        if call.first is not None:
            message.beside = call.first
            return call.first
    message.number, run.answer_number = run.answer_number, message.number
    message.before = run.answer[run.told :]
    run.told = len(run.answer)
    return message.seq


def call_status(view: View, run: RunRow, call: Call, status: str) -> None:
    """Give a call of the run another status, in its message too."""
    view.runs.change(run.id)
    call.status = status
    if status not in _OPEN:
        run.calls.remove(call)
    message = view.messages.get((run.thread_id, call.seq, MAIN_PART))
    if message is not None:
        message.tool_status = status
    else:
        view.call_statuses[(run.thread_id, call.seq)] = status


def resume(view: View, run: RunRow | None) -> None:
    """A run that waited goes on."""
    if run is not None and run.status == "waiting":
        view.runs.change(run.id)
        run.status = "running"


def _find(run: RunRow, tool_call_id: str, call_seq: int | None, index: int | None) -> Call | None:
    """The call by its place; where that is not said, the latest with this id (models give one id to two calls)."""
    if call_seq is not None and index is not None:
        return next((call for call in run.calls if (call.call, call.index) == (call_seq, index)), None)
    return next((call for call in reversed(run.calls) if call.tool_call_id == tool_call_id), None)


def _wait_no_more(view: View, run: RunRow, call: Call) -> None:
    """Nobody waits for the client's result of this call any more."""
    if call.due:
        view.runs.change(run.id)
        call.due = False
        drop_due(view, run.thread_id, ids.fact_message_id(run.thread_id, call.seq))


def _result(
    view: View, fact: Fact, run: RunRow, tool_call_id: str, result: str, numbers: tuple[int, ...], message_id: str
) -> MessageRow:
    seq = fact.seq or 0
    message = MessageRow(
        thread_id=fact.stream,
        seq=seq,
        part=MAIN_PART,
        id=message_id or ids.fact_message_id(fact.stream, seq),
        workspace_id=fact.workspace_id,
        number=numbers[0] if numbers else 0,
        run_id=run.id,
        role="tool",
        content=result,
        created_ms=fact.time_ms,
        tool_call_id=tool_call_id,
    )
    add_message(view, message, run)
    return message


def _note(view: View, fact: Fact, run: RunRow, note: Note) -> None:
    if note.kind == "skill":
        slug = note.slug or note.id
        row = SkillRow(
            workspace_id=fact.workspace_id,
            agent_id=run.agent_id,
            slug=slug,
            id=note.id,
            name=note.name or note.title or slug,
            description=note.description or "",
            body=note.body or "",
            updated_ms=fact.time_ms,
        )
        keep_newest(view, row)
        return
    view.notes[(fact.workspace_id, note.id)] = NoteRow(
        workspace_id=fact.workspace_id,
        id=note.id,
        kind=note.kind,
        title=note.title or "",
        body=note.body,
        agent_id=run.agent_id,
        run_id=run.id,
        thread_id=fact.stream,
        seq=fact.seq or 0,
        created_ms=fact.time_ms,
    )

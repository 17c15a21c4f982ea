"""Threads and their messages: what a client lists and scrolls."""

from __future__ import annotations

from parley_events import ids
from parley_events.body import ThreadSeed
from parley_events.codec import Fact
from parley_events.facts import (
    MessagePosted,
    ThreadCleared,
    ThreadCreated,
    ThreadDeleted,
    ThreadExpired,
    ThreadRead,
    ThreadUpdated,
)
from parley_history.projections.files import add_files
from parley_history.projections.rows import MAIN_PART, SYSTEM_PART, MessageRow, RunRow, ThreadRow, View
from parley_history.projections.text import as_text


def thread_created(view: View, fact: Fact, body: ThreadCreated) -> None:
    open_thread(view, fact, body.seed)


def thread_updated(view: View, fact: Fact, body: ThreadUpdated) -> None:
    row = _changed(view, fact)
    if row is None:
        return
    if "title" in body.changes:
        row.title = body.title
    if "pinned" in body.changes:
        row.pinned = bool(body.pinned)
    if "archived" in body.changes:
        row.archived = bool(body.archived)
    if "metadata" in body.changes:
        row.metadata = body.metadata or {}


def thread_deleted(view: View, fact: Fact, body: ThreadDeleted) -> None:
    """The row stays, hidden; the runs end as their own facts say; the messages go."""
    row = _hide_messages(view, fact)
    if row is not None:
        row.deleted = True


def thread_cleared(view: View, fact: Fact, body: ThreadCleared) -> None:
    _hide_messages(view, fact)


def thread_expired(view: View, fact: Fact, body: ThreadExpired) -> None:
    row = _changed(view, fact)
    if row is not None:
        row.expired = True


def thread_read(view: View, fact: Fact, body: ThreadRead) -> None:
    """The mark of its own user moves, forward only; nothing shows those of others."""
    row = view.threads.get(fact.stream)
    if row is not None and row.user_id == body.user_id and row.read_seq < body.up_to:
        view.threads.change(row.id)
        row.read_seq = body.up_to


def message_posted(view: View, fact: Fact, body: MessagePosted) -> None:
    """The question, before it the system text that came with it, and the run that will answer."""
    if body.opened is not None:
        open_thread(view, fact, body.opened)
    numbers = (*body.numbers, 0, 0, 0)
    seq = fact.seq or 0
    run = RunRow(
        id=body.run_id,
        workspace_id=fact.workspace_id,
        thread_id=fact.stream,
        partition=view.partition,
        parent_run_id=None,
        agent_id=body.agent_id,
        agent_version=body.agent_version,
        status="running" if body.disposition == "started" else "queued",
        message_id=body.answer_id,
        question_id=body.message_id,
        answer_number=numbers[2],
        posted_seq=seq,
        created_ms=fact.time_ms,
    )
    view.runs.put(run)
    count_open(view, fact.stream, 1)
    system = body.system_prompt if body.system_prompt is not None else None
    if system is None and body.context is not None:
        system = as_text(body.context)
    if system is not None:
        add_message(
            view,
            MessageRow(
                thread_id=fact.stream,
                seq=seq,
                part=SYSTEM_PART,
                id=ids.fact_message_id(fact.stream, seq),
                workspace_id=fact.workspace_id,
                number=numbers[0],
                run_id=run.id,
                role="system",
                content=system,
                created_ms=fact.time_ms,
            ),
            run,
        )
    add_message(
        view,
        MessageRow(
            thread_id=fact.stream,
            seq=seq,
            part=MAIN_PART,
            id=body.message_id,
            workspace_id=fact.workspace_id,
            number=numbers[1],
            run_id=run.id,
            role="user",
            content=body.text,
            created_ms=fact.time_ms,
            author=body.author.model_dump(mode="json"),
            attachments=[attachment.model_dump(mode="json") for attachment in body.attachments],
            metadata=body.metadata,
            lead_context=body.lead_context,
            knowledge_ids=list(body.knowledge_ids),
        ),
        run,
    )
    add_files(view, fact, run, "attachment", body.attachments)


def add_message(view: View, message: MessageRow, run: RunRow | None) -> bool:
    """Show a message in its thread, unless it is a child run's, or the thread is gone or was cleared since its run was
    posted; whether it is shown."""
    thread = view.threads.get(message.thread_id)
    if thread is None or thread.deleted or run is None or run.parent_run_id is not None:
        return False
    if run.posted_seq < thread.cleared_seq:
        return False
    view.messages[(message.thread_id, message.seq, message.part)] = message
    view.threads.change(thread.id)
    thread.message_count += 1
    if message.role == "assistant":
        thread.answered_seq = message.seq
    thread.last_message_ms = max(thread.last_message_ms or 0, message.created_ms)
    thread.active_ms = max(thread.active_ms, message.created_ms)
    thread.updated_ms = max(thread.updated_ms, message.created_ms)
    return True


def count_open(view: View, thread_id: str, more: int) -> None:
    """A top-level run of the thread began or ended."""
    thread = view.threads.get(thread_id)
    if thread is not None and thread.idle_s is not None:
        view.threads.change(thread_id)
        thread.open_runs += more


def open_thread(view: View, fact: Fact, seed: ThreadSeed) -> ThreadRow:
    """A new thread."""
    row = ThreadRow(
        id=fact.stream,
        workspace_id=fact.workspace_id,
        title=seed.title,
        agent_id=seed.agent_id,
        team_id=seed.team_id,
        user_id=seed.user_id,
        channel=seed.channel,
        system_prompt=seed.system_prompt,
        context=seed.context,
        metadata=seed.metadata,
        created_ms=fact.time_ms,
        updated_ms=fact.time_ms,
        active_ms=fact.time_ms,
        idle_s=seed.idle_s,
        end_user=seed.end_user,
    )
    view.threads.put(row)
    return row


def _changed(view: View, fact: Fact) -> ThreadRow | None:
    row = view.threads.change(fact.stream)
    if row is not None:
        row.updated_ms = max(row.updated_ms, fact.time_ms)
    return row


def _hide_messages(view: View, fact: Fact) -> ThreadRow | None:
    row = _changed(view, fact)
    if row is None:
        return None
    row.cleared_seq = view.cleared[row.id] = fact.seq or 0
    row.message_count = row.answered_seq = 0
    row.last_message_ms = None
    row.active_ms = max(row.active_ms, fact.time_ms)
    for key in [key for key in view.messages if key[0] == row.id]:
        del view.messages[key]
    for place in [place for place in view.files if place[0] == row.id]:
        del view.files[place]
    for approval in [approval for approval in view.approvals.all() if approval.thread_id == row.id]:
        view.approvals.drop(approval.id)
    return row

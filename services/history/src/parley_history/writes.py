"""Loading the rows that a batch needs, and storing what it changed: `sql/writes.sql` around `projections`.

Called within the transaction that moved the position, so that no other projector is at the same rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson

from parley_events.body import Usage
from parley_history.db import Connection
from parley_history.projections.rows import (
    ApprovalRow,
    Call,
    KeyRow,
    MessageRow,
    Needs,
    RunRow,
    ThreadRow,
    View,
    WorkspaceRow,
)
from parley_history.projections.text import as_column, as_text, clean
from parley_history.sql import blocks

SQL = blocks("writes.sql")

Insert = Callable[[Connection, str, Sequence[Sequence[Any]]], Awaitable[None]]
"""How rows that were never there before come into their table: the statement's name, and the rows in its columns."""


async def load(connection: Connection, needs: Needs) -> View:
    """The view of a batch, with the rows it needs."""
    return View(
        threads=await _rows(connection, "load_threads", needs.threads, _thread),
        runs=await _rows(connection, "load_runs", needs.runs, _run),
        keys=[
            KeyRow(**{**row, "scopes": orjson.loads(row["scopes"])})
            for row in (await connection.fetch(SQL["load_keys"], *_pairs(needs.keys)) if needs.keys else ())
        ],
        workspaces=await _rows(connection, "load_workspaces", needs.workspaces, _workspace),
        approvals=await _rows(connection, "load_approvals", needs.approvals, _approval),
    )


async def upsert(connection: Connection, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement that takes one array per column."""
    if rows:
        await connection.put(SQL[name], rows)


async def store(
    connection: Connection, view: View, streams: Mapping[str, tuple[int, str, int]], insert: Insert = upsert
) -> None:
    """Write what changed, and each stream's (partition, workspace, newest seq)."""

    async def put(name: str, rows: Iterable[Any]) -> None:
        await upsert(connection, name, plain(rows))

    async def columns(name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        await upsert(connection, name, list(rows))

    await insert(connection, "put_facts", view.facts)
    await columns("put_streams", ((key, *head) for key, head in streams.items()))
    await columns("put_threads", (thread_columns(thread) for thread in view.threads.changed.values()))
    await columns("clear_messages", view.cleared.items())
    await columns("clear_files", view.cleared.items())
    await columns("clear_approvals", view.cleared.items())
    await insert(connection, "put_files", plain(view.files.values()))
    await insert(connection, "put_messages", [message_columns(message) for message in view.messages.values()])
    await columns("put_call_statuses", ((*key, status) for key, status in view.call_statuses.items()))
    await columns("put_runs", (run_columns(run) for run in view.runs.changed.values()))
    await put("put_approvals", view.approvals.changed.values())
    await columns("close_approvals", view.approvals_closed.items())
    await put("put_dues", (due for due in view.dues.values() if due is not None))
    await columns("drop_dues", (key for key, due in view.dues.items() if due is None))
    await columns("drop_dues_of", view.dues_of)
    await put("put_notes", view.notes.values())
    # Partitions meet at skills alone: one order of locking, so that no two wait for each other.
    await put("put_skills", (view.skills[key] for key in sorted(view.skills)))
    await columns("drop_knowledge", view.knowledge)
    await columns("drop_passages", view.knowledge)
    await put("put_knowledge", (row for row in view.knowledge.values() if row is not None))
    await put("put_passages", (row for rows in view.passages.values() for row in rows))
    await put("put_workspaces", view.workspaces.changed.values())
    await put("put_keys", view.keys.changed.values())
    await put("put_agents", view.agents.values())
    await columns("delete_agents", ((*key, seq) for key, seq in view.agents_deleted.items()))
    await put("put_teams", (team for team in view.teams.values() if team is not None))
    await columns("drop_teams", (key for key, team in view.teams.items() if team is None))


_AS_IT_IS = frozenset({int, bool, bytes, type(None)})


def plain(rows: Iterable[Any]) -> list[Sequence[Any]]:
    """Rows whose fields, in their order, are the columns of their statement."""
    rows = list(rows)
    if not rows:
        return []
    take = attrgetter(*(field.name for field in fields(rows[0])))
    return [[value if type(value) in _AS_IT_IS else as_column(value) for value in take(row)] for row in rows]


async def _rows(
    connection: Connection, name: str, keys: Iterable[str], make: Callable[[Mapping[str, Any]], Any]
) -> list[Any]:
    wanted = list(keys)
    if not wanted:
        return []
    return [make(row) for row in await connection.fetch(SQL[name], wanted)]


def _pairs(keys: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    pairs = list(keys)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _thread(row: Mapping[str, Any]) -> ThreadRow:
    values = dict(row)
    values["context"] = None if values["context"] is None else orjson.loads(values["context"])
    values["metadata"] = orjson.loads(values["metadata"])
    return ThreadRow(**values)


def _workspace(row: Mapping[str, Any]) -> WorkspaceRow:
    lists = {name: orjson.loads(row[name]) for name in ("structures", "mcp_servers", "connectors")}
    return WorkspaceRow(**{**row, **lists})


def _approval(row: Mapping[str, Any]) -> ApprovalRow:
    values = dict(row)
    for name in ("arguments", "input_schema", "who", "edited"):
        values[name] = None if values[name] is None else orjson.loads(values[name])
    return ApprovalRow(**values)


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _run(row: Mapping[str, Any]) -> RunRow:
    values = dict(row)
    usage = Usage(**{name: values.pop(name) for name in _TOKENS})
    calls = [Call(*call) for call in orjson.loads(values.pop("calls"))]
    return RunRow(usage=usage, calls=calls, **values)


def thread_columns(thread: ThreadRow) -> tuple[Any, ...]:
    """A thread in the columns of `put_threads`."""
    return (
        thread.id,
        thread.workspace_id,
        clean(thread.title),
        clean(thread.agent_id),
        clean(thread.team_id),
        clean(thread.user_id),
        clean(thread.channel),
        clean(thread.system_prompt),
        None if thread.context is None else as_text(thread.context),
        as_text(thread.metadata),
        thread.created_ms,
        thread.updated_ms,
        thread.active_ms,
        thread.pinned,
        thread.archived,
        clean(thread.forked_from),
        thread.forked_at,
        thread.last_message_ms,
        thread.message_count,
        thread.cleared_seq,
        thread.expired,
        thread.deleted,
        thread.idle_s,
        thread.open_runs,
        clean(thread.end_user),
        thread.read_seq,
        thread.answered_seq,
    )


def message_columns(message: MessageRow) -> tuple[Any, ...]:
    """A message in the columns of `put_messages`."""
    return (
        message.thread_id,
        message.seq,
        message.part,
        clean(message.id),
        message.workspace_id,
        message.number,
        clean(message.run_id),
        message.role,
        clean(message.content),
        message.created_ms,
        clean(message.tool_call_id),
        clean(message.tool_name),
        None if message.tool_arguments is None else as_text(message.tool_arguments),
        message.tool_status,
        None if message.author is None else as_text(message.author),
        as_text(message.attachments) if message.attachments else "[]",
        as_text(message.metadata) if message.metadata else "{}",
        None if message.lead_context is None else as_text(message.lead_context),
        as_text(message.knowledge_ids) if message.knowledge_ids else "[]",
        message.client,
        message.beside,
        clean(message.before),
        message.told,
    )


def run_columns(run: RunRow) -> tuple[Any, ...]:
    """A run in the columns of `put_runs`."""
    usage = run.usage
    return (
        run.id,
        run.workspace_id,
        run.thread_id,
        run.partition,
        run.parent_run_id,
        clean(run.agent_id),
        run.agent_version,
        run.status,
        run.message_id,
        run.question_id,
        run.answer_number,
        run.posted_seq,
        run.created_ms,
        run.attempt,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        clean(run.stop_reason),
        clean(run.error_code),
        clean(run.error_message),
        clean(run.answer),
        clean(run.last_text),
        as_text([(c.seq, c.call, c.index, c.tool_call_id, c.status, c.due, c.first) for c in run.calls])
        if run.calls
        else "[]",
        run.ended_seq,
        run.ended_ms,
        run.told,
    )

"""Runs, and the approvals that they wait for."""

from __future__ import annotations

from parley_events.clock import rfc3339
from parley_history.db import Connection
from parley_history.reads.answers import (
    AT,
    SQL,
    Answer,
    Row,
    cursor_of,
    json_of,
    open_cursor,
    position_of,
    stamped,
    time_of,
)


async def run(con: Connection, workspace_id: str, run_id: str) -> Answer | None:
    row = await con.row(SQL["run"], workspace_id, run_id)
    return None if row is None else told_run(row) | {AT: position_of(row["thread_id"], row["seq"])}


async def open_runs(
    con: Connection,
    workspace_id: str,
    *,
    agent_id: str | None,
    user_id: str | None,
    thread_id: str | None,
    until_ms: int | None,
    limit: int,
    cursor: str | None,
) -> Answer:
    """Oldest first; `until_ms`: those that were asked for by then. Raises BadCursor."""
    created_ms, run_id = open_cursor(cursor, str)
    wanted = (workspace_id, agent_id, user_id, thread_id, until_ms)
    rows = await con.fetch(SQL["open_runs"], *wanted, created_ms, run_id, limit + 1)
    more = len(rows) > limit
    return {
        "items": [stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if more else None,
    }


async def approval(con: Connection, workspace_id: str, approval_id: str) -> Answer | None:
    row = await con.row(SQL["approval"], workspace_id, approval_id)
    return None if row is None else _approval(row)


async def approvals(
    con: Connection,
    workspace_id: str,
    *,
    status: str | None,
    thread_id: str | None,
    agent_id: str | None,
    user_id: str | None,
    answerer: str | None,
    limit: int,
    cursor: str | None,
) -> Answer:
    """Newest first: those in threads that `user_id` sees, or that `answerer` may answer; all where neither is named.
    Raises BadCursor."""
    created_ms, approval_id = open_cursor(cursor, str)
    wanted = (workspace_id, status, thread_id, agent_id, user_id, answerer)
    rows = await con.fetch(SQL["approvals"], *wanted, created_ms, approval_id, limit + 1)
    more = len(rows) > limit
    return {
        "items": [_approval(row) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if more else None,
        "total": await con.value(SQL["approvals_total"], *wanted),
    }


def _approval(row: Row) -> Answer:
    return {
        "id": row["id"],
        "thread_id": row["thread_id"],
        "run_id": row["run_id"],
        "agent_id": row["agent_id"],
        "user_id": row["user_id"],
        "seq": row["seq"],
        "tool_call_id": row["tool_call_id"],
        "name": row["name"],
        "arguments": json_of(row["arguments"]),
        "question": row["question"],
        "input_schema": json_of(row["input_schema"]),
        "who": json_of(row["who"]),
        "status": row["status"],
        "created_at": rfc3339(row["created_ms"]),
        "expires_at": rfc3339(row["due_ms"]),
        "answered_by": row["answered_by"],
        "comment": row["comment"],
        "edited": json_of(row["edited"]),
        "answered_at": time_of(row["answered_ms"]),
    }


def told_run(row: Row) -> Answer:
    error = None
    if row["error_code"] is not None:
        error = {"code": row["error_code"], "message": row["error_message"] or ""}
    return {
        "id": row["id"],
        "thread_id": row["thread_id"],
        "workspace_id": str(row["workspace_id"]),
        "parent_run_id": row["parent_run_id"],
        "agent_id": row["agent_id"],
        "agent_version": row["agent_version"],
        "status": row["status"],
        "attempt": row["attempt"],
        "usage": {
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "cache_read_tokens": row["cache_read_tokens"],
            "cache_write_tokens": row["cache_write_tokens"],
        },
        "stop_reason": row["stop_reason"],
        "error": error,
        "message_id": row["message_id"],
        "question_id": row["question_id"],
        "answer": row["answer"],
        "last_text": row["last_text"],
        "posted_seq": row["posted_seq"],
        "ended_seq": row["ended_seq"],
        "created_at": rfc3339(row["created_ms"]),
        "ended_at": time_of(row["ended_ms"]),
    }

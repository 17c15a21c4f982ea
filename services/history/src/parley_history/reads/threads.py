"""Threads, their messages in each contract's order, what is unread, and their files."""

from __future__ import annotations

from collections.abc import Sequence

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


async def thread(con: Connection, workspace_id: str, thread_id: str, now_ms: int) -> Answer | None:
    """`now_ms`: an idle thread that is due has expired, whether its fact is there or not."""
    row = await con.row(SQL["thread"], workspace_id, thread_id, now_ms)
    return None if row is None else told_thread(row) | {AT: position_of(row["id"], row["seq"])}


async def threads(
    con: Connection,
    workspace_id: str,
    *,
    archived: bool,
    user_id: str | None,
    agent_id: str | None,
    team_id: str | None,
    pinned: bool | None,
    channel: str | None,
    limit: int,
    cursor: str | None,
    now_ms: int,
) -> Answer:
    """Most recent activity first. Raises BadCursor."""
    wanted = (workspace_id, archived, user_id, agent_id, team_id, pinned, channel)
    active_ms, thread_id = open_cursor(cursor, str)
    rows = await con.fetch(SQL["threads"], *wanted, active_ms, thread_id, limit + 1, now_ms)
    return {
        "items": [told_thread(row) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["active_ms"], rows[limit - 1]["id"]) if len(rows) > limit else None,
        "total": await con.value(SQL["threads_total"], *wanted),
    }


async def messages(
    con: Connection,
    workspace_id: str,
    thread_id: str,
    *,
    roles: Sequence[str] | None,
    limit: int,
    descending: bool,
    cursor: str | None,
) -> Answer | None:
    """None when there is no such thread. Raises BadCursor."""
    seq, part = open_cursor(cursor, int)
    thread = await con.row(SQL["thread"], workspace_id, thread_id, 0)
    if thread is None:
        return None
    sql = SQL["messages_desc" if descending else "messages_asc"]
    rows = await con.fetch(sql, workspace_id, thread_id, roles, seq, part, limit + 1)
    return {
        "items": [told_message(row) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["seq"], rows[limit - 1]["part"]) if len(rows) > limit else None,
        "total": await con.value(SQL["messages_total"], workspace_id, thread_id, roles),
        AT: position_of(thread_id, thread["seq"]),
    }


async def numbered(
    con: Connection,
    workspace_id: str,
    *,
    thread_id: str | None,
    user_id: str | None,
    agent_id: str | None,
    tools: bool,
    before: int | None,
    after: int | None,
    limit: int,
) -> Answer:
    """Messages in the order of their numbers: the newest below `before`, the oldest above `after`, else the newest. Of
    one thread, or of all that the user has with the agent (without those that are kept for somebody else)."""
    wanted = (workspace_id, thread_id, user_id, agent_id, tools)
    ascending = after is not None
    bound = after if ascending else before
    rows = await con.fetch(SQL["numbered_above" if ascending else "numbered_below"], *wanted, bound, limit + 1)
    page = rows[:limit] if ascending else rows[:limit][::-1]
    calls: dict[tuple[str, int], list[Row]] = {(row["thread_id"], row["seq"]): [row] for row in page if _leads(row)}
    if calls:
        threads, seqs = zip(*calls, strict=True)
        for row in await con.fetch(SQL["calls_beside"], workspace_id, list(threads), list(seqs)):
            calls[row["thread_id"], row["beside"]].append(row)
    return {
        "items": [_numbered(row, calls.get((row["thread_id"], row["seq"]))) for row in page],
        "total": await con.value(SQL["numbered_total"], *wanted),
        "has_more": len(rows) > limit,
    }


async def client_call(
    con: Connection, workspace_id: str, user_id: str, agent_id: str, tool_call_id: str
) -> Answer | None:
    row = await con.row(SQL["client_call"], workspace_id, user_id, agent_id, tool_call_id)
    return None if row is None else told_message(row)


async def message(con: Connection, workspace_id: str, thread_id: str, message_id: str) -> Answer | None:
    row = await con.row(SQL["message"], workspace_id, thread_id, message_id)
    return None if row is None else told_message(row)


async def said(
    con: Connection,
    workspace_id: str,
    *,
    thread_id: str | None,
    user_id: str | None,
    agent_id: str | None,
    channels: Sequence[str],
    before: int | None,
    limit: int,
) -> Answer:
    """Questions and answers, ascending: the newest whose number is below `before`. Of one thread, or of all that the
    user has with the agent in these channels (without those that are kept for somebody else)."""
    rows = await con.fetch(SQL["said"], workspace_id, thread_id, user_id, agent_id, channels, before, limit)
    return {"items": [told_message(row) for row in rows[::-1]]}


async def inbox(con: Connection, workspace_id: str, user_id: str, agent_id: str, *, limit: int) -> Answer:
    """The newest answers beyond the user's marks, ascending, and how many there are."""
    rows = await con.fetch(SQL["inbox"], workspace_id, user_id, agent_id, limit)
    unread = await con.value(SQL["inbox_total"], workspace_id, user_id, agent_id)
    return {"items": [told_message(row) for row in rows[::-1]], "unread": unread}


async def unread(con: Connection, workspace_id: str, user_id: str, agent_id: str, after: str, *, limit: int) -> Answer:
    """The user's threads with the agent that have something unread, by id."""
    rows = await con.fetch(SQL["unread"], workspace_id, user_id, agent_id, after, limit)
    return {"items": [dict(row) for row in rows]}


async def deleted(
    con: Connection, workspace_id: str, user_id: str, *, agent_id: str | None, team_id: str | None, channel: str
) -> Answer:
    return {"count": await con.value(SQL["deleted"], workspace_id, user_id, agent_id, team_id, channel)}


async def files(
    con: Connection,
    workspace_id: str,
    thread_id: str,
    *,
    kind: str | None,
    name: str | None,
    sha256: str | None,
    limit: int,
    cursor: str | None,
) -> Answer | None:
    """None when there is no such thread. Raises BadCursor."""
    seq, after = open_cursor(cursor, str)
    if await con.row(SQL["thread"], workspace_id, thread_id, 0) is None:
        return None
    wanted = (workspace_id, thread_id, kind, name, sha256)
    rows = await con.fetch(SQL["files"], *wanted, seq, after, limit + 1)
    return {
        "items": [stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["seq"], rows[limit - 1]["name"]) if len(rows) > limit else None,
        "total": await con.value(SQL["files_total"], *wanted),
    }


def told_thread(row: Row) -> Answer:
    return {
        "id": row["id"],
        "workspace_id": str(row["workspace_id"]),
        "title": row["title"],
        "agent_id": row["agent_id"],
        "team_id": row["team_id"],
        "user_id": row["user_id"],
        "channel": row["channel"],
        "pinned": row["pinned"],
        "archived": row["archived"],
        "system_prompt": row["system_prompt"],
        "context": json_of(row["context"]),
        "metadata": json_of(row["metadata"]),
        "created_at": rfc3339(row["created_ms"]),
        "updated_at": rfc3339(row["updated_ms"]),
        "last_message_at": time_of(row["last_message_ms"]),
        "message_count": row["message_count"],
        "expired": row["expired_now"],
        "end_user": row["end_user"],
        "idle_s": row["idle_s"],
        "cleared_seq": row["cleared_seq"],
        "position": f"{row['id']}@{row['seq']}",
    }


def told_message(row: Row) -> Answer:
    status = row["tool_status"]
    calls = None
    if status is not None:
        calls = [
            {
                "id": row["tool_call_id"],
                "name": row["tool_name"],
                "arguments": json_of(row["tool_arguments"]),
                "status": status,
                "result": None,
                "is_error": None if status in ("running", "waiting") else status != "ok",
            }
        ]
    return {
        "id": row["id"],
        "number": row["number"],
        "seq": row["seq"],
        "thread_id": row["thread_id"],
        "run_id": row["run_id"],
        "role": row["role"],
        "content": row["content"],
        "tool_calls": calls,
        "tool_call_id": row["tool_call_id"],
        "author": json_of(row["author"]),
        "attachments": json_of(row["attachments"]),
        "lead_context": json_of(row["lead_context"]),
        "knowledge_ids": json_of(row["knowledge_ids"]),
        "metadata": json_of(row["metadata"]),
        "created_at": rfc3339(row["created_ms"]),
    }


def _leads(row: Row) -> bool:
    """Whether it is a call of a tool that the client runs."""
    return bool(row["client"]) and row["tool_status"] is not None


def _numbered(row: Row, calls: list[Row] | None) -> Answer:
    """A message as contracts with numbers show it: what is told of an answer in it, and all calls that it leads."""
    found = told_message(row)
    found["client"] = row["client"]
    if row["told"]:
        found["content"] = row["content"][row["told"] :]
    if calls is not None:
        found["content"] = row["before"] or None
        found["tool_calls"] = [call for each in calls for call in told_message(each)["tool_calls"]]
    return found

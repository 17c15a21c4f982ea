"""What readers ask: each function runs one query of `sql/reads.sql` and answers in a shape of `parley_events.reads`.

Answers are plain values for orjson; JSON that is stored as text or bytes is put into them as it is
(`orjson.Fragment`). The caller gives the connection: of the reader role, within a transaction for the workspace, where
a workspace is named; of the projector role otherwise.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from parley_events.clock import rfc3339
from parley_history.db import Connection
from parley_history.projections.text import clean
from parley_history.sql import blocks

SQL = blocks("reads.sql")
PROJECTION = "history"
FACTS_BYTES = 32 * 1024 * 1024
"""A page of facts ends after the one with which it passes this size."""

Row = Mapping[str, Any]
Answer = dict[str, Any]


class BadCursor(Exception):
    """The cursor is none that was given out."""


async def positions(con: Connection) -> Answer:
    return {"partitions": [dict(row) for row in await con.fetch(SQL["positions"], PROJECTION)]}


async def reached(con: Connection, partitions: list[int], streams: list[str]) -> tuple[dict[int, int], dict[str, int]]:
    """How far the view is on these partitions (next offset) and streams (newest seq)."""
    row = await con.row(SQL["reached"], PROJECTION, partitions, streams)
    if row is None:
        return {}, {}
    offsets = {int(number): offset for number, offset in orjson.loads(row["partitions"]).items()}
    return offsets, orjson.loads(row["streams"])


async def partition(con: Connection, number: int) -> Answer | None:
    """None when there is no such partition. Call it within a snapshot."""
    row = await con.row(SQL["partition"], PROJECTION, number)
    if row is None:
        return None
    threads = await con.fetch(SQL["open_threads"], number)
    return {
        **row,
        "claims": list(row["claims"]),
        "open_threads": [thread["thread_id"] for thread in threads],
        "waiting_threads": [thread["thread_id"] for thread in threads if thread["waiting"]],
    }


async def due(con: Connection, number: int, until_ms: int) -> Answer:
    rows = await con.fetch(SQL["due"], number, until_ms)
    return {
        "items": [
            {
                "stream": row["stream"],
                "workspace_id": row["workspace_id"],
                "due_key": row["due_key"],
                "due_at_ms": row["due_ms"],
            }
            for row in rows
        ]
    }


async def facts(
    con: Connection, stream: str, partition: int, *, after: int, limit: int, descending: bool, workspace: str | None
) -> Answer | None:
    """Stored facts of a stream beyond `after` (descending: below it, 0: from the newest); None while the partition has
    no position. A page may be shorter than `limit` when facts are large. Call it within a snapshot."""
    head = await con.row(SQL["stream_head"], stream, PROJECTION, partition, workspace)
    if head is None:
        return None
    bound = after or 2**62 if descending else after
    sql = SQL["facts_desc" if descending else "facts_asc"]
    rows = await con.fetch(sql, stream, bound, limit, FACTS_BYTES, workspace)
    return {
        "items": [
            {
                "offset": row["offset"],
                "time_ms": row["time_ms"],
                "headers": orjson.Fragment(row["headers"]),
                "body": orjson.Fragment(row["body"]),
            }
            for row in rows
        ],
        "last_seq": head["seq"] or 0,
        "partition": partition,
        "next_offset": head["next_offset"],
        "epoch": head["epoch"],
    }


async def workspace(con: Connection, workspace_id: str) -> Answer | None:
    row = await con.row(SQL["workspace"], workspace_id)
    return None if row is None else {**row, **{name: _json(row[name]) for name in _WORKSPACE_JSON}}


_WORKSPACE_JSON = ("structures", "mcp_servers", "connectors")


async def keys(con: Connection, workspace_id: str) -> Answer:
    return {"items": [_key(row) for row in await con.fetch(SQL["keys"], workspace_id, None)]}


async def key_by_hash(con: Connection, workspace_id: str, key_hash: str) -> Answer | None:
    """The key with this hash, revoked or not."""
    row = await con.row(SQL["keys"], workspace_id, key_hash)
    return None if row is None else _key(row)


async def agents(con: Connection, workspace_id: str) -> Answer:
    return {"items": [_spec(row) for row in await con.fetch(SQL["agents"], workspace_id)]}


async def agent(con: Connection, workspace_id: str, agent_id: str, version: int | None) -> Answer | None:
    """By its id or its UUID; one that was deleted too, saying so."""
    row = await con.row(SQL["agent"], workspace_id, agent_id, version)
    return None if row is None else _spec(row)


async def agent_versions(
    con: Connection, workspace_id: str, name: str, *, version: int | None, limit: int, cursor: str | None
) -> Answer | None:
    """None when there is no such agent, or it is deleted. Raises BadCursor."""
    before, _ = _open_cursor(cursor, str)
    newest = await con.row(SQL["agent"], workspace_id, name, None)
    if newest is None or newest["deleted"]:
        return None
    rows = await con.fetch(SQL["agent_versions"], workspace_id, newest["id"], version, before, limit + 1)
    total = await con.value(SQL["agent_versions_total"], workspace_id, newest["id"], version)
    return _versions([_stamped(_spec(row)) for row in rows], limit, total)


async def teams(con: Connection, workspace_id: str) -> Answer:
    return {"items": [_spec(row) for row in await con.fetch(SQL["teams"], workspace_id)]}


async def team_versions(
    con: Connection, workspace_id: str, name: str, *, version: int | None, limit: int, cursor: str | None
) -> Answer | None:
    """As `agent_versions`. The table has the newest version alone: the others are read off the facts, which are few and
    small (those beyond a workspace's 10,000 newest changes of teams are not listed)."""
    before, _ = _open_cursor(cursor, str)
    rows = [row for row in await con.fetch(SQL["teams"], workspace_id) if name in (row["id"], row["uuid"])]
    if not rows:
        return None
    team_id, uuid = rows[0]["id"], rows[0]["uuid"]
    found = []
    for row in await con.fetch(SQL["team_facts"], workspace_id):
        body = orjson.loads(row["body"])
        if body["spec"]["team_id"] == team_id and version in (None, body["team_version"]):
            made = {"id": team_id, "uuid": uuid, "version": body["team_version"], "spec": body["spec"]}
            found.append(made | {"created_at": rfc3339(row["time_ms"])})
    rest = [made for made in found if before is None or made["version"] < before]
    return _versions(rest[: limit + 1], limit, len(found))


def _versions(items: list[Answer], limit: int, total: int) -> Answer:
    """A page of versions out of one more than fit it."""
    last = items[limit - 1] if len(items) > limit else None
    following = None if last is None else _cursor(last["version"], last["id"])
    return {"items": items[:limit], "next_cursor": following, "total": total}


async def thread(con: Connection, workspace_id: str, thread_id: str, now_ms: int) -> Answer | None:
    """`now_ms`: an idle thread that is due has expired, whether its fact is there or not."""
    row = await con.row(SQL["thread"], workspace_id, thread_id, now_ms)
    return None if row is None else _thread(row)


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
    active_ms, thread_id = _open_cursor(cursor, str)
    rows = await con.fetch(SQL["threads"], *wanted, active_ms, thread_id, limit + 1, now_ms)
    return {
        "items": [_thread(row) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["active_ms"], rows[limit - 1]["id"]) if len(rows) > limit else None,
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
    seq, part = _open_cursor(cursor, int)
    if await con.row(SQL["thread"], workspace_id, thread_id, 0) is None:
        return None
    sql = SQL["messages_desc" if descending else "messages_asc"]
    rows = await con.fetch(sql, workspace_id, thread_id, roles, seq, part, limit + 1)
    return {
        "items": [_message(row) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["seq"], rows[limit - 1]["part"]) if len(rows) > limit else None,
        "total": await con.value(SQL["messages_total"], workspace_id, thread_id, roles),
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
    return None if row is None else _message(row)


async def message(con: Connection, workspace_id: str, thread_id: str, message_id: str) -> Answer | None:
    row = await con.row(SQL["message"], workspace_id, thread_id, message_id)
    return None if row is None else _message(row)


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
    return {"items": [_message(row) for row in rows[::-1]]}


async def inbox(con: Connection, workspace_id: str, user_id: str, agent_id: str, *, limit: int) -> Answer:
    """The newest answers beyond the user's marks, ascending, and how many there are."""
    rows = await con.fetch(SQL["inbox"], workspace_id, user_id, agent_id, limit)
    unread = await con.value(SQL["inbox_total"], workspace_id, user_id, agent_id)
    return {"items": [_message(row) for row in rows[::-1]], "unread": unread}


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
    seq, after = _open_cursor(cursor, str)
    if await con.row(SQL["thread"], workspace_id, thread_id, 0) is None:
        return None
    wanted = (workspace_id, thread_id, kind, name, sha256)
    rows = await con.fetch(SQL["files"], *wanted, seq, after, limit + 1)
    return {
        "items": [_stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["seq"], rows[limit - 1]["name"]) if len(rows) > limit else None,
        "total": await con.value(SQL["files_total"], *wanted),
    }


async def run(con: Connection, workspace_id: str, run_id: str) -> Answer | None:
    row = await con.row(SQL["run"], workspace_id, run_id)
    return None if row is None else _run(row)


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
    created_ms, run_id = _open_cursor(cursor, str)
    wanted = (workspace_id, agent_id, user_id, thread_id, until_ms)
    rows = await con.fetch(SQL["open_runs"], *wanted, created_ms, run_id, limit + 1)
    more = len(rows) > limit
    return {
        "items": [_stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if more else None,
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
    created_ms, approval_id = _open_cursor(cursor, str)
    wanted = (workspace_id, status, thread_id, agent_id, user_id, answerer)
    rows = await con.fetch(SQL["approvals"], *wanted, created_ms, approval_id, limit + 1)
    more = len(rows) > limit
    return {
        "items": [_approval(row) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if more else None,
        "total": await con.value(SQL["approvals_total"], *wanted),
    }


async def notes(con: Connection, workspace_id: str, kind: str | None, limit: int) -> Answer:
    rows = await con.fetch(SQL["notes"], workspace_id, kind, limit)
    return {"items": [_stamped(dict(row)) for row in rows]}


async def skills(con: Connection, workspace_id: str, agent_id: str | None, query: str | None) -> Answer:
    rows = await con.fetch(SQL["skills"], workspace_id, agent_id, clean(query) or None)
    return {"items": [_skill({**row, "body": None}) for row in rows]}


async def skill(con: Connection, workspace_id: str, slug: str, agent_id: str | None) -> Answer | None:
    row = await con.row(SQL["skill"], workspace_id, slug, agent_id)
    return None if row is None else _skill(dict(row))


async def documents(
    con: Connection, workspace_id: str, *, ids: Sequence[str] | None, limit: int, cursor: str | None
) -> Answer:
    """Without contents, newest first; with `ids` those alone. Raises BadCursor."""
    created_ms, after = _open_cursor(cursor, str)
    rows = await con.fetch(SQL["documents"], workspace_id, ids, created_ms, after, limit + 1)
    return {
        "items": [_stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": _cursor(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if len(rows) > limit else None,
        "total": await con.value(SQL["documents_total"], workspace_id, ids),
    }


async def document(con: Connection, workspace_id: str, document_id: str) -> Answer | None:
    row = await con.row(SQL["document"], workspace_id, document_id)
    return None if row is None else _stamped(dict(row))


async def passages(con: Connection, workspace_id: str, query: str, limit: int) -> Answer:
    """What fits the query best; the whole of it as a part of the text where none of its words is found."""
    asked = (clean(query) or "").strip()
    rows = await con.fetch(SQL["passages"], workspace_id, asked, limit)
    if not rows and asked:
        rows = await con.fetch(SQL["passages_with"], workspace_id, asked, limit)
    return {"items": [dict(row) for row in rows]}


def _json(text: str | None) -> Any:
    return None if text is None else orjson.Fragment(text)


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _stamped(values: Answer) -> Answer:
    values["created_at"] = rfc3339(values.pop("created_ms"))
    return values


def _key(row: Row) -> Answer:
    return _stamped({**row, "scopes": _json(row["scopes"])})


def _spec(row: Row) -> Answer:
    return {**row, "spec": _json(row["spec"])}


def _skill(values: Answer) -> Answer:
    values["updated_at"] = rfc3339(values.pop("updated_ms"))
    return values


def _thread(row: Row) -> Answer:
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
        "context": _json(row["context"]),
        "metadata": _json(row["metadata"]),
        "created_at": rfc3339(row["created_ms"]),
        "updated_at": rfc3339(row["updated_ms"]),
        "last_message_at": _time(row["last_message_ms"]),
        "message_count": row["message_count"],
        "expired": row["expired_now"],
        "end_user": row["end_user"],
        "idle_s": row["idle_s"],
        "cleared_seq": row["cleared_seq"],
        "position": f"{row['id']}@{row['seq']}",
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
        "arguments": _json(row["arguments"]),
        "question": row["question"],
        "input_schema": _json(row["input_schema"]),
        "who": _json(row["who"]),
        "status": row["status"],
        "created_at": rfc3339(row["created_ms"]),
        "expires_at": rfc3339(row["due_ms"]),
        "answered_by": row["answered_by"],
        "comment": row["comment"],
        "edited": _json(row["edited"]),
        "answered_at": _time(row["answered_ms"]),
    }


def _message(row: Row) -> Answer:
    status = row["tool_status"]
    calls = None
    if status is not None:
        calls = [
            {
                "id": row["tool_call_id"],
                "name": row["tool_name"],
                "arguments": _json(row["tool_arguments"]),
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
        "author": _json(row["author"]),
        "attachments": _json(row["attachments"]),
        "lead_context": _json(row["lead_context"]),
        "knowledge_ids": _json(row["knowledge_ids"]),
        "metadata": _json(row["metadata"]),
        "created_at": rfc3339(row["created_ms"]),
    }


def _leads(row: Row) -> bool:
    """Whether it is a call of a tool that the client runs."""
    return bool(row["client"]) and row["tool_status"] is not None


def _numbered(row: Row, calls: list[Row] | None) -> Answer:
    """A message as contracts with numbers show it: what is told of an answer in it, and all calls that it leads."""
    found = _message(row)
    found["client"] = row["client"]
    if row["told"]:
        found["content"] = row["content"][row["told"] :]
    if calls is not None:
        found["content"] = row["before"] or None
        found["tool_calls"] = [call for each in calls for call in _message(each)["tool_calls"]]
    return found


def _run(row: Row) -> Answer:
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
        "ended_at": _time(row["ended_ms"]),
    }


def _cursor(first: int, second: int | str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([first, second])).rstrip(b"=").decode()


def _open_cursor(cursor: str | None, second: type[int] | type[str]) -> tuple[int | None, Any]:
    if cursor is None:
        return None, None
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise BadCursor("not a cursor that was given out") from error
    if not isinstance(values, list) or [type(value) for value in values] != [int, second]:
        raise BadCursor("not a cursor that was given out")
    if not -(2**62) < values[0] < 2**62 or (isinstance(values[1], int) and not 0 <= values[1] < 100):
        raise BadCursor("not a cursor that was given out")
    return values[0], values[1]

"""What belongs to a workspace: its settings, keys, agents, teams, skills, notes and documents."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from parley_events.clock import rfc3339
from parley_history.db import Connection
from parley_history.projections.text import clean
from parley_history.reads.answers import SQL, Answer, Row, cursor_of, json_of, open_cursor, stamped


async def workspace(con: Connection, workspace_id: str) -> Answer | None:
    row = await con.row(SQL["workspace"], workspace_id)
    return None if row is None else {**row, **{name: json_of(row[name]) for name in _WORKSPACE_JSON}}


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
    before, _ = open_cursor(cursor, str)
    newest = await con.row(SQL["agent"], workspace_id, name, None)
    if newest is None or newest["deleted"]:
        return None
    rows = await con.fetch(SQL["agent_versions"], workspace_id, newest["id"], version, before, limit + 1)
    total = await con.value(SQL["agent_versions_total"], workspace_id, newest["id"], version)
    return _versions([stamped(_spec(row)) for row in rows], limit, total)


async def teams(con: Connection, workspace_id: str) -> Answer:
    return {"items": [_spec(row) for row in await con.fetch(SQL["teams"], workspace_id)]}


async def team_versions(
    con: Connection, workspace_id: str, name: str, *, version: int | None, limit: int, cursor: str | None
) -> Answer | None:
    """As `agent_versions`. The table has the newest version alone: the others are read off the facts, which are few and
    small (those beyond a workspace's 10,000 newest changes of teams are not listed)."""
    before, _ = open_cursor(cursor, str)
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
    following = None if last is None else cursor_of(last["version"], last["id"])
    return {"items": items[:limit], "next_cursor": following, "total": total}


async def notes(con: Connection, workspace_id: str, kind: str | None, limit: int) -> Answer:
    rows = await con.fetch(SQL["notes"], workspace_id, kind, limit)
    return {"items": [stamped(dict(row)) for row in rows]}


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
    created_ms, after = open_cursor(cursor, str)
    rows = await con.fetch(SQL["documents"], workspace_id, ids, created_ms, after, limit + 1)
    return {
        "items": [stamped(dict(row)) for row in rows[:limit]],
        "next_cursor": cursor_of(rows[limit - 1]["created_ms"], rows[limit - 1]["id"]) if len(rows) > limit else None,
        "total": await con.value(SQL["documents_total"], workspace_id, ids),
    }


async def document(con: Connection, workspace_id: str, document_id: str) -> Answer | None:
    row = await con.row(SQL["document"], workspace_id, document_id)
    return None if row is None else stamped(dict(row))


async def passages(con: Connection, workspace_id: str, query: str, limit: int) -> Answer:
    """What fits the query best; the whole of it as a part of the text where none of its words is found."""
    asked = (clean(query) or "").strip()
    rows = await con.fetch(SQL["passages"], workspace_id, asked, limit)
    if not rows and asked:
        rows = await con.fetch(SQL["passages_with"], workspace_id, asked, limit)
    return {"items": [dict(row) for row in rows]}


def _key(row: Row) -> Answer:
    return stamped({**row, "scopes": json_of(row["scopes"])})


def _spec(row: Row) -> Answer:
    return {**row, "spec": json_of(row["spec"])}


def _skill(values: Answer) -> Answer:
    values["updated_at"] = rfc3339(values.pop("updated_ms"))
    return values

"""How far the view is, what is due, and stored facts as they came."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from parley_history.db import Connection
from parley_history.reads.answers import AT, PROJECTION, SQL, Answer, Row, position_of

FACTS_BYTES = 32 * 1024 * 1024
"""A page of facts ends after the one with which it passes this size."""
EXAMINED = 2000
"""So many facts of a partition are looked at for one page, whether they are seen or not."""


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


async def due(con: Connection, partitions: list[int], until_ms: int) -> Answer:
    rows = await con.fetch(SQL["due"], partitions, until_ms)
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
        "items": [_stored(row) for row in rows],
        "last_seq": head["seq"] or 0,
        AT: position_of(stream, head["seq"] or 0),
        "partition": partition,
        "next_offset": head["next_offset"],
        "epoch": head["epoch"],
    }


async def facts_between(
    con: Connection,
    workspace: str,
    partition: int,
    first: int,
    below: int,
    *,
    limit: int,
    user_id: str | None,
    threads: Sequence[str] | None,
) -> Answer:
    """Facts of the threads that a user sees (None: of all), or of some of these, by their offsets from `first` to below
    `below`; those after the page are from `next_offset` on. Of a deleted thread it tells its deletion, and what follows
    that. Call it within a snapshot."""
    bounds = (workspace, partition, first, below, EXAMINED, user_id)
    if threads is None:
        places = await con.fetch(SQL["places_of_workspace"], *bounds)
    else:
        before = await con.fetch(SQL["owners"], workspace, list(threads), [first] * len(threads))
        after = [row["id"] for row in before], [row["seq"] for row in before]
        places = await con.fetch(SQL["places_of_threads"], *bounds, *after)
    gone = sorted({row["stream"] for row in places if row["seen"] and row["deleted"]})
    deleted = {row["stream"]: row["seq"] for row in await con.fetch(SQL["deletions"], workspace, gone)} if gone else {}
    then = below if len(places) < EXAMINED else places[-1]["offset"] + 1
    found: list[int] = []
    size = 0
    for row in places:
        if not row["seen"] or row["deleted"] is None or row["seq"] < deleted.get(row["stream"], 0):
            continue
        if len(found) == limit or size > FACTS_BYTES:
            then = row["offset"]
            break
        found.append(row["offset"])
        size += row["size"]
    rows = await con.fetch(SQL["facts_at"], workspace, partition, found) if found else []
    return {"items": [_stored(row) for row in rows], "next_offset": then}


async def owners(con: Connection, workspace: str, places: Sequence[tuple[str, int]]) -> Answer:
    """Whose threads are, those among them that the view has, and how far each was below an offset."""
    rows = await con.fetch(SQL["owners"], workspace, [stream for stream, _ in places], [below for _, below in places])
    return {"items": [dict(row) for row in rows]}


def _stored(row: Row) -> Answer:
    return {
        "offset": row["offset"],
        "time_ms": row["time_ms"],
        "headers": orjson.Fragment(row["headers"]),
        "body": orjson.Fragment(row["body"]),
    }

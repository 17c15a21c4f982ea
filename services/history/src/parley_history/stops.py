"""Where a partition of the view stands still, and the records that an administrator had the view skip.

A stop is on record so that any replica can tell it, with the bytes of the record, which the log may lose. A skip is a
choice that no fact says: it is kept beside the projections, with who made it, when and why, and is never changed.
Above it: `projector`, which stops and goes on, and `http`, where skips are asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from parley_events.clock import rfc3339
from parley_events.log.port import Incoming
from parley_history.db import Connection
from parley_history.reads.answers import PROJECTION, Answer, Row
from parley_history.reads.answers import SQL as READS
from parley_history.writes import SQL as WRITES


@dataclass(frozen=True, slots=True)
class Stop:
    """A partition stands still at an offset, because of its record; None: there is none that could be skipped."""

    offset: int
    fault: str
    record: Incoming | None = None


class NotStopped(Exception):
    """Nothing stands still there, or no record is why."""


class SkippedBefore(Exception):
    """The record was skipped, by somebody else or for another reason."""


async def note(con: Connection, partition: int, stop: Stop, now_ms: int) -> None:
    """Put a stop on record."""
    record = stop.record
    kept = (None, None, None, None) if record is None else (record.time_ms, record.key, _headers(record), record.value)
    await con.run(WRITES["put_stop"], partition, stop.offset, stop.fault.replace("\x00", "\ufffd"), now_ms, *kept)


async def skipped_offsets(con: Connection) -> dict[int, frozenset[int]]:
    """What a fold passes over, by partition: ever, for it may be one from the beginning. They are few."""
    found: dict[int, set[int]] = {}
    for row in await con.fetch(WRITES["skipped_offsets"]):
        found.setdefault(row["partition"], set()).add(row["offset"])
    return {partition: frozenset(offsets) for partition, offsets in found.items()}


async def stopped(con: Connection) -> Answer:
    """The partitions that stand still."""
    rows = await con.fetch(READS["stops"], PROJECTION)
    return {"items": [_told(row) | {"stopped_at": rfc3339(row["stopped_ms"])} for row in rows]}


async def skipped(con: Connection, limit: int) -> Answer:
    """What was skipped, the newest first."""
    rows = await con.fetch(READS["skips"], None, None, limit)
    return {"items": [_skip(row) for row in rows], "total": await con.value(READS["skips_total"])}


async def skip(
    con: Connection, partition: int, offset: int, *, reason: str, user_id: str, key_id: str, now_ms: int
) -> Answer:
    """Have the view skip the record at which a partition stands still; once, however often it is asked for. Raises
    NotStopped, SkippedBefore."""
    made = await con.run(WRITES["put_skip"], PROJECTION, partition, offset, reason, user_id, key_id, now_ms)
    row = await con.row(READS["skips"], partition, offset, 1)
    if row is None:
        raise NotStopped
    if not made and (row["reason"], row["user_id"]) != (reason, user_id):
        raise SkippedBefore
    return _skip(row) | {"repeated": not made}


def _skip(row: Row) -> Answer:
    told = {"reason": row["reason"], "user_id": row["user_id"], "skipped_at": rfc3339(row["skipped_ms"])}
    return _told(row) | told


def _told(row: Row) -> Answer:
    """A record as far as its headers tell. `skippable`: there is one."""
    heads: Mapping[str, str] = {}
    if row["headers"] is not None:
        heads = {name: _text(value) for name, value in orjson.loads(row["headers"])}
    return {
        "partition": row["partition"],
        "offset": row["offset"],
        "fault": row["fault"],
        "skippable": row["headers"] is not None,
        "type": heads.get("ce_type"),
        "stream": heads.get("ce_subject"),
        "seq": heads.get("ce_seq"),
        "workspace_id": heads.get("ce_workspaceid"),
        "size": row["size"] or 0,
    }


def _headers(record: Incoming) -> str:
    """The headers with their bytes in base64: a name may be there twice, and a value be anything."""
    pairs: list[tuple[str, Any]] = [
        (name, None if value is None else base64.b64encode(value).decode()) for name, value in record.headers
    ]
    return orjson.dumps(pairs).decode()


def _text(value: str | None) -> str:
    return "" if value is None else base64.b64decode(value).decode("utf-8", "replace")[:200]

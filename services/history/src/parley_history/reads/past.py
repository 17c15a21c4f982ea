"""A thread, its messages and its runs as they were at a fact of it, or at a time.

The stored facts up to there are folded by the very functions that fold the view, onto rows in memory: there is no
second meaning. Cleared messages are there before the clear; of a thread that is deleted nothing is told. A request
folds at most `MOST_FACTS` facts and `MOST_BYTES` of them, a few at a time, so that others get their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

from parley_events.codec import Fact, fact_from
from parley_history.db import Connection
from parley_history.projections import fold
from parley_history.projections.dues import SESSION
from parley_history.projections.rows import MessageRow, View
from parley_history.projections.text import as_column
from parley_history.reads.answers import AT, SQL, Answer, Row, cursor_of, open_cursor, position_of
from parley_history.reads.runs import told_run
from parley_history.reads.threads import told_message, told_thread

MOST_FACTS = 5000
MOST_BYTES = 32 * 1024 * 1024
_SLICE = 100


class Ahead(Exception):
    """The view has no fact of that seq yet."""


class TooMuch(Exception):
    """More facts than one request folds."""


@dataclass(frozen=True, slots=True)
class AsOf:
    """When: at a fact, or at a time (ms since 1970): the newest fact whose time is not after it, and all before."""

    seq: int | None = None
    time_ms: int | None = None


@dataclass(slots=True)
class Past:
    """A thread's rows as they were after its fact `seq`, at `now_ms`. `newest`: the seq that the view has by now."""

    view: View
    thread_id: str
    seq: int
    now_ms: int
    newest: int


async def past(con: Connection, workspace_id: str, thread_id: str, as_of: AsOf) -> Past | None:
    """None where the thread is not there, or was not then. Call it within a snapshot. Raises Ahead, TooMuch."""
    thread = await con.row(SQL["thread"], workspace_id, thread_id, 0)
    if thread is None:
        return None
    if as_of.seq is not None and as_of.seq > thread["seq"]:
        raise Ahead
    until = as_of.seq
    if as_of.time_ms is not None:
        until = await con.value(SQL["seq_at"], thread_id, workspace_id, as_of.time_ms)
    if not until:
        return None
    many = await con.row(SQL["facts_until"], thread_id, workspace_id, until, MOST_FACTS + 1)
    if many is None or many["count"] > MOST_FACTS or many["size"] > MOST_BYTES:
        raise TooMuch
    view, after = View(), 0
    last: Fact | None = None
    while after < until:
        rows = await con.fetch(SQL["facts_asc"], thread_id, after, min(_SLICE, until - after), MOST_BYTES, workspace_id)
        if not rows:
            break
        read = [_fact(row) for row in rows]
        facts = [fact for fact in read if (fact.seq or 0) <= until]
        fold(view, 0, facts)
        last = facts[-1] if facts else last
        after = read[-1].seq or until
        await asyncio.sleep(0)
    if last is None:
        return None
    now_ms = last.time_ms if as_of.time_ms is None else as_of.time_ms
    return Past(view, thread_id, last.seq or 0, now_ms, thread["seq"])


def thread(then: Past) -> Answer | None:
    """The thread."""
    row = then.view.threads.get(then.thread_id)
    if row is None:
        return None
    due = then.view.dues.get((then.thread_id, SESSION))
    expired = row.expired or (due is not None and due.due_ms <= then.now_ms)
    return told_thread(_columns(row) | {"seq": then.seq, "expired_now": expired}) | _at(then)


def messages(
    then: Past, *, roles: Sequence[str] | None, limit: int, descending: bool, cursor: str | None
) -> Answer | None:
    """A page of its messages. Raises BadCursor."""
    seq, part = open_cursor(cursor, int)
    if then.view.threads.get(then.thread_id) is None:
        return None
    rows = sorted(
        (row for row in then.view.messages.values() if roles is None or row.role in roles),
        key=_place,
        reverse=descending,
    )
    total = len(rows)
    if seq is not None:
        rows = [row for row in rows if (_place(row) < (seq, part) if descending else _place(row) > (seq, part))]
    page = rows[:limit]
    return {
        "items": [told_message(_columns(row)) for row in page],
        "next_cursor": cursor_of(*_place(page[-1])) if len(rows) > limit else None,
        "total": total,
    } | _at(then)


def run(then: Past, run_id: str) -> Answer | None:
    """One of its runs; None: it was not there yet."""
    row = then.view.runs.get(run_id)
    if row is None:
        return None
    return told_run(_columns(row) | row.usage.model_dump()) | _at(then)


def _at(then: Past) -> Answer:
    return {AT: position_of(then.thread_id, then.newest)}


def _place(row: MessageRow) -> tuple[int, int]:
    return row.seq, row.part


def _columns(row: Any) -> dict[str, Any]:
    """The row as a query gives it."""
    return {field.name: as_column(getattr(row, field.name)) for field in fields(row)}


def _fact(row: Row) -> Fact:
    return fact_from(orjson.loads(row["headers"]), row["body"], row["offset"], row["time_ms"])

"""4. The views are a pure fold: row by row, PostgreSQL says what the facts that count say.

The facts are folded by the reference of the history's own tests, which knows no rows and no batches, and by `parked`;
each table is compared with that, and each difference names the row, the column, and both values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parley_events.clock import rfc3339
from tests.contract.history.reference import Reference
from tests.faults.check.parked import Rows, approvals, dues
from tests.faults.check.story import Story
from tests.faults.check.violation import Violation
from tests.faults.evidence import Row

PROJECTION = "history"
MOST = 20
"""As many differences of one table are told; where there are more, the rest is a number."""


def check_views(story: Story) -> list[Violation]:
    """Promise 4."""
    if "views" in story.evidence.without:
        return []
    expected = _expected(story)
    if isinstance(expected, Violation):
        return [expected]
    found = _found(story)
    compared = [difference for table in expected for difference in _compare(table, expected[table], found[table])]
    return [*compared, *_positions(story)]


def _expected(story: Story) -> dict[str, Rows] | Violation:
    """Every table's rows by their key, as the facts have them."""
    reference = Reference(story.facts)
    threads = {stream: facts for stream, facts in story.streams.items() if not stream.startswith("ws:")}
    workspaces = sorted({facts[0].workspace_id for facts in story.streams.values()})
    try:
        return {
            "facts": {
                (fact.stream, fact.seq): {"type": fact.type, "offset": fact.offset, "partition": story.partition(fact)}
                for fact in story.facts
            },
            "streams": {stream: {"seq": facts[-1].seq} for stream, facts in story.streams.items()},
            "threads": {stream: _thread(reference.thread(stream)) for stream in threads},
            "messages": {
                message["id"]: _message(message)
                for stream in threads
                if reference.thread(stream) is not None
                for message in reference.messages(stream)
            },
            "runs": {run: _run(reference.run(stream, run)) for stream, run in reference.runs()},
            "notes": {note["id"]: _note(note) for ws in workspaces for note in reference.notes(ws)},
            "approvals": {key: row for facts in threads.values() for key, row in approvals(facts).items()},
            "dues": {(s, key): {"due_ms": due} for facts in threads.values() for s, key, due in dues(facts)},
            "keys": {
                key: {name: value[name] for name in ("key_hash", "user_id", "scopes", "revoked")}
                for ws in workspaces
                for key, value in reference.keys(ws).items()
            },
            "agents": {
                (ws, *place): {name: value[name] for name in ("uuid", "spec", "deleted")}
                for ws in workspaces
                for place, value in reference.agents(ws).items()
            },
        }
    except Exception as error:  # the reference takes a sound log for granted
        return Violation(4, f"the facts cannot be folded, so nothing can be compared: {error!r}")


def _found(story: Story) -> dict[str, Rows]:
    """The rows of PostgreSQL by the same keys."""

    def rows(table: str) -> tuple[Row, ...]:
        return story.evidence.views.get(table, ())

    return {
        "facts": {(row["stream"], row["seq"]): row for row in rows("facts")},
        "streams": {row["key"]: row for row in rows("streams")},
        "threads": {row["id"]: _times(row) for row in rows("threads")},
        "messages": {row["id"]: _times(row) for row in rows("messages")},
        "runs": {row["id"]: _times(row) for row in rows("runs")},
        "notes": {row["id"]: row for row in rows("notes")},
        "approvals": {row["id"]: row for row in rows("approvals")},
        "dues": {(row["stream"], row["due_key"]): row for row in rows("dues")},
        "keys": {row["id"]: row for row in rows("keys")},
        "agents": {(row["workspace_id"], row["id"], row["version"]): row for row in rows("agents")},
    }


def _compare(table: str, expected: Rows, found: Rows) -> Iterator[Violation]:
    told = 0
    for key in sorted(expected.keys() | found.keys(), key=repr):
        wanted, row = expected.get(key), found.get(key)
        if wanted is None:
            problems = ["there is a row that no fact makes"]
        elif row is None:
            problems = ["the row is missing"]
        else:
            problems = [
                f"{column} is {_short(row.get(column))}, and the facts say {_short(value)}"
                for column, value in wanted.items()
                if row.get(column) != value
            ]
        for problem in problems:
            told += 1
            if told <= MOST:
                yield Violation(4, f"{table}: {problem}", str(key))
    if told > MOST:
        yield Violation(4, f"{table}: {told - MOST} differences more")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


def _times(row: Row) -> Row:
    """The row with its times as the reference has them."""
    times = {
        name.removesuffix("_ms") + "_at": None if value is None else rfc3339(value)
        for name, value in row.items()
        if name.endswith("_ms")
    }
    return {**row, **times}


def _thread(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        return {"deleted": True}
    names = ("title", "agent_id", "user_id", "channel", "pinned", "archived", "system_prompt", "context", "metadata")
    more = ("workspace_id", "created_at", "updated_at", "last_message_at", "message_count", "expired")
    return {"deleted": False} | {name: answer[name] for name in (*names, *more)}


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    names = ("thread_id", "seq", "number", "run_id", "role", "content", "tool_call_id", "author", "attachments")
    row = {name: answer[name] for name in (*names, "metadata", "created_at")}
    for call in answer["tool_calls"] or ():
        row |= {"tool_name": call["name"], "tool_arguments": call["arguments"], "tool_status": call["status"]}
    return row


def _run(answer: dict[str, Any]) -> dict[str, Any]:
    names = ("thread_id", "parent_run_id", "agent_id", "agent_version", "status", "attempt", "stop_reason")
    more = ("message_id", "question_id", "answer", "last_text", "posted_seq", "ended_seq", "created_at", "ended_at")
    error = answer["error"] or {"code": None, "message": None}
    return (
        {name: answer[name] for name in (*names, *more)}
        | {name: value for name, value in answer["usage"].items() if name.endswith("_tokens")}
        | {"error_code": error["code"], "error_message": error["message"]}
    )


def _note(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("kind", "title", "body", "agent_id", "run_id", "thread_id")}


def _positions(story: Story) -> Iterator[Violation]:
    """What was folded is what there is, under the claim that is in force."""
    evidence = story.evidence
    rows = {row["partition"]: row for row in evidence.views.get("positions", ()) if row["projection"] == PROJECTION}
    numbers: dict[int, int] = {}
    for fact in story.facts:
        partition = story.partition(fact)
        numbers[partition] = max([numbers.get(partition, 0), *getattr(fact.body, "numbers", ())])
    for partition, end in evidence.ends.get("parley.events", {}).items():
        row = rows.get(partition, {"next_offset": 0, "epoch": -1, "last_number": 0})
        claims = story.claims.get(partition, [-1])
        wanted = {"next_offset": end, "epoch": claims[-1], "last_number": numbers.get(partition, 0)}
        for name, value in wanted.items():
            if row[name] != value:
                what = f"positions: {name} is {row[name]}, and the log says {value}"
                yield Violation(4, what, f"parley.events[{partition}]")

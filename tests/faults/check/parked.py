"""What is waited for, worked out from the facts alone: the approvals, and what is due when. Used by `views`."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events import ids
from parley_events.codec import Fact
from tests.contract.history.reference import shown
from tests.faults.check.story import run_of

Rows = dict[Any, dict[str, Any]]
_ANSWERS = {"approve": "approved", "deny": "denied"}


def approvals(facts: list[Fact]) -> Rows:
    """The approvals of a thread as they stand after its facts; those before a clear or a delete are gone."""
    found: Rows = {}
    posted: dict[str, int] = {}
    cleared = 0
    for fact in facts:
        body, seq = fact.body, fact.seq or 0
        if isinstance(body, f.MessagePosted | f.ChildStarted):
            posted[body.run_id] = seq
        elif isinstance(body, f.ThreadCleared | f.ThreadDeleted):
            found, cleared = {}, seq
        elif isinstance(body, f.ApprovalRequested) and posted.get(body.run_id, 0) > cleared:
            found[ids.approval_id(fact.stream, seq)] = {
                "thread_id": fact.stream,
                "run_id": body.run_id,
                "seq": seq,
                "tool_call_id": shown(body.tool_call_id),
                "name": shown(body.name),
                "arguments": body.arguments,
                "question": shown(body.question),
                "input_schema": body.input_schema,
                "who": [shown(user) for user in body.who],
                "due_ms": body.due_at_ms,
                "status": "open",
                "answered_by": None,
                "comment": None,
                "edited": None,
            }
        elif isinstance(body, f.ApprovalAnswered) and _open(found, body.approval_id):
            found[body.approval_id] |= {
                "status": _ANSWERS[body.decision],
                "answered_by": shown(body.by),
                "comment": shown(body.comment),
                "edited": body.arguments,
            }
        elif isinstance(body, f.ApprovalExpired) and _open(found, body.approval_id):
            found[body.approval_id]["status"] = "expired"
        elif fact.type in f.RUN_ENDS:
            for row in found.values():
                if row["run_id"] == run_of(fact) and row["status"] == "open":
                    row["status"] = "closed"
    return found


def _open(found: Rows, approval_id: str) -> bool:
    return approval_id in found and found[approval_id]["status"] == "open"


def dues(facts: list[Fact]) -> set[tuple[str, str, int]]:
    """(stream, key, time) of what is due in a thread after its facts."""
    found: dict[str, tuple[str, int]] = {}
    ended: set[str] = set()
    top: set[str] = set()
    idle_s: int | None = None
    over = False
    for fact in facts:
        body, seq, run = fact.body, fact.seq or 0, run_of(fact) or ""
        seed = getattr(body, "opened", None) or getattr(body, "seed", None)
        if seed is not None:
            idle_s = seed.idle_s
        over = over or isinstance(body, f.ThreadExpired | f.ThreadDeleted)
        if isinstance(body, f.MessagePosted):
            top.add(body.run_id)
        if run in ended:
            continue
        if isinstance(body, f.ApprovalRequested):
            found[ids.approval_id(fact.stream, seq)] = (run, body.due_at_ms)
        elif isinstance(body, f.ApprovalAnswered | f.ApprovalExpired):
            found.pop(body.approval_id, None)
        elif isinstance(body, f.ToolCalled) and body.effect == "client" and body.due_at_ms is not None:
            found[ids.fact_message_id(fact.stream, seq)] = (run, body.due_at_ms)
        elif isinstance(body, f.ToolReturned | f.ToolAnswered | f.ToolExpired):
            called = _called(facts, run, body.tool_call_id, body.call, body.index)
            if called is not None:
                found.pop(ids.fact_message_id(fact.stream, called), None)
        elif isinstance(body, f.ModelCalled):
            found.pop(run, None)
            if body.due_at_ms is not None:
                found[run] = (run, body.due_at_ms)
        elif isinstance(body, f.RunWaiting):
            found.pop(run, None)
        elif fact.type in f.RUN_ENDS:
            ended.add(run)
            found = {key: due for key, due in found.items() if due[0] != run}
    rows = {(facts[0].stream, key, due_ms) for key, (_, due_ms) in found.items()}
    if idle_s is not None and not over and not top - ended:
        rows.add((facts[0].stream, "session", facts[-1].time_ms + idle_s * 1000))
    return rows


def _called(facts: list[Fact], run_id: str, tool_call_id: str, call: int | None, index: int | None) -> int | None:
    """The seq of the `tool.called` that a result belongs to."""
    found = [
        fact.seq
        for fact in facts
        if isinstance(fact.body, f.ToolCalled)
        and fact.body.run_id == run_id
        and (
            (fact.body.call, fact.body.index) == (call, index)
            if call is not None
            else fact.body.tool_call_id == tool_call_id
        )
    ]
    return found[-1] if found else None

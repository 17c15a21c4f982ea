"""What the frames of the native contract mean to someone who watches, as data. Pure; `screen` draws it.

Nothing that a model, a tool or a person wrote reaches a terminal as it is: `clean` makes control characters visible, so
that a text cannot move the cursor, change colours or set the clipboard.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]


class Piece(NamedTuple):
    """More of a text or thought."""

    kind: Literal["text", "thought"]
    text: str


class Closed(NamedTuple):
    """The blocks so far are whole. `text`: what this model turn said, all of it."""

    text: str


class Anew(NamedTuple):
    """What came since the last Closed is void: the model begins its turn again, or (attempt 0) the run ends without."""

    attempt: int


class Asked(NamedTuple):
    """The question that the run answers."""

    text: str
    author: str
    queued: bool
    files: tuple[str, ...]


class ToolBegan(NamedTuple):
    id: str
    name: str
    arguments: str


class ToolEnded(NamedTuple):
    """A tool's answer. `status` is ok, error, unknown, denied or cancelled; `files` are the names of what it made."""

    id: str
    name: str
    arguments: str
    status: str
    duration_ms: int | None
    result: str
    files: tuple[str, ...]


class ApprovalAsked(NamedTuple):
    """A person is asked whether a tool may be called."""

    id: str
    name: str
    arguments: str
    question: str


class ApprovalOver(NamedTuple):
    """It was answered, or not in time; `text` says so."""

    id: str
    text: str


class HandedOver(NamedTuple):
    """A tool that the client is to run: `id` is the call's, within its run."""

    run_id: str
    id: str
    name: str
    arguments: str


class Waits(NamedTuple):
    """The run is parked until somebody answers."""

    what: str


class Note(NamedTuple):
    """Something to know, in a line."""

    text: str


class Ended(NamedTuple):
    """The end of the run. `text` is why it failed, or who cancelled it."""

    status: Literal["completed", "failed", "cancelled"]
    text: str
    tokens: tuple[int, int]


Event = (
    Piece
    | Closed
    | Anew
    | Asked
    | ToolBegan
    | ToolEnded
    | ApprovalAsked
    | ApprovalOver
    | HandedOver
    | Waits
    | Note
    | Ended
)

_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
_VISIBLE |= {0x7F: "\u2421"} | dict.fromkeys(
    [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)


def clean(text: str) -> str:
    """The text without anything that a terminal obeys, or that turns the direction of what follows."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def short(text: str, most: int) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(clean(text[: most * 8]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def events(frame: Json) -> list[Event]:
    """What one frame tells. Types that nobody here knows tell nothing."""
    kind = frame.get("type")
    if kind == "text.delta":
        return [Piece("text", clean(str(frame["delta"])))]
    if kind == "thought.delta":
        return [Piece("thought", clean(str(frame["delta"])))]
    if kind == "message.posted":
        files = tuple(clean(str(file.get("name"))) for file in frame.get("attachments") or ())
        author = str((frame.get("author") or {}).get("name") or (frame.get("author") or {}).get("id") or "")
        return [Asked(clean(str(frame["content"])), clean(author), frame.get("status") == "queued", files)]
    if kind == "model.returned":
        return [Closed(clean(str(frame.get("content") or "")))]
    if kind == "run.restarted":
        return [Anew(int(frame.get("attempt") or 0))]
    if kind == "model.failed":
        error = frame.get("error") or {}
        again = "trying again" if frame.get("retry") else "giving up"
        return [Note(f"the model call failed ({clean(str(error.get('code')))}): {again}")]
    if kind in ("tool.called", "tool.returned", "tool.answered"):
        return [_tool(kind, frame)]
    if kind in _WAITING:
        return _waiting(str(kind), frame)
    return _end(str(kind), frame)


_WAITING = (
    "approval.requested",
    "approval.answered",
    "approval.expired",
    "run.waiting",
    "tool.expired",
    "tool.settled",
)
_WHAT = {"approval": "an approval", "client_tool": "a tool that the client runs"}
_ANSWERS = {"approve": "approved", "deny": "denied"}


def _waiting(kind: str, frame: Json) -> list[Event]:
    """What somebody is waited for, and what came of it."""
    call = frame.get("tool_call") or {}
    name, approval = short(str(call.get("name") or "the client's tool"), 80), str(frame.get("approval_id"))
    if kind == "approval.requested":
        question = short(str(frame.get("question") or ""), 400)
        return [ApprovalAsked(approval, name, _arguments(call), question)]
    if kind == "approval.expired":
        return [ApprovalOver(approval, "nobody answered in time: denied")]
    if kind == "approval.answered":
        answer = _ANSWERS.get(str(frame.get("decision")), "answered")
        comment = short(str(frame.get("comment") or ""), 400)
        edited = f" as {_arguments(frame)}" if frame.get("arguments") else ""
        by = short(str(frame.get("by")), 80)
        return [ApprovalOver(approval, f"{answer} by {by}{edited}" + (f": {comment}" if comment else ""))]
    if kind == "run.waiting":
        return [Waits(_WHAT.get(str(frame.get("waits_for")), "an answer"))]
    if kind == "tool.expired":
        return [Note(f"{name}: no result came in time")]
    happened = "it happened" if frame.get("happened") else "it did not happen"
    return [Note(f"{short(str(frame.get('by')), 80)} says of the call {short(str(call.get('id')), 80)}: {happened}")]


def _end(kind: str, frame: Json) -> list[Event]:
    usage = frame.get("usage") or {}
    tokens = (int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0))
    if kind == "run.completed":
        reason = str(frame.get("stop_reason") or "")
        return [Ended("completed", "" if reason == "end_turn" else clean(reason), tokens)]
    if kind == "run.failed":
        error = frame.get("error") or {}
        return [Ended("failed", short(f"{error.get('code')}: {error.get('message')}", 500), tokens)]
    if kind == "run.cancelled":
        return [Ended("cancelled", short(str(frame.get("reason") or ""), 500), tokens)]
    return []


def _tool(kind: str, frame: Json) -> Event:
    call = frame.get("tool_call") or {}
    call_id, name = str(call.get("id")), short(str(call.get("name") or "the client's tool"), 80)
    if kind == "tool.called" and call.get("status") == "waiting":
        return HandedOver(str(frame.get("run_id")), call_id, name, _arguments(call))
    if kind == "tool.called":
        return ToolBegan(call_id, name, _arguments(call))
    files = tuple(clean(str(file.get("name"))) for file in frame.get("files") or ())
    took = frame.get("duration_ms")
    result = short(str(call.get("result") or ""), 400)
    return ToolEnded(call_id, name, _arguments(call), str(call.get("status")), took, result, files)


def _arguments(call: Json) -> str:
    arguments = call.get("arguments")
    return short(json.dumps(arguments, ensure_ascii=False), 400) if arguments else ""

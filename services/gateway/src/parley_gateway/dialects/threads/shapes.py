"""What clients of `threads` are told, for its document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Any, Literal

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Open, Time, Told, Uuid


class Thread(Told):
    id: Uuid
    title: str | None
    agent_id: str | None
    """The agent that it is bound to; null: open to any."""
    user_id: str | None
    pinned: bool
    archived: bool
    system_prompt: str | None
    context: Json | None
    metadata: Json
    created_at: Time
    updated_at: Time
    last_message_at: Time | None
    message_count: int
    position: str


class Threads(Told):
    items: list[Thread]
    next_cursor: str | None
    total: int


class Accepted(Told):
    """What is known of a thing that is not decided yet, or cannot be read now."""

    id: str
    thread_id: str | Absent = None
    status: Literal["accepted"] | Absent = None
    position: str | Absent = None


class Usage(Told):
    """Tokens of all model calls."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int | Absent = None
    cache_write_tokens: int | Absent = None


class Failure(Told):
    code: str
    message: str


class Run(Told):
    id: str
    thread_id: Uuid
    agent_id: str
    agent_version: int
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    attempt: int
    usage: Usage
    stop_reason: str | None
    error: Failure | None
    message_id: str
    """The run's one assistant message."""
    created_at: Time
    ended_at: Time | None


class ToolCall(Told):
    """The envelope of a tool call."""

    id: str
    name: str | Absent = None
    arguments: Json | Absent = None
    result: str | Absent = None
    is_error: bool | Absent = None
    status: Literal["running", "waiting", "ok", "error", "unknown", "denied", "cancelled"] | Absent = None


class Author(Told):
    kind: Literal["user", "agent"]
    id: str
    name: str | None


class File(Told):
    """A file by its content's hash."""

    name: str
    content_type: str
    size: int
    sha256: str


class Message(Told):
    """A message. Calls of tools and their results are messages of their own, of role `tool`."""

    id: str
    seq: int
    thread_id: Uuid
    run_id: str | None
    role: Literal["user", "assistant", "tool", "system"]
    content: str | None
    tool_calls: list[ToolCall] | None
    tool_call_id: str | None
    author: Author | None
    attachments: list[File]
    lead_context: Json | Absent = None
    knowledge_ids: list[str] | Absent = None
    metadata: Json
    created_at: Time


class Messages(Told):
    items: list[Message]
    next_cursor: str | None
    total: int


class Sent(Told):
    """A message that was accepted. `message_id` is the question's."""

    thread_id: Uuid
    message_id: str
    run_id: str
    status: Literal["running", "queued", "waiting"]
    position: str
    conversation_id: Uuid
    events_url: str
    waits_for: Literal["approval", "client_tool"] | Absent = None
    pending: list[str] | Absent = None
    """The calls whose results the client owes."""


class Ended(Told):
    """A run that has ended, with what it said: null when it said nothing."""

    thread_id: Uuid
    message_id: str | Absent = None
    run: Run
    message: Message | None


class ResultTaken(Told):
    """A result that was accepted. `pending`: the calls that still wait for theirs."""

    thread_id: Uuid
    run_id: str
    tool_call_id: str
    status: Literal["waiting", "running"]
    pending: list[str]
    position: str
    events_url: str
    waits_for: Literal["approval", "client_tool"] | Absent = None


class Settled(Told):
    thread_id: Uuid
    run_id: str
    tool_call_id: str
    status: Literal["ok", "error"]
    happened: bool
    by: str
    position: str


class CancelledRuns(Told):
    """The runs of the thread that were told to stop."""

    thread_id: Uuid
    cancelled: list[str]
    position: str


class CancelledMany(Told):
    """The runs that were told to stop. `more`: there are more, ask again."""

    cancelled: list[str]
    more: bool


class ThreadFile(File):
    kind: Literal["attachment", "artifact"]
    run_id: str
    created_at: Time


class Files(Told):
    items: list[ThreadFile]
    next_cursor: str | None
    total: int


class AskedCall(Told):
    id: str
    name: str
    arguments: Json


class Approval(Told):
    """What a person is, or was, asked. `arguments`: those that the call was changed to."""

    id: str
    thread_id: Uuid
    run_id: str
    agent_id: str
    status: Literal["open", "approved", "denied", "expired", "closed"]
    tool_call: AskedCall
    question: str | None
    input_schema: Json | None
    who: list[str]
    created_at: Time
    expires_at: Time
    answered_by: str | None
    answered_at: Time | None
    comment: str | None
    arguments: Json | None
    position: str | Absent = None


class Approvals(Told):
    items: list[Approval]
    next_cursor: str | None
    total: int


class Document(Told):
    id: Uuid
    title: str
    content_type: str
    characters: int
    created_at: Time
    position: str | Absent = None


class WholeDocument(Document):
    content: str


class Documents(Told):
    items: list[Document]
    next_cursor: str | None
    total: int


class Frame(Open):
    """One frame of a stream. `type` is a fact's type (`message.posted`, `model.called`, `model.returned`,
    `tool.called`, `tool.returned`, `approval.requested`, `run.waiting`, `run.completed`, `run.failed`, `run.cancelled`,
    …), or `text.delta`, `thought.delta`, `run.restarted`. At `run.restarted` drop what came since the last
    `model.returned`. What else stands in it depends on the type; new types and fields may come: ignore them."""

    type: str
    seq: int
    thread_id: Uuid
    run_id: str | None
    message_id: str | None
    """The message that the text ends in."""
    delta: str | Absent = None
    block: int | Absent = None
    """In a stream of many threads: which block of its turn a text belongs to."""
    at: int | Absent = None
    """And where in it, in characters (Unicode code points)."""
    tool_call: ToolCall | Absent = None
    created_at: Time | Absent = None
    status: str | Absent = None
    usage: Usage | Absent = None
    error: Failure | Absent = None
    attempt: int | Absent | None = None
    expires_at: Time | Absent | None = None
    approval_id: str | Absent = None
    content: Any = None


class Facts(Told):
    items: list[Frame]
    next_cursor: str | None

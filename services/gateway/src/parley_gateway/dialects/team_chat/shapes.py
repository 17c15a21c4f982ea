"""What clients of `team_chat` are told, for its document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Time, Told, Uuid


class Answered(Told):
    response: str
    agent_id: str
    agent_name: str
    conversation_id: Uuid


class UnderWay(Told):
    """A run that has not ended."""

    run_id: str
    conversation_id: Uuid
    status: Literal["queued", "running", "waiting"]
    events_url: str


class Failure(Told):
    code: str
    message: str


class Run(Told):
    run_id: str
    conversation_id: Uuid
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    events_url: str
    agent_id: str
    agent_name: str
    response: str | None
    error: Failure | None


class MemberAnswer(Told):
    """What a member said; one that failed has an empty `content`, and `error`."""

    agent_id: str
    agent_name: str
    content: str
    error: Failure | Absent = None


class TeamAnswered(Told):
    """Of a debate the second round. `mode` is the one that was played."""

    responses: list[MemberAnswer]
    """In the team's order."""
    summary: str | None
    mode: Literal["brainstorm", "sequential", "debate"]
    conversation_id: Uuid


class TeamRun(Told):
    """`responses`, `summary`: as the waiting call has them, once the run has ended."""

    run_id: str
    conversation_id: Uuid
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    events_url: str
    responses: list[MemberAnswer] | None
    summary: str | None
    mode: Literal["brainstorm", "sequential", "debate"] | None
    error: Failure | None


class Message(Told):
    id: str
    role: Literal["user", "assistant"]
    content: str | None
    created_at: Time


class Messages(Told):
    messages: list[Message]


class Conversation(Told):
    id: Uuid
    agent_id: str
    title: str | None
    created_at: Time
    updated_at: Time


class Conversations(Told):
    conversations: list[Conversation]


class Accepted(Told):
    """It is on the log, and not decided or not to be read yet."""

    id: Uuid | Absent = None
    status: Literal["accepted"]


class Unread(Told):
    id: str
    conversation_id: Uuid
    content: str | None
    created_at: Time


class Inbox(Told):
    messages: list[Unread]
    unread: int
    """In all conversations with the agent."""


class Marked(Told):
    unread: int


class Call(Told):
    id: str
    name: str | Absent = None
    arguments: Json | Absent = None
    status: str
    result: str | Absent = None
    is_error: bool | Absent = None


class Text(Told):
    type: Literal["text"]
    content: str


class ToolCall(Told):
    """Only with `?events=all`."""

    type: Literal["tool_call"]
    content: Literal[""]
    tool_call: Call


class ToolResult(Told):
    """Only with `?events=all`."""

    type: Literal["tool_result"]
    content: Literal[""]
    tool_call: Call


class Done(Told):
    type: Literal["done"]
    content: Literal[""]


class Failed(Told):
    type: Literal["error"]
    content: str


class MemberText(Text):
    agent_id: str


class MemberFailed(Told):
    type: Literal["member_error"]
    agent_id: str
    content: str


class Summary(Told):
    type: Literal["summary"]
    agent_id: str
    content: str


TeamEvent = Annotated[MemberText | MemberFailed | Summary | Done | Failed, Field(discriminator="type")]
Event = Annotated[Text | ToolCall | ToolResult | Done | Failed, Field(discriminator="type")]

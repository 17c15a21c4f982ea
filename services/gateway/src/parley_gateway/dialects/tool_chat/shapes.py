"""What clients of `tool_chat` are told, for its document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Time, Told, Uuid

Number = Annotated[int, Field(ge=0, le=2**53)]


class Function(Told):
    name: str
    arguments: str
    """JSON."""


class ToolCall(Told):
    id: str
    type: Literal["function"]
    function: Function


class Row(Told):
    """A message of the history."""

    id: Number
    role: Literal["user", "assistant", "system", "tool"]
    content: str | None
    conversation_id: Uuid
    created_at: Time
    metadata: Json | Absent = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Meta(Told):
    total: int
    """Of the whole filter, whatever the cursor."""
    has_more: bool
    """In the direction that was asked for."""


class Messages(Told):
    messages: list[Row]
    meta: Meta


class Message(Told):
    """An answer. `tool_calls`: those that it is the client's turn to run."""

    id: Number
    role: Literal["assistant"]
    content: str | None
    conversation_id: Uuid
    created_at: Time
    tool_calls: list[ToolCall] | None


class Answered(Message):
    """With what clients of `team_chat` read."""

    response: str
    agent_id: str
    agent_name: str


class Pending(Told):
    """A result was taken; these calls still wait for theirs."""

    pending: list[str]


class UnderWay(Told):
    """A run that has not ended."""

    conversation_id: Uuid
    status: Literal["queued", "running"]
    run_id: str | Absent = None
    events_url: str | Absent = None


class Cleared(Told):
    success: Literal[True]
    deleted: int
    """How many messages are gone."""


class Failure(Told):
    code: str
    message: str
    details: Json | Absent = None


class Start(Told):
    type: Literal["start"]
    id: Number


class Delta(Told):
    type: Literal["delta"]
    content: str


class Done(Told):
    type: Literal["done"]
    message: Message


class Failed(Told):
    type: Literal["error"]
    error: Failure


Event = Annotated[Start | Delta | Done | Failed, Field(discriminator="type")]

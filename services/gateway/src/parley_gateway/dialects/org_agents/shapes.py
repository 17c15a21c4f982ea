"""What clients of `org_agents` are told, for its document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Time, Told, Uuid


class Usage(Told):
    """Of every model call of the turn, failed ones too."""

    inputTokens: int
    outputTokens: int


class ToolResult(Told):
    toolUseId: str
    name: str
    input: Json
    output: str
    isError: bool
    durationMs: int


class Response(Told):
    text: str
    """The last turn's."""
    stopReason: str | None
    usage: Usage
    toolResults: list[ToolResult]


class Answered(Told):
    sessionId: Uuid
    response: Response


class Accepted(Told):
    """A run that goes on without the one who asked."""

    requestId: str
    agentId: str
    agentName: str
    sessionId: Uuid
    status: Literal["queued"]
    message: str
    pollUrl: str
    eventsUrl: str | Absent = None


class Failure(Told):
    code: str
    message: str


class Asked(Told):
    """The approval that a run waits for."""

    id: str
    tool: str
    input: Json
    expiresAt: Time


class Execution(Told):
    requestId: str
    agentId: str
    sessionId: Uuid
    status: Literal["queued", "running", "complete", "failed"]
    response: Response | Absent = None
    error: Failure | Absent = None
    approval: Asked | Absent = None


class Message(Told):
    role: Literal["user", "assistant"]
    content: str | None
    createdAt: Time


class Session(Told):
    """A session with its whole history."""

    sessionId: Uuid
    agentId: str | None
    userId: str | None
    messages: list[Message]


class Start(Told):
    type: Literal["start"]
    sessionId: Uuid
    requestId: str


class Text(Told):
    type: Literal["text"]
    text: str


class ResultOfTool(ToolResult):
    type: Literal["tool_result"]


class Complete(Told):
    type: Literal["complete"]
    sessionId: Uuid
    response: Response


class Failed(Told):
    type: Literal["error"]
    error: Failure


Event = Annotated[Start | Text | ResultOfTool | Complete | Failed, Field(discriminator="type")]

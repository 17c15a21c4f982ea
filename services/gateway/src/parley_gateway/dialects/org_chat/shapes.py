"""What clients of `org_chat` are told, for its document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Time, Told


class ToolCall(Told):
    tool: str
    args: Json
    tool_call_id: str


class ToolResult(Told):
    tool: str
    result: Any
    """As JSON where it is JSON, else a string."""
    tool_call_id: str
    status: str | Absent = None
    """Where it is not simply `ok`."""


class Decision(Told):
    title: str | None
    id: str
    body: str | None
    tool_call_id: str


class Milestone(Told):
    title: str | None
    id: str
    tool_call_id: str


class SkillLearned(Told):
    slug: str | None
    name: str | None
    id: str
    tool_call_id: str


class Complete(Told):
    summary: str
    """The text of the last turn."""
    artifacts: list[str]
    """The names of the files that were saved in this run."""


class Failure(Told):
    message: str
    code: str


class _Event(Told):
    timestamp: Time


class ThoughtEvent(_Event):
    type: Literal["thought"]
    content: str


class TextEvent(_Event):
    type: Literal["text"]
    content: str


class ToolCallEvent(_Event):
    type: Literal["tool_call"]
    content: ToolCall


class ToolResultEvent(_Event):
    type: Literal["tool_result"]
    content: ToolResult


class DecisionEvent(_Event):
    type: Literal["decision"]
    content: Decision


class MilestoneEvent(_Event):
    type: Literal["milestone"]
    content: Milestone


class SkillLearnedEvent(_Event):
    type: Literal["skill_learned"]
    content: SkillLearned


class CompleteEvent(_Event):
    type: Literal["complete"]
    content: Complete


class ErrorEvent(_Event):
    type: Literal["error"]
    content: Failure


Event = Annotated[
    ThoughtEvent
    | TextEvent
    | ToolCallEvent
    | ToolResultEvent
    | DecisionEvent
    | MilestoneEvent
    | SkillLearnedEvent
    | CompleteEvent
    | ErrorEvent,
    Field(discriminator="type"),
]


class Whole(Told):
    """A run that has ended: all events, one `text` per finished block. `summary` is null when it failed."""

    events: list[Event]
    summary: str | None
    artifacts: list[str]


class UnderWay(Told):
    """A run that has not ended."""

    run_id: str
    status: Literal["queued", "running", "waiting"]
    poll_url: str
    events_url: str


class Author(Told):
    kind: Literal["user", "agent"]
    id: str
    name: str | None


class File(Told):
    name: str
    content_type: str
    size: int
    sha256: str


class CallShown(Told):
    tool: str
    args: Json
    status: str


class Message(Told):
    id: str
    role: Literal["user", "assistant", "tool", "system"]
    content: str | None
    author: Author | None
    run_id: str | None
    timestamp: Time
    attachments: list[File] | Absent = None
    tool_call_id: str | Absent = None
    tool_call: CallShown | Absent = None


class Artifact(File):
    run_id: str
    timestamp: Time


class Entry(Told):
    """A decision or a milestone in the organisation's log."""

    id: str
    type: Literal["decision", "milestone"]
    title: str
    body: str | Absent = None
    role_id: str
    run_id: str
    timestamp: Time

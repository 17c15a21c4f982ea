"""What administrators are told, for the document: `outbound` and the routes word it, tests hold it to this."""

from __future__ import annotations

from typing import Any, Literal

from parley_events.body import Json
from parley_gateway.openapi.operation import Absent, Time, Told, Uuid


class Workspace(Told):
    id: Uuid
    name: str


class Key(Told):
    """A key, without its secret."""

    id: str
    workspace: str
    workspace_id: Uuid
    user: str
    scopes: list[str]
    rate_limit: str | None
    created_at: Time
    revoked: bool


class MadeKey(Told):
    """A new key. `key` is shown this once."""

    id: str
    key: str
    workspace: str
    workspace_id: Uuid
    user: str
    scopes: list[str]
    rate_limit: str | None
    created_at: Time


class RotatedKey(Told):
    id: str
    key: str


class Keys(Told):
    items: list[Key]


class Accepted(Told):
    """It is on the log, and not decided yet."""

    id: str


class AgentLimits(Told):
    steps: int
    seconds: int
    max_tokens: int


class Agent(Told):
    """An agent; the last fields only for keys with `admin`."""

    id: str
    uuid: Uuid
    name: str
    description: str
    roles: list[str]
    model: str
    system_prompt: str
    temperature: float | None
    tools: list[str]
    limits: AgentLimits
    version: int
    base_url: str | None = None
    api_key: str | None = None
    """The name of a variable, never a key."""
    thinking: Literal["adaptive", "off"] | int | None = None
    context: str | None = None
    approvals: list[Json] | Absent = None
    client_tools: list[Json] | Absent = None


class AgentVersion(Agent):
    created_at: Time


class Agents(Told):
    items: list[Agent]
    next_cursor: str | None
    total: int


class AgentVersions(Told):
    items: list[AgentVersion]
    next_cursor: str | None
    total: int


class Team(Told):
    id: str
    uuid: Uuid
    name: str
    members: list[str]
    mode: Literal["brainstorm", "sequential", "debate"]
    lead: str | None
    version: int


class TeamVersion(Team):
    created_at: Time


class Teams(Told):
    items: list[Team]
    next_cursor: str | None
    total: int


class TeamVersions(Told):
    items: list[TeamVersion]
    next_cursor: str | None
    total: int


class Rejected(Told):
    """A command that was set aside, as far as its headers tell."""

    id: str
    reason: str | None
    message: str | None
    rejected_at: Time
    type: str | None
    stream: str | None
    workspace_id: str | None
    command_id: str | None
    source: str | None
    redrive_of: str | None
    size: int


class WholeRejected(Rejected):
    """With its bytes, made visible. `cut`: there are more."""

    headers: list[tuple[str, str]]
    body: str
    cut: bool


class RejectedList(Told):
    items: list[Rejected]
    total: int


class Stopped(Told):
    """A partition of the view that stands still at a record, as far as its headers tell. Not `skippable`: there is no
    record, or none that could be kept."""

    id: str
    partition: int
    offset: int
    fault: str
    type: str | None
    stream: str | None
    seq: str | None
    workspace_id: str | None
    size: int
    skippable: bool
    stopped_at: Time


class StoppedList(Told):
    items: list[Stopped]


class Skipped(Told):
    """A record that was skipped: why it could not be folded (`fault`), who had it skipped when, and for what reason."""

    id: str
    partition: int
    offset: int
    fault: str
    type: str | None
    stream: str | None
    seq: str | None
    workspace_id: str | None
    size: int
    reason: str
    skipped_by: str
    skipped_at: Time


class SkippedList(Told):
    items: list[Skipped]
    total: int


class Redriven(Told):
    """`outcome`: the type of what came of it; null when that is not known yet."""

    id: str
    redrive_of: str
    type: str
    outcome: str | None
    position: Any

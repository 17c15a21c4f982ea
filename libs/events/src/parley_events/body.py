"""The base of every record's body, and the small shapes that several records share.

Bodies are frozen and tolerant: a field that this version does not know is ignored, so that newer writers can
add fields. `type` and `version` name the record on the wire; `(type, version)` pairs never change their meaning.
What people and models wrote sits in fields listed in `content`, apart from ids, types and counts, so that the codec
can later seal it with a key per thread without touching a record's shape.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
WaitsFor = Literal["approval", "client_tool"]
"""Whom a parked run waits for: a person who may approve, or the client that runs a tool."""


def json_bytes(value: object) -> bytes:
    """The value as JSON. People and models may write integers beyond 64 bits, which orjson alone refuses."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False).encode()


class Shape(BaseModel):
    """A frozen value inside a body."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Body(Shape):
    """The body of one record type. Subclasses set `type`, and `version` when they are not the first."""

    type: ClassVar[str]
    version: ClassVar[int] = 1
    content: ClassVar[tuple[str, ...]] = ()
    """The fields that hold what people or models wrote."""


class Author(Shape):
    """Who wrote a message."""

    kind: Literal["user", "agent"] = "user"
    id: str
    name: str | None = None


class Principal(Shape):
    """On whose behalf a command is asked. The writer of the topic is trusted to say so truly."""

    user_id: str
    name: str | None = None
    admin: bool = False


class Attachment(Shape):
    """A file that came with a message or that a tool made, by its content's hash; its bytes lie in the object store."""

    name: str
    content_type: str
    size: int
    sha256: str


class ThreadSeed(Shape):
    """What a thread is made with. `user_id` None: shared by the members of the workspace. `end_user`: for whom its
    owner keeps it, in a contract that isolates the users of its clients."""

    user_id: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    title: str | None = None
    system_prompt: str | None = None
    context: Json | None = None
    metadata: Json = Field(default_factory=dict)
    channel: str = "threads"
    idle_s: int | None = None
    """The thread expires after that many seconds in which nothing happened and nothing ran. None: never."""
    end_user: str | None = None


class PastFact(Shape):
    """A fact of a thread's past, as a fork took it over: with the ids of the fork, a seq below the fork's own (at most
    0), and the time at which it was put on record in the source. `version`: that of its body."""

    seq: int = Field(le=0, ge=-(2**53))
    type: str
    version: int = 1
    time_ms: int = Field(ge=0, le=2**53)
    body: Json


class Usage(Shape):
    """Tokens of one or several model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


class Block(Shape):
    """One finished block of a model turn: a text, a thought, a call of a tool, or something opaque.

    `malformed` holds what the model gave as arguments when that was no JSON object. `data` is an opaque block as the
    provider gave it (a thought that it keeps to itself, say): nobody here reads it, and it goes back as it is.
    """

    kind: Literal["text", "thought", "tool", "opaque"]
    text: str = ""
    signature: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    arguments: Json = Field(default_factory=dict)
    malformed: str | None = None
    data: Json | None = None


class Note(Shape):
    """What a tool call puts on record beside its result. Its id derives from the call, so a retry cannot double it."""

    kind: Literal["decision", "milestone", "skill"]
    id: str
    title: str | None = None
    body: str | None = None
    slug: str | None = None
    name: str | None = None
    description: str | None = None


MOST_WAIT_S = 90 * 86_400
"""The longest that a run may be parked for one answer."""


class ClientTool(Shape):
    """A tool that the client runs. Its result is waited for `expires_s` seconds."""

    name: str
    description: str = ""
    input_schema: Json = Field(default_factory=lambda: {"type": "object"})
    expires_s: int = Field(default=86_400, ge=1, le=MOST_WAIT_S)


class Approval(Shape):
    """A tool that a person must approve before it is called; `tool` is named as in an agent's `tools`.

    `question`: what the person is asked. `input_schema`: what edited arguments must look like (None: as the tool's).
    `who`: the users that may answer, beside admins (none named: whoever may approve in the workspace).
    """

    tool: str
    question: str | None = None
    input_schema: Json | None = None
    who: tuple[str, ...] = ()
    expires_s: int = Field(default=86_400, ge=1, le=MOST_WAIT_S)


class Limits(Shape):
    """What one run may use."""

    steps: int = Field(default=50, ge=1, le=1000)
    seconds: int = Field(default=3600, ge=1, le=7 * 86400)
    max_tokens: int = Field(default=8192, ge=1, le=1_000_000)


class AgentSpec(Shape):
    """An agent as its owner declares it.

    `model` may be `default`. `base_url`: a server of its own that speaks the Messages API; `api_key` names the variable
    that holds its key (`env:NAME`), never the key. `thinking`: `adaptive`, `off`, or a budget in tokens.
    """

    agent_id: str
    name: str
    description: str = ""
    roles: tuple[str, ...] = ()
    model: str = "scripted"
    base_url: str | None = None
    api_key: str | None = None
    thinking: Literal["adaptive", "off"] | int | None = None
    system_prompt: str = ""
    context: str | None = None
    temperature: float | None = None
    tools: tuple[str, ...] = ()
    approvals: tuple[str | Approval, ...] = ()
    client_tools: tuple[ClientTool, ...] = ()
    limits: Limits = Field(default_factory=Limits)

    @property
    def approval_terms(self) -> tuple[Approval, ...]:
        """`approvals`, those that are only named with the usual terms."""
        return tuple(Approval(tool=entry) if isinstance(entry, str) else entry for entry in self.approvals)


class McpTool(Shape):
    """What its owner says of a tool of an MCP server: what a second call would do, and how to ask about the first."""

    effect: Literal["read_only", "idempotent", "checkable", "unsafe"]
    check: str | None = None


class McpServer(Shape):
    """An MCP server as its owner declares it: `url` (Streamable HTTP) or `command` (stdio, run in the folder `cwd`).

    A value `env:NAME` in `headers` and `env` stays as it is on record; whoever connects looks it up.
    """

    name: str
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    cwd: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = 30
    tools: dict[str, McpTool] = Field(default_factory=dict)


TeamMode = Literal["brainstorm", "sequential", "debate"]
"""How a team answers: all at once; one after the other, each with the answers before it; or all at once and then, with
those answers, once more."""


class TeamSpec(Shape):
    """A team as its owner declares it."""

    team_id: str
    name: str
    members: tuple[str, ...]
    mode: TeamMode = "brainstorm"
    lead: str | None = None


class TeamPlay(Shape):
    """How a team answers one message, as the team was then: its members (agents, by id), in their order, each in a run
    of its own; the agent whom the message names is the lead, and sums up. `team_version` None: nobody said."""

    team_id: str
    team_version: int | None = None
    name: str = ""
    members: tuple[str, ...] = Field(min_length=1, max_length=100)
    mode: TeamMode = "brainstorm"

    @property
    def rounds(self) -> int:
        """How often each member speaks."""
        return 2 if self.mode == "debate" else 1

"""Agents and teams as their owners declare them, in `agents.yaml` or over HTTP: the fields, and the rules for them.

One home for both ways, so that what one refuses the other does not take. `AgentFields` and `TeamFields` are the bases
of what each way reads; `agent_mistakes` and `team_mistakes` say what a form alone cannot; `agent_spec` and `team_spec`
make the record. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from parley_events.body import AgentSpec, Limits, TeamMode, TeamSpec
from parley_events.declared_waits import Handed, Terms, spelled_out, wait_mistakes

OURS = ("PARLEY_", "ANTHROPIC_", "AWS_", "OTEL_")
"""How the variables begin that Parley itself logs in with: its settings, and what the object store and telemetry read.
Who declares an agent or a server says where a value is sent, so none of these can be named."""

BUILT_IN_TOOLS = frozenset(
    {
        "clock",
        "calculator",
        "record_decision",
        "flag_milestone",
        "learn_skill",
        "list_skills",
        "read_skill",
        "list_attachments",
        "read_attachment",
        "save_artifact",
        "read_artifact",
        "search_knowledge",
        "ask_agent",
        "echo",
        "repeat",
        "sleep",
        "fail",
        "append_line",
        "publish",
    }
)
"""The names of the built-in tools. What they do is the dispatcher's; a test holds its `TOOLS` to this."""

MOST = 1000
"""How many agents, and how many teams, a workspace may have: every gateway holds them all, of every workspace."""
MOST_MEMBERS = 100
MOST_WAITS = 100

Place = tuple[str | int, ...]
Mistake = tuple[Place, str]
"""Where something is wrong, and what to do about it."""

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
# Lists are lists in JSON and YAML; a strict form would take nothing but a tuple.
Names = Annotated[tuple[str, ...], Field(strict=False)]
Asked = Annotated[
    tuple[Annotated[Terms, BeforeValidator(spelled_out, str | Terms)], ...], Field(strict=False, max_length=MOST_WAITS)
]
Clients = Annotated[tuple[Handed, ...], Field(strict=False, max_length=MOST_WAITS)]


def _thinking(value: object) -> object:
    """YAML takes `off` for false and `on` for true."""
    if isinstance(value, bool):
        return "adaptive" if value else "off"
    if value is None or value in ("adaptive", "off") or isinstance(value, int):
        return value
    raise PydanticCustomError("thinking", "`adaptive`, `off` or a number of tokens is wanted")


class AgentFields(BaseModel):
    """What is declared of an agent, beside its id."""

    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    roles: Names = ()
    model: str = Field(default="scripted", min_length=1, max_length=200)
    base_url: str | None = None
    api_key: str | None = None
    thinking: Annotated[Literal["adaptive", "off"] | int | None, BeforeValidator(_thinking)] = None
    system_prompt: str = ""
    context: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    tools: Names = ()
    approvals: Asked = ()
    client_tools: Clients = ()
    limits: Limits = Field(default_factory=Limits)


class TeamFields(BaseModel):
    """What is declared of a team, beside its id."""

    name: str = Field(min_length=1, max_length=200)
    members: Names = Field(min_length=1, max_length=MOST_MEMBERS)
    mode: TeamMode = "brainstorm"
    lead: str | None = None


def agent_spec(agent_id: str, agent: AgentFields) -> AgentSpec:
    """The agent as it stands on record."""
    return AgentSpec(agent_id=agent_id, **agent.model_dump(include=set(AgentFields.model_fields)))


def team_spec(team_id: str, team: TeamFields) -> TeamSpec:
    """The team as it stands on record."""
    return TeamSpec(team_id=team_id, **team.model_dump(include=set(TeamFields.model_fields)))


def agent_mistakes(agent: AgentFields, tools: Collection[str], servers: Collection[str]) -> Iterator[Mistake]:
    """What is wrong with an agent in a workspace with these built-in tools and MCP servers."""
    for at, name in enumerate(agent.tools):
        server = name.partition("/")[0]
        if "/" in name and not any(fnmatchcase(known, server) for known in servers):
            yield ("tools", at), f"there is no MCP server {server!r}"
        if "/" not in name and "*" not in name and name not in tools:
            yield ("tools", at), f"there is no tool {name!r}"
    yield from _model_mistakes(agent)
    yield from wait_mistakes(agent.tools, agent.approvals, agent.client_tools, tools, servers)


def _model_mistakes(agent: AgentFields) -> Iterator[Mistake]:
    """What is wrong with an agent's model and its server."""
    if agent.base_url is not None:
        try:
            parts = urlsplit(agent.base_url)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        if not whole:
            yield ("base_url",), "an address is wanted (http://host:port)"
        elif parts.username is not None or parts.query or parts.fragment:
            yield ("base_url",), "an address alone is wanted: a key goes into api_key"
        elif parts.path.rstrip("/").endswith("/v1"):
            yield ("base_url",), "the address without /v1 is wanted"
        if agent.model in ("scripted", "default"):
            yield ("model",), "the name of a model that the server at base_url knows is wanted"
    if agent.api_key is not None:
        if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", agent.api_key):
            yield ("api_key",), "the name of a variable is wanted (env:NAME), never the key"
        elif agent.api_key[4:].upper().startswith(OURS):
            yield ("api_key",), "a variable of its own is wanted: Parley's own are not handed to agents"
    if isinstance(agent.thinking, int) and not 1024 <= agent.thinking < agent.limits.max_tokens:
        yield ("thinking",), f"a budget from 1024 to below limits.max_tokens ({agent.limits.max_tokens}) is wanted"


def team_mistakes(team: TeamFields, agents: Collection[str]) -> Iterator[Mistake]:
    """What is wrong with a team in a workspace with these agents."""
    for at, member in enumerate(team.members):
        if member not in agents:
            yield ("members", at), f"there is no agent {member!r}"
    if team.lead is not None and team.lead not in agents:
        yield ("lead",), f"there is no agent {team.lead!r}"

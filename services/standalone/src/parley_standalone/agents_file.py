"""`agents.yaml`, read: the agents, teams and settings of the workspace as its owner declares them.

A mistake in the file is one line with its place (`agents.yaml:12: agents.1.model: …`). What this version cannot do yet
is accepted, and named in `notices`, so that a file written for a later one starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley_events.body import AgentSpec, ClientTool, Json, Limits, Shape, TeamSpec
from parley_events.ids import is_uuid
from parley_standalone.errors import CommandError

MAX_BYTES = 1024 * 1024
_ID = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Workspace(_Strict):
    name: str = "default"
    context: str | None = None
    connectors: tuple[str, ...] = ()


class _Server(_Strict):
    name: str
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = 30
    tools: dict[str, Any] = Field(default_factory=dict)


class _Agent(_Strict):
    id: str = _ID
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    roles: tuple[str, ...] = ()
    model: str = "scripted"
    base_url: str | None = None
    system_prompt: str = ""
    context: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    tools: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    client_tools: tuple[ClientTool, ...] = ()
    skills: str | None = None
    limits: Limits = Field(default_factory=Limits)


class _Team(_Strict):
    id: str = _ID
    name: str = Field(min_length=1, max_length=200)
    members: tuple[str, ...] = Field(min_length=1)
    mode: Literal["brainstorm", "sequential", "debate"] = "brainstorm"
    lead: str | None = None


class _File(_Strict):
    workspace: _Workspace = Field(default_factory=_Workspace)
    structures: tuple[str, ...] = ()
    mcp_servers: tuple[_Server, ...] = ()
    agents: tuple[_Agent, ...] = Field(min_length=1)
    teams: tuple[_Team, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentsFile:
    """What the file declares. `notices` are lines about what is accepted but not served yet."""

    context: str | None
    structures: tuple[str, ...]
    agents: tuple[AgentSpec, ...]
    teams: tuple[TeamSpec, ...]
    notices: tuple[str, ...]


def digest_of(spec: Shape) -> str:
    """What tells whether a declaration has changed since it was applied last."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def read_agents_file(path: Path, tools: Mapping[str, object]) -> AgentsFile:
    """Read the file; `tools` are the built-in ones. Raises CommandError with one line that names the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    if len(text) > MAX_BYTES:
        raise CommandError(f"{path} is larger than {MAX_BYTES} bytes")
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CommandError(f"{path}:{line}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CommandError(f"{path}: not YAML ({type(error).__name__})") from None
    if root is not None:
        _note_lines(root, (), lines)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _mistake(path, lines, first["loc"], first["msg"]) from None
    return _checked(path, file, lines, tools)


def _note_lines(node: yaml.Node, place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> None:
    lines[place] = node.start_mark.line + 1
    if len(place) > 20:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*place, str(key.value))] = key.start_mark.line + 1
            _note_lines(value, (*place, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note_lines(value, (*place, number), lines)


def _mistake(
    path: Path, lines: dict[tuple[str | int, ...], int], place: tuple[str | int, ...], message: str
) -> CommandError:
    at = place
    while at and at not in lines:
        at = at[:-1]
    where = ".".join(str(part) for part in place) or "the file"
    return CommandError(f"{path}:{lines.get(at, 1)}: {where}: {message}")


def _checked(
    path: Path, file: _File, lines: dict[tuple[str | int, ...], int], tools: Mapping[str, object]
) -> AgentsFile:
    notices: list[str] = []
    if file.mcp_servers or file.workspace.connectors:
        notices.append("mcp_servers and connectors are not served yet: their tools are left out")
    for number, structure in enumerate(file.structures):
        if not is_uuid(structure):
            raise _mistake(path, lines, ("structures", number), "not a UUID")
    ids: set[str] = set()
    for number, agent in enumerate(file.agents):
        place = ("agents", number)
        if agent.id in ids:
            raise _mistake(path, lines, (*place, "id"), f"there is another agent {agent.id!r}")
        ids.add(agent.id)
        for at, name in enumerate(agent.tools):
            if "/" not in name and "*" not in name and name not in tools:
                raise _mistake(path, lines, (*place, "tools", at), f"there is no tool {name!r}")
        if any("/" in name for name in agent.tools):
            notices.append(f"{agent.id}: tools of MCP servers are not served yet")
        if agent.model != "scripted":
            notices.append(f"{agent.id}: the model {agent.model!r} is not served yet; `scripted` answers")
        later = [name for name in ("base_url", "approvals", "client_tools", "skills") if getattr(agent, name)]
        notices.extend(f"{agent.id}: {name} is not served yet" for name in later)
    for number, team in enumerate(file.teams):
        for member in (*team.members, *([team.lead] if team.lead else [])):
            if member not in ids:
                raise _mistake(path, lines, ("teams", number), f"there is no agent {member!r}")
    return AgentsFile(
        context=file.workspace.context,
        structures=file.structures,
        agents=tuple(_spec(agent) for agent in file.agents),
        teams=tuple(TeamSpec(team_id=t.id, **t.model_dump(exclude={"id"})) for t in file.teams),
        notices=tuple(notices),
    )


def _spec(agent: _Agent) -> AgentSpec:
    given: Json = agent.model_dump(exclude={"id", "skills"})
    return AgentSpec(agent_id=agent.id, **given)

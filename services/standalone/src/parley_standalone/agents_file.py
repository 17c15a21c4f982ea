"""`agents.yaml`, read: the agents, teams and settings of the workspace as its owner declares them.

A mistake in the file is one line with its place (`agents.yaml:12: agents.1.model: …`). What this version cannot do yet
is accepted, and named in `notices`, so that a file written for a later one starts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from parley_dispatcher.settings import OURS
from parley_events.body import AgentSpec, Json, Limits, McpServer, McpTool, Shape, TeamSpec
from parley_events.ids import is_uuid
from parley_standalone.agents_parked import Handed, Strict, Terms, spelled_out
from parley_standalone.agents_parked import mistakes as parked_mistakes
from parley_standalone.errors import CommandError
from parley_standalone.folder import FIRST_WORKSPACE
from parley_standalone.skills_folder import BadSkill, Skill, read_skills

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 60
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such setting",
    "model_type": "a mapping is wanted",
    "dict_type": "a mapping is wanted",
    "tuple_type": "a list is wanted",
    "string_type": "a text is wanted (put it in quotes)",
    "too_short": "must not be empty",
}
"""What the most common mistakes are called here; for the others the validator's own words are clear."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ID = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class _Loader(yaml.SafeLoader):
    """A date is a text like any other, not a type of its own."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        start: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for start, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Effect = Literal["read_only", "idempotent", "checkable", "unsafe"]


class _Workspace(Strict):
    name: str = FIRST_WORKSPACE
    context: str | None = None
    connectors: tuple[str, ...] = ()


class _Declared(Strict):
    effect: _Effect
    check: str | None = None


def _spelled_out(value: object) -> object:
    """`pay: unsafe` is short for `pay: {effect: unsafe}`."""
    return {"effect": value} if isinstance(value, str) else value


class _Server(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$", max_length=40)
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = Field(default=30, gt=0, le=3600)
    tools: dict[str, Annotated[_Declared, BeforeValidator(_spelled_out, _Effect | _Declared)]] = Field(
        default_factory=dict
    )


def _thinking(value: object) -> object:
    """YAML takes `off` for false and `on` for true."""
    if isinstance(value, bool):
        return "adaptive" if value else "off"
    if value is None or value in ("adaptive", "off") or isinstance(value, int):
        return value
    raise PydanticCustomError("thinking", "`adaptive`, `off` or a number of tokens is wanted")


class _Agent(Strict):
    id: str = _ID
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    roles: tuple[str, ...] = ()
    model: str = Field(default="scripted", min_length=1, max_length=200)
    base_url: str | None = None
    api_key: str | None = None
    thinking: Annotated[Literal["adaptive", "off"] | int | None, BeforeValidator(_thinking)] = None
    system_prompt: str = ""
    context: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    tools: tuple[str, ...] = ()
    approvals: tuple[Annotated[Terms, BeforeValidator(spelled_out, str | Terms)], ...] = Field(
        default=(), max_length=100
    )
    client_tools: tuple[Handed, ...] = Field(default=(), max_length=100)
    skills: str | None = None
    limits: Limits = Field(default_factory=Limits)


class _Team(Strict):
    id: str = _ID
    name: str = Field(min_length=1, max_length=200)
    members: tuple[str, ...] = Field(min_length=1)
    mode: Literal["brainstorm", "sequential", "debate"] = "brainstorm"
    lead: str | None = None


class _File(Strict):
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
    mcp_servers: tuple[McpServer, ...]
    connectors: tuple[str, ...]
    agents: tuple[AgentSpec, ...]
    teams: tuple[TeamSpec, ...]
    skills: tuple[Skill, ...]
    notices: tuple[str, ...]


def digest_of(spec: Shape) -> str:
    """What tells whether a declaration has changed since it was applied last."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def noting_keys(file: AgentsFile, env: Mapping[str, str]) -> AgentsFile:
    """The file, with a line for each agent whose runs will fail because a key is not in the environment."""
    lines = []
    main = bool(env.get("ANTHROPIC_API_KEY") or env.get("ANTHROPIC_BASE_URL"))
    for agent in file.agents:
        if agent.api_key is not None and not env.get(agent.api_key.removeprefix("env:")):
            lines.append(f"{agent.agent_id}: its runs will fail: {agent.api_key} is not set")
        elif not (main or agent.api_key or agent.base_url or agent.model in ("scripted", "default")):
            lines.append(f"{agent.agent_id}: its runs will fail: {agent.model!r} needs ANTHROPIC_API_KEY")
    return replace(file, notices=(*file.notices, *lines))


def file_schema() -> Json:
    """The JSON schema of the file, as the models have it; `agents_schema` puts the words to it."""
    return _File.model_json_schema()


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
        loader = _Loader(text)
        root = loader.get_single_node()
        content = loader.construct_document(root) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CommandError(f"{path}:{line}: {error.problem or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CommandError(f"{path}:{line}: a character that YAML does not allow (U+{error.character:04X})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CommandError(f"{path}:1: not YAML ({error})") from None
    if root is not None:
        _note_lines(path, root, (), lines)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _mistake(path, lines, first["loc"], _WORDS.get(first["type"], first["msg"])) from None
    return _checked(path, file, lines, tools)


def _note_lines(
    path: Path, node: yaml.Node, place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> None:
    """Note the line of every place. Raises CommandError for what YAML takes and Parley cannot: a key that stands twice
    (the first would be dropped), text that no record can hold, a nesting without end."""
    lines[place] = node.start_mark.line + 1
    if len(place) > _MAX_DEPTH:
        raise _mistake(path, lines, place[:3], f"nests deeper than {_MAX_DEPTH} levels")
    if isinstance(node, yaml.ScalarNode):
        _check_text(path, node, place, lines)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str | int] = set()
        for key, value in node.value:
            _check_text(path, key, place, lines)
            at = (*place, str(key.value))
            lines[at] = key.start_mark.line + 1
            if at[-1] in seen:
                raise _mistake(path, lines, at, "stands here for the second time")
            seen.add(at[-1])
            _note_lines(path, value, at, lines)
            lines[at] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note_lines(path, value, (*place, number), lines)


def _check_text(
    path: Path, node: yaml.Node, place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> None:
    if isinstance(node, yaml.ScalarNode) and re.search("[\0\ud800-\udfff]", node.value):
        raise _mistake(path, lines, place, "NUL and lone surrogates cannot stand in a text")


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
    skills: list[Skill] = []
    if file.workspace.name != FIRST_WORKSPACE:
        notices.append(f"workspace.name is not served yet: the workspace is called {FIRST_WORKSPACE!r}")
    servers = _servers(path, file, lines)
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
            server = name.partition("/")[0]
            if "/" in name and not any(fnmatchcase(known.name, server) for known in servers):
                raise _mistake(path, lines, (*place, "tools", at), f"there is no MCP server {server!r}")
            if "/" not in name and "*" not in name and name not in tools:
                raise _mistake(path, lines, (*place, "tools", at), f"there is no tool {name!r}")
        for field, wrong in _model_mistakes(agent):
            raise _mistake(path, lines, (*place, field), wrong)
        for within, wrong in parked_mistakes(agent.tools, agent.approvals, agent.client_tools, tools, servers):
            raise _mistake(path, lines, (*place, *within), wrong)
        if agent.skills is not None:
            try:
                skills += read_skills(path.parent, agent.skills, agent.id)
            except BadSkill as error:
                raise _mistake(path, lines, (*place, "skills"), str(error)) from None
    teams: set[str] = set()
    for number, team in enumerate(file.teams):
        if team.id in teams:
            raise _mistake(path, lines, ("teams", number, "id"), f"there is another team {team.id!r}")
        teams.add(team.id)
        place = ("teams", number)
        for at, member in enumerate(team.members):
            if member not in ids:
                raise _mistake(path, lines, (*place, "members", at), f"there is no agent {member!r}")
        if team.lead is not None and team.lead not in ids:
            raise _mistake(path, lines, (*place, "lead"), f"there is no agent {team.lead!r}")
    return AgentsFile(
        context=file.workspace.context,
        structures=file.structures,
        mcp_servers=servers,
        connectors=file.workspace.connectors,
        agents=tuple(_spec(agent) for agent in file.agents),
        teams=tuple(TeamSpec(team_id=t.id, **t.model_dump(exclude={"id"})) for t in file.teams),
        skills=tuple(skills),
        notices=tuple(notices),
    )


def _model_mistakes(agent: _Agent) -> Iterator[tuple[str, str]]:
    """What is wrong with an agent's model and its server: the field, and what to do about it."""
    if agent.base_url is not None:
        try:
            parts = urlsplit(agent.base_url)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        if not whole:
            yield "base_url", "an address is wanted (http://host:port)"
        elif parts.username is not None or parts.query or parts.fragment:
            yield "base_url", "an address alone is wanted: a key goes into api_key"
        elif parts.path.rstrip("/").endswith("/v1"):
            yield "base_url", "the address without /v1 is wanted"
        if agent.model in ("scripted", "default"):
            yield "model", "the name of a model that the server at base_url knows is wanted"
    if agent.api_key is not None:
        if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", agent.api_key):
            yield "api_key", "the name of a variable is wanted (env:NAME), never the key"
        elif agent.api_key[4:].upper().startswith(OURS):
            yield "api_key", "a variable of its own is wanted: Parley's own are not handed to agents"
    if isinstance(agent.thinking, int) and not 1024 <= agent.thinking < agent.limits.max_tokens:
        yield "thinking", f"a budget from 1024 to below limits.max_tokens ({agent.limits.max_tokens}) is wanted"


def _servers(path: Path, file: _File, lines: dict[tuple[str | int, ...], int]) -> tuple[McpServer, ...]:
    """The MCP servers. A command is run in the file's folder, so that relative paths in it are relative to the file."""
    names: set[str] = set()
    for number, server in enumerate(file.mcp_servers):
        place = ("mcp_servers", number)
        if server.name in names:
            raise _mistake(path, lines, (*place, "name"), f"there is another MCP server {server.name!r}")
        names.add(server.name)
        if (server.url is None) == (not server.command):
            raise _mistake(path, lines, place, "either `url` or `command` is wanted")
        if server.url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", server.url):
            raise _mistake(path, lines, (*place, "url"), "an http:// or https:// address is wanted")
        if server.command and not server.command[0]:
            raise _mistake(path, lines, (*place, "command", 0), "must not be empty")
        wrong = "headers" if server.command else "env"
        if getattr(server, wrong):
            raise _mistake(path, lines, (*place, wrong), f"belongs to `{'url' if server.command else 'command'}`")
        for key, value in server.headers.items():
            if not _HEADER.fullmatch(key) or re.search(r"[\r\n]", value) or not value.isascii():
                raise _mistake(path, lines, (*place, "headers", key), "cannot be an HTTP header")
        for key in server.env:
            if not key or "=" in key:
                raise _mistake(path, lines, (*place, "env", key), "cannot be the name of a variable")
        for kind, values in (("headers", server.headers), ("env", server.env)):
            for key, value in values.items():
                if value.startswith("env:") and not _VARIABLE.fullmatch(value[4:]):
                    raise _mistake(path, lines, (*place, kind, key), f"{value!r} names no variable of the environment")
                if value.startswith("env:") and value[4:].upper().startswith(OURS):
                    why = "a variable of its own is wanted: Parley's own are not handed to servers"
                    raise _mistake(path, lines, (*place, kind, key), why)
        for tool, says in server.tools.items():
            if says.effect == "checkable" and says.check is None:
                raise _mistake(path, lines, (*place, "tools", tool), "`checkable` wants a `check`: the tool that tells")
            if says.effect != "checkable" and says.check is not None:
                raise _mistake(path, lines, (*place, "tools", tool, "check"), "is for `checkable` alone")
    for number, name in enumerate(file.workspace.connectors):
        if name not in names:
            raise _mistake(path, lines, ("workspace", "connectors", number), f"there is no MCP server {name!r}")
    folder = str(path.absolute().parent)
    return tuple(
        McpServer(
            name=server.name,
            url=server.url,
            headers=server.headers,
            command=server.command,
            cwd=folder if server.command else None,
            env=server.env,
            timeout_s=server.timeout_s,
            tools={tool: McpTool(effect=says.effect, check=says.check) for tool, says in server.tools.items()},
        )
        for server in file.mcp_servers
    )


def _spec(agent: _Agent) -> AgentSpec:
    given: Json = agent.model_dump(exclude={"id", "skills"})
    return AgentSpec(agent_id=agent.id, **given)

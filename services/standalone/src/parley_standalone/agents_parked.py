"""What an agent of `agents.yaml` lets its runs wait for: tools that a person must approve, and tools that the client
runs. Read by `agents_file`, which knows the place of every mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field

from parley_events.body import MOST_WAIT_S, Json, McpServer, json_bytes

MOST_SCHEMA_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What models take for the name of a tool."""


class Strict(BaseModel):
    """A mapping of the file: frozen, and nothing in it that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Terms(Strict):
    """On which terms a tool must be approved; in short only its name."""

    tool: str = Field(min_length=1, max_length=200)
    question: str | None = Field(default=None, min_length=1, max_length=2000)
    input_schema: Json | None = None
    who: tuple[str, ...] = Field(default=(), max_length=100)
    expires_s: int = Field(default=86_400, ge=1, le=MOST_WAIT_S)


class Handed(Strict):
    """A tool that the client runs."""

    name: str
    description: str = Field(default="", max_length=10_000)
    input_schema: Json = Field(default_factory=lambda: {"type": "object"})
    expires_s: int = Field(default=86_400, ge=1, le=MOST_WAIT_S)


def spelled_out(value: object) -> object:
    """`pay` is short for `{tool: pay}`."""
    return {"tool": value} if isinstance(value, str) else value


Place = tuple[str | int, ...]


def mistakes(
    patterns: Sequence[str],
    approvals: Sequence[Terms],
    client_tools: Sequence[Handed],
    tools: Mapping[str, object],
    servers: Sequence[McpServer],
) -> Iterator[tuple[Place, str]]:
    """What is wrong with an agent's approvals and client tools: the place within the agent, and what to do about it.
    `patterns` are the agent's `tools`, `tools` the built-in ones."""
    names: set[str] = set()
    for number, handed in enumerate(client_tools):
        place: Place = ("client_tools", number)
        taken = any("/" not in pattern and fnmatchcase(handed.name, pattern) for pattern in patterns)
        if not _NAME.fullmatch(handed.name):
            yield (*place, "name"), "a name of at most 64 letters, digits, `_` and `-` is wanted"
        elif handed.name in names:
            yield (*place, "name"), f"there is another client tool {handed.name!r}"
        elif handed.name in tools and taken:
            yield (*place, "name"), f"the agent has a built-in tool {handed.name!r}"
        elif any(handed.name.startswith(f"{server.name}__") for server in servers):
            yield (*place, "name"), "so are the tools of an MCP server called"
        names.add(handed.name)
        if (wrong := _no_schema(handed.input_schema)) is not None:
            yield (*place, "input_schema"), wrong
    for number, terms in enumerate(approvals):
        place = ("approvals", number)
        server = terms.tool.partition("/")[0]
        if "/" in terms.tool and not any(fnmatchcase(known.name, server) for known in servers):
            yield place, f"there is no MCP server {server!r}"
        elif not any(sign in terms.tool for sign in "/*?[") and terms.tool not in tools and terms.tool not in names:
            yield place, f"there is no tool {terms.tool!r}"
        if terms.input_schema is not None and (wrong := _no_schema(terms.input_schema)) is not None:
            yield (*place, "input_schema"), wrong
        for at, user in enumerate(terms.who):
            if not 1 <= len(user) <= 200:
                yield (*place, "who", at), "the id of a user is wanted"


def _no_schema(schema: Json) -> str | None:
    """Why this cannot be the schema of arguments; None: it can."""
    if schema.get("type") != "object":
        return "the schema of an object is wanted (type: object)"
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or not all(isinstance(rule, dict | bool) for rule in properties.values()):
        return "`properties` must map names to schemas"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return "`required` must be a list of names"
    if len(json_bytes(schema)) > MOST_SCHEMA_BYTES:
        return f"a schema may have at most {MOST_SCHEMA_BYTES} bytes"
    return None

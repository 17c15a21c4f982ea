"""The form of `agents.yaml` for people and editors: its JSON schema, and the tables of `docs/agents-file.md`.

Both are made from the models in `agents_file`; the sentences stand here, one for each field, and a test holds that none
is missing.
"""

from __future__ import annotations

from typing import Any

from parley_events.body import Json
from parley_standalone.agents_file import file_schema

SECTIONS: dict[str, str] = {
    "": "",
    "workspace": "_Workspace",
    "mcp_servers": "_Server",
    "mcp_servers.tools": "_Declared",
    "agents": "_Agent",
    "agents.approvals": "Terms",
    "agents.client_tools": "Handed",
    "agents.limits": "Limits",
    "teams": "_Team",
}
"""Every mapping of the file, by its place: the model that it is read with."""

EXPLAINED: dict[str, str] = {
    "workspace": "what holds for all agents",
    "structures": "UUIDs by which the `org_chat` contract names this workspace",
    "mcp_servers": "MCP servers that agents may use",
    "agents": "the agents; at least one",
    "teams": "agents that answer together",
    "workspace.name": "the workspace's name; `default` is the only one so far",
    "workspace.context": "what every agent here should know; shown to each after its own prompt",
    "workspace.connectors": "names of MCP servers whose tools every agent has",
    "mcp_servers.name": "letters, digits and single `-` or `_`; its tools are shown to models as `<name>__<tool>`",
    "mcp_servers.url": "where it is, for Streamable HTTP; this or `command`",
    "mcp_servers.headers": "sent with every request; a value may be `env:NAME`",
    "mcp_servers.command": "a program and its arguments, for stdio; run in the folder of this file",
    "mcp_servers.env": "variables of the program, beside PATH, HOME and a few others; a value may be `env:NAME`",
    "mcp_servers.timeout_s": "how long one call of a tool may take, in seconds",
    "mcp_servers.tools": "by the tool's name: what a second call would do (`pay: unsafe` is short for "
    "`pay: {effect: unsafe}`); counts before what the server says of itself",
    "mcp_servers.tools.effect": "what a second call would do ([tools.md](tools.md))",
    "mcp_servers.tools.check": "of `checkable`, and only of that: the tool that tells whether a call took place",
    "agents.id": "by which clients and records name it",
    "agents.name": "its name for people",
    "agents.description": "what it is for, for people and for other agents",
    "agents.roles": "other ids by which the `org_chat` contract knows it",
    "agents.model": "the model that answers",
    "agents.base_url": "a server of its own that speaks the Messages API",
    "agents.api_key": "the variable with that server's own key, as `env:NAME`; never the key",
    "agents.thinking": "how much the model thinks before it speaks: `adaptive`, `off`, or a budget in tokens",
    "agents.system_prompt": "what the model is told first",
    "agents.context": "what it should know from the start; shown after the workspace's",
    "agents.temperature": "the model's",
    "agents.tools": "names of built-in tools, and of MCP servers' as `<server>/<tool>`; `*` in either part is any. A "
    "name without `/` is of built-in tools alone, so `*` means all of those",
    "agents.approvals": "tools that a person must approve first, named as in `tools`, also those that the client runs "
    "([runs.md](runs.md)); a name alone is short for `{tool: name}`, and the first entry that fits a tool counts",
    "agents.client_tools": "tools that the client runs ([runs.md](runs.md))",
    "agents.skills": "a folder of skills that it knows from the start",
    "agents.limits": "what one run may use",
    "agents.approvals.tool": "the tool, or a pattern as in `tools`",
    "agents.approvals.question": "what the person is asked",
    "agents.approvals.input_schema": "the JSON schema of edited arguments; without it the tool's own",
    "agents.approvals.who": "the users that may answer, beside admins; without it whoever has the scope `approve`",
    "agents.approvals.expires_s": "seconds after which the call is denied, if nobody has answered",
    "agents.client_tools.name": "its name: letters, digits, `_` and `-`; not that of another tool of the agent",
    "agents.client_tools.description": "what it does, for the model",
    "agents.client_tools.input_schema": "the JSON schema of its arguments",
    "agents.client_tools.expires_s": "seconds for which its result is waited for",
    "agents.limits.steps": "model turns",
    "agents.limits.seconds": "seconds from the first model turn on",
    "agents.limits.max_tokens": "tokens of one model turn",
    "teams.id": "by which clients name it",
    "teams.name": "its name for people",
    "teams.members": "ids of its agents, in order",
    "teams.mode": "how it plays, when the client does not say",
    "teams.lead": "the member that sums up; without it the first",
}
"""What each field is, by its place."""


def schema() -> Json:
    """The JSON schema of the file, for editors and checks."""
    made = file_schema()
    for place, model in SECTIONS.items():
        shape = _shape(made, model)
        shape.pop("description", None)
        shape["title"] = place or "agents.yaml"
        for name, rule in shape["properties"].items():
            rule.pop("title", None)
            told = EXPLAINED.get(_place(place, name))
            if told is not None:
                rule["description"] = told
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def tables() -> str:
    """One table per mapping of the file, in Markdown."""
    made = schema()
    parts = []
    for place, model in SECTIONS.items():
        shape = _shape(made, model)
        wanted = shape.get("required", ())
        rows = [f"### {f'`{place}`' if place else 'The file'}", "", "| field | form | default | what it is |"]
        rows.append("|---|---|---|---|")
        for name, rule in shape["properties"].items():
            default = "needed" if name in wanted else _default(rule)
            rows.append(f"| `{name}` | {_form(rule)} | {default} | {rule.get('description', '')} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _shape(made: Json, model: str) -> Json:
    shape: Json = made["$defs"][model] if model else made
    return shape


def _place(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _default(rule: Json) -> str:
    default = rule.get("default")
    return "none" if default in (None, "", [], {}) else f"`{default}`"


def _form(rule: Json) -> str:
    """The form of a value, in words."""
    if "$ref" in rule:
        return "mapping"
    options = [option for option in rule.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return " or ".join(_form(option) for option in options)
    if "enum" in rule:
        return " or ".join(f"`{value}`" for value in rule["enum"])
    bounds = _bounds(rule)
    match rule.get("type"):
        case "array":
            return f"list of {_form(rule['items'])}"
        case "object":
            inner = rule.get("additionalProperties")
            return f"mapping of names to {_form(inner)}" if isinstance(inner, dict) else "mapping"
        case "string":
            return "text"
        case "integer" | "number" as kind:
            return f"{kind}{bounds}"
    return "mapping"


def _bounds(rule: Json) -> str:
    said: list[Any] = []
    if "exclusiveMinimum" in rule:
        said.append(f"above {rule['exclusiveMinimum']:g}")
    if "minimum" in rule:
        said.append(f"from {rule['minimum']:g}")
    if "maximum" in rule:
        said.append(f"to {rule['maximum']:.15g}")
    return f" {' '.join(said)}" if said else ""

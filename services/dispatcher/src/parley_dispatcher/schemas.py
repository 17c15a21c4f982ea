"""What is wrong with a value by its JSON schema, at the first level. Pure.

Schemas come from owners of agents and from MCP servers. So there is no validator here: a regular expression or a web of
references in one could hold up everything else. Checked are `type` (where it is a single name), `required`,
`additionalProperties: false`, and the `type` of each of `properties`; what is deeper is the tool's own to check.
"""

from __future__ import annotations

from typing import Any

from parley_events.body import Json

_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def misfit(schema: Json, value: Any, what: str = "it", *, closed: bool = True) -> str | None:
    """What is wrong with the value, with its place; None: nothing that is looked at. `closed`: properties that the
    schema forbids count too."""
    if schema.get("type", "object") == "object" and not isinstance(value, dict):
        return f"{what} is not an object"
    if not isinstance(value, dict):
        return None
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name not in value:
            return f"{name[:100]!r} is missing"
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    for name, rule in properties.items():
        kind = rule.get("type") if isinstance(rule, dict) else None
        expected = _KINDS.get(kind) if isinstance(kind, str) else None
        if name in value and expected is not None and not _is(value[name], expected):
            return f"{name[:100]!r} is not of the type {kind}"
    if closed and schema.get("additionalProperties") is False and "patternProperties" not in schema:
        for name in value:
            if name not in properties:
                return f"{name[:100]!r} is not known"
    return None


def _is(value: Any, expected: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, expected)

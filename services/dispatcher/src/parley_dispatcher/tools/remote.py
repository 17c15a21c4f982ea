"""What an MCP server says → what Parley uses: its offers as tools, its answers as results. Pure, but for `keep`.

A server may say anything. A tool that the Messages API would refuse is left out and said so (one bad schema there fails
every call of the model); what is too long is cut; what is only a hint is treated as one: the declaration in
`agents.yaml` counts before the server's annotations.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict

from parley_dispatcher.errors import ToolError
from parley_dispatcher.schemas import misfit
from parley_dispatcher.tools.base import Effect, Result, Verdict
from parley_dispatcher.tools.mcp import Answer, Offer, Part
from parley_dispatcher.tools.mcp_http import MAX_FILES_BYTES
from parley_events.body import Attachment, Json, McpServer
from parley_events.errors import ObjectsUnavailable
from parley_events.objects import Objects

EFFECT_KEY = "parley/effect-key"
"""Where a server finds the call's effect key, in `_meta`: the same however often the call is tried."""
MAX_DESCRIPTION_CHARS = 8000
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 40
MAX_FILES = 20
MAX_VERDICT_CHARS = 1024 * 1024
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,80}")


class Passed(BaseModel):
    """Arguments that are handed on as they are: the server checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True, slots=True)
class Known:
    """A tool that can be shown to a model, as `name`; `offer.name` is the server's own name for it."""

    name: str
    offer: Offer
    description: str
    input_schema: Json
    effect: Effect
    check: str | None = None
    """Of a `checkable` tool: the server's name for the tool that tells whether a call took place."""


def uses(patterns: Iterable[str], server: str) -> bool:
    """Whether one of the patterns can name a tool of the server. A pattern without `/` names built-in tools alone."""
    return any("/" in pattern and fnmatchcase(server, pattern.partition("/")[0]) for pattern in patterns)


def names(patterns: Iterable[str], server: str, tool: str) -> bool:
    """Whether one of the patterns names this tool of the server."""
    return any("/" in pattern and fnmatchcase(f"{server}/{tool}", pattern) for pattern in patterns)


def known_tools(declared: McpServer, offers: Iterable[Offer]) -> tuple[list[Known], list[str]]:
    """The tools that can be used, in the server's order, and a line for each that cannot."""
    known: dict[str, Known] = {}
    refused: list[str] = []
    for offer in offers:
        name = f"{declared.name}__{re.sub('[^a-zA-Z0-9_-]', '_', offer.name)}"
        label = repr(offer.name[:100])
        if not offer.name or not _NAME.fullmatch(name):
            refused.append(f"{label} has a name that is empty or too long")
            continue
        if name in known:
            refused.append(f"{label} would be called {name}, as {known[name].offer.name!r} is")
            continue
        schema, why = _shown(offer.input_schema)
        if schema is None:
            refused.append(f"{label} has an input schema that {why}")
            continue
        own = declared.tools.get(offer.name)
        description = offer.description
        if len(description) > MAX_DESCRIPTION_CHARS:
            description = description[:MAX_DESCRIPTION_CHARS] + " [cut]"
        effect, check = (own.effect, own.check) if own else (offer.effect, None)
        known[name] = Known(name, offer, description, schema, effect, check)
    return list(known.values()), refused


def _shown(schema: Any) -> tuple[Json | None, str]:
    """The schema as a model may be shown it; or None, and why."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return None, "is not one of an object"
    if _deeper(schema, MAX_SCHEMA_DEPTH):
        return None, f"nests deeper than {MAX_SCHEMA_DEPTH} levels"
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (ValueError, TypeError):
        return None, "is not JSON"
    if size > MAX_SCHEMA_BYTES:
        return None, f"is larger than {MAX_SCHEMA_BYTES} bytes"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return None, f"is not a JSON schema ({error.json_path[:100]})"
    properties = schema.get("properties", {})
    for name in properties:
        if not _PROPERTY.fullmatch(name):
            return None, f"has a property {name[:64]!r}, which the Messages API does not take"
    # At the top the Messages API takes none of these; the server still checks them.
    kept = {key: value for key, value in schema.items() if key not in ("oneOf", "anyOf", "allOf")}
    return {**kept, "type": "object"}, ""


def _deeper(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        return left == 0 or any(_deeper(inner, left - 1) for inner in value.values())
    if isinstance(value, list):
        return left == 0 or any(_deeper(inner, left - 1) for inner in value)
    return False


async def keep(
    objects: Objects, workspace_id: str, known: Known, effect_key: str, answer: Answer, hide: Callable[[str], str]
) -> Result:
    """The answer as a result: its files go to the object store, `hide` takes secrets out of its texts. Raises ToolError
    when the server says that it is an error."""
    texts: list[str] = []
    files: list[Attachment] = []
    left = MAX_FILES_BYTES
    for part in answer.parts:
        if part.data is None:
            texts.append(part.text)
            continue
        if len(files) == MAX_FILES or len(part.data) > left:
            texts.append("[a file is left out: too many, or too large]")
            continue
        left -= len(part.data)
        name = _file_name(known, effect_key, len(files) + 1, part, {file.name for file in files})
        content_type = _content_type(part)
        try:
            sha256 = await objects.put(workspace_id, part.data)
        except ObjectsUnavailable:
            texts.append("[a file is left out: it could not be kept just now]")
            continue
        files.append(Attachment(name=name, content_type=content_type, size=len(part.data), sha256=sha256))
        texts.append(f"[file {name}: {content_type}, {len(part.data)} bytes]")
    if answer.structured is not None and not any(part.text.strip() for part in answer.parts if part.data is None):
        texts.append(json.dumps(answer.structured, ensure_ascii=False))
    if answer.is_error:
        raise ToolError(hide("\n".join(texts)) or "The tool failed, and did not say why.")
    misfit = _misfit(known.offer.output_schema, answer.structured)
    if misfit is not None:
        texts.append(f"[note: the result is not what the tool's schema promises: {misfit}]")
    return Result(hide("\n".join(texts)), files=tuple(files))


def verdict_of(answer: Answer, hide: Callable[[str], str]) -> Verdict:
    """What a check says: a JSON object with `happened` (true or false), as structured content or as its text; `result`
    beside it is what the call gave. Raises ToolError when it says neither."""
    said = answer.structured
    if not isinstance(said, dict) or "happened" not in said:
        said = _object("".join(part.text for part in answer.parts if part.data is None))
    happened = None if said is None else said.get("happened")
    if answer.is_error or not isinstance(happened, bool):
        raise ToolError("the check did not answer with `happened`, true or false")
    gave = (said or {}).get("result")
    if gave is None:
        text = "The call took place; its own answer was lost." if happened else ""
    else:
        text = gave if isinstance(gave, str) else json.dumps(gave, ensure_ascii=False)
    return Verdict(happened, Result(hide(text)))


def _object(text: str) -> Json | None:
    """The JSON object that a text is, if it is one."""
    try:
        found = json.loads(text) if len(text) <= MAX_VERDICT_CHARS else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _file_name(known: Known, effect_key: str, number: int, part: Part, taken: set[str]) -> str:
    """A plain file name: the server's own, made safe, or one from the tool and the call."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", part.name).lstrip("._-")[-100:].lstrip("._-")
    if name and name not in taken:
        return name
    tool = re.sub(r"[^A-Za-z0-9-]+", "-", known.offer.name).strip("-")[:60] or "file"
    ending = mimetypes.guess_extension(_content_type(part)) or ""
    return f"{tool}-{re.sub('[^0-9a-f]', '', effect_key)[:8]}-{number}{ending}"


def _content_type(part: Part) -> str:
    kind = part.content_type.partition(";")[0].strip().lower()
    return kind if _CONTENT_TYPE.fullmatch(kind) else "application/octet-stream"


def _misfit(schema: Json | None, structured: Any) -> str | None:
    """What is wrong with the structured result, at its first level: the schema is the server's too."""
    if schema is None:
        return None
    if structured is None:
        return "there is no structured content"
    return misfit(schema, structured, "the structured content", closed=False)

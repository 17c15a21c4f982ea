"""A request as the Messages API takes it: `Request` → the body of one call. Pure; `claude` sends it.

`prompt` says what the model is shown; what only this API asks for is added here: names and ids in its alphabet, no
blank text, breakpoints for its prompt cache, and which parameters a model takes.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass, field

from parley_dispatcher.providers.base import Request
from parley_dispatcher.providers.files import Shown
from parley_events.body import Json

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)*?(\d{1,2})(?:-(\d{1,2}))?(?=-|$)")
_CACHE = {"type": "ephemeral"}
_CACHEABLE = ("text", "image", "document", "tool_use", "tool_result")
_LEAST_BUDGET = 1024
_ADAPTIVE_FROM, _NO_SAMPLING_FROM, _THINKS_FROM, _ALWAYS_THINKS_FROM = (4, 6), (4, 7), (5, 0), (5, 5)
_NEWEST = (999, 0)


@dataclass(frozen=True, slots=True)
class Wire:
    """One call's body. `temperature` stands apart, since only an older version of the API knows it. `names` leads from
    a tool's name on the wire to its own, where they differ."""

    body: Json
    temperature: float | None
    names: dict[str, str] = field(default_factory=dict)
    has_files: bool = False


def to_wire(request: Request, shown: Shown) -> Wire:
    """The call for a request. `shown` are the blocks that stand for its references to files."""
    names: dict[str, str] = {}
    tools = [tool | {"name": _name(tool["name"], names)} for tool in request.tools]
    body: Json = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": _messages(request.messages, names, shown),
    }
    if tools:
        tools[-1] = tools[-1] | {"cache_control": _CACHE}
        body["tools"] = tools
    if request.system.strip():
        body["system"] = [{"type": "text", "text": request.system, "cache_control": _CACHE}]
    _mark(body["messages"])
    thinking = _thinking(request)
    if thinking is not None:
        body["thinking"] = thinking
    # Models from 4.7 on take none, and none of them takes another than 1 while it thinks.
    version = _version(request.model)
    thinks = thinking is not None and thinking["type"] in ("adaptive", "enabled")
    takes = not thinks and (version is None or version < _NO_SAMPLING_FROM)
    files = any(block["type"] != "text" for block in shown.values())
    return Wire(body, request.temperature if takes else None, names, files)


# ---- what a model takes


def _version(model: str) -> tuple[int, int] | None:
    """The version in a Claude model's name; None: another's model, of which nothing is known."""
    if not model.startswith("claude-"):
        return None
    found = _CLAUDE.match(model)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST


def _thinking(request: Request) -> Json | None:
    """What is said about thinking. Models up to 4.5 take a budget, later ones decide for themselves, and their thoughts
    are shown only when that is asked for. None: nothing is said."""
    version, wish = _version(request.model), request.thinking
    adaptive = version is not None and version >= _ADAPTIVE_FROM
    if wish is None:
        return None
    if wish == "off":
        if version is None or version < _THINKS_FROM:
            return None
        if version >= _ALWAYS_THINKS_FROM and "-haiku-" not in request.model:
            # Sonnet's least; the others of this generation cannot be kept from it.
            return {"type": "between_tools"} if "-sonnet-" in request.model else None
        return None if "-fable-" in request.model or "-mythos-" in request.model else {"type": "disabled"}
    if adaptive or (version is None and wish == "adaptive"):
        return {"type": "adaptive", "display": "summarized"}
    budget = request.max_tokens // 2 if wish == "adaptive" else wish
    budget = min(max(budget, _LEAST_BUDGET), request.max_tokens - 1)
    return {"type": "enabled", "budget_tokens": budget} if budget >= _LEAST_BUDGET else None


# ---- messages


def _messages(messages: list[Json], names: dict[str, str], shown: Shown) -> list[Json]:
    out: list[Json] = []
    taken: set[str] = set()
    waiting: dict[str, deque[str]] = {}
    for message in messages:
        content: list[Json] = []
        if message["role"] == "assistant":
            waiting = {}
        for block in message["content"]:
            match block["type"]:
                case "tool_use":
                    wire_id = _unique(block["id"], taken)
                    waiting.setdefault(block["id"], deque()).append(wire_id)
                    content.append(block | {"id": wire_id, "name": _name(block["name"], names)})
                case "tool_result":
                    content.append(_result(block, waiting[block["tool_use_id"]].popleft(), shown))
                case "text":
                    if block["text"].strip():
                        content.append(dict(block))
                case _:
                    content.append(_shown(block, shown))
        # The API refuses blank texts, and messages without content.
        out.append({"role": message["role"], "content": content or [{"type": "text", "text": "(no text)"}]})
    return out


def _result(block: Json, wire_id: str, shown: Shown) -> Json:
    result: Json = block | {"tool_use_id": wire_id}
    content = block["content"]
    if isinstance(content, list):
        parts = [_shown(part, shown) for part in content]
        result["content"] = [part for part in parts if part["type"] != "text" or part["text"].strip()]
    elif not content and block.get("is_error"):
        result["content"] = "(no message)"
    return result


def _shown(block: Json, shown: Shown) -> Json:
    """A copy of the block, or of what stands for its file."""
    return dict(shown.get(id(block), block))


def _unique(call_id: str, taken: set[str]) -> str:
    """The id of a call: in the API's alphabet, and once in a conversation, whatever a model made up."""
    clean = _NOT_IN_NAMES.sub("_", call_id) or "call"
    wire_id, number = clean, 2
    while wire_id in taken:
        wire_id, number = f"{clean}_{number}", number + 1
    taken.add(wire_id)
    return wire_id


def _name(name: str, names: dict[str, str]) -> str:
    """A tool's name in the API's alphabet; `names` learns the way back."""
    if _NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    wire_name = f"{_NOT_IN_NAMES.sub('_', name)[:55]}_{digest}"
    names[wire_name] = name
    return wire_name


def _mark(messages: list[Json]) -> None:
    """Mark the ends of the last message and of the one that the user sent before: what was written to the cache at the
    last call is found again at the second mark, however much this turn added. With tools and system that is four."""
    ends = [message for message in messages if message["role"] == "user"][-2:]
    if messages[-1] not in ends:
        ends = [*ends[-1:], messages[-1]]
    for message in ends:
        block = message["content"][-1]
        if block["type"] in _CACHEABLE:
            block["cache_control"] = _CACHE

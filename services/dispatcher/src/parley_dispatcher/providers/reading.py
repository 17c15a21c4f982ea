"""A turn as the Messages API streams it: its events, parsed → the provider port's events. Pure; `claude` feeds it.

Blocks get their numbers as they first say something, so that one that stays empty takes none. A call of a tool is held
until it is known how the turn goes on: one whose arguments were cut off must not be taken for a call without any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers.base import Event, Kept, Said, Signed, Stopped, Used
from parley_events.body import Json, Usage

MAX_CHARS = 1_500_000
"""The most characters that one turn may say; it must fit a record."""
MAX_BLOCKS = 1000
MAX_DEPTH = 64
"""How deep the arguments of a tool may be nested; records are read with a limit too."""
_WHOLE = ("tool_use", "end_turn", "pause_turn", "stop_sequence")
"""Stop reasons of a turn that said all it wanted to say."""
_ERRORS = {
    "invalid_request_error": "400",
    "authentication_error": "401",
    "billing_error": "402",
    "permission_error": "403",
    "not_found_error": "404",
    "request_too_large": "413",
    "rate_limit_error": "429",
    "api_error": "500",
    "timeout_error": "504",
    "overloaded_error": "529",
}
FINAL = ("400", "401", "402", "403", "404", "405", "413", "415", "422")
"""Failures that another attempt meets again."""


@dataclass(slots=True)
class _Open:
    """A block that is being streamed."""

    kind: str
    start: Json
    number: int | None = None
    parts: list[str] = field(default_factory=list)
    signature: str = ""


class Reading:
    """One turn. `name_of` leads from a tool's name on the wire to its own."""

    def __init__(self, name_of: Callable[[str], str] = lambda name: name) -> None:
        self._name_of = name_of
        self._open: dict[int, _Open] = {}
        self._held: _Open | None = None
        self._blocks = 0
        self._chars = 0
        self._ids: set[str] = set()
        self._stop_reason: str | None = None
        self.usage = Usage()
        self.begun = False
        self.stopped = False

    def take(self, event: Json) -> list[Event]:
        """What an event means. Raises ModelError, also for what the protocol does not know."""
        try:
            match event["type"]:
                case "content_block_delta":
                    return self._delta(self._open[event["index"]], event["delta"])
                case "content_block_start":
                    return self._start(event["index"], event["content_block"])
                case "content_block_stop":
                    return self._stop(self._open.pop(event["index"]))
                case "message_start":
                    self.begun = True
                    self._count(event["message"].get("usage"))
                    return []
                case "message_delta":
                    self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                    self._count(event.get("usage"))
                    return self._release(self._stop_reason in _WHOLE)
                case "message_stop":
                    return self._end()
                case "error":
                    raise error_of(event, self.usage)
                case _:  # pings, and events that a later version of the API may add
                    return []
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self.garbled(f"an event cannot be understood ({type(error).__name__})") from error

    def garbled(self, what: str) -> ModelError:
        """The error for a stream that is not one of the Messages API."""
        return ModelError("garbled", f"the model's stream was garbled: {what}", retry=True, usage=self.usage)

    def _count(self, usage: Any) -> None:
        """The figures are cumulative; one that is left out stays."""
        if not isinstance(usage, dict):
            return
        known = self.usage
        figures = {
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "cache_read_tokens": usage.get("cache_read_input_tokens"),
            "cache_write_tokens": usage.get("cache_creation_input_tokens"),
        }
        self.usage = known.model_copy(update={k: v for k, v in figures.items() if type(v) is int and v >= 0})

    # ---- blocks

    def _start(self, index: int, content: Json) -> list[Event]:
        events = self._release(whole=True)
        if len(self._open) >= MAX_BLOCKS:
            raise self._too_long(f"{MAX_BLOCKS} blocks")
        self._grow(json.dumps(content))  # held until the block ends, whatever is in it
        block = self._open[index] = _Open(str(content["type"]), content)
        first = content.get({"text": "text", "thinking": "thinking"}.get(block.kind, ""))
        block.signature = str(content.get("signature") or "") if block.kind == "thinking" else ""
        return [*events, *self._say(block, first)] if first else events

    def _delta(self, block: _Open, delta: Json) -> list[Event]:
        match delta["type"]:
            case "text_delta":
                return self._say(block, delta["text"])
            case "thinking_delta":
                return self._say(block, delta["thinking"])
            case "signature_delta":
                self._grow(delta["signature"])
                block.signature += delta["signature"]
            case "input_json_delta":
                self._grow(delta["partial_json"])
                block.parts.append(delta["partial_json"])
            case _:  # citations, and what may come
                pass
        return []

    def _say(self, block: _Open, text: str) -> list[Event]:
        if not text or block.kind not in ("text", "thinking"):
            return []
        self._grow(text)
        if block.number is None:
            block.number = self._next()
        return [Said(block.number, "text" if block.kind == "text" else "thought", text)]

    def _stop(self, block: _Open) -> list[Event]:
        match block.kind:
            case "text":
                return []
            case "thinking":
                if not block.signature:
                    return []
                if block.number is None:  # a thought that the model keeps to itself: nothing but its signature
                    block.number = self._next()
                return [Signed(block.number, block.signature)]
            case "tool_use":
                self._held = block
                return []
            case _:
                data = dict(block.start)
                if block.parts:
                    data["input"] = orjson.loads("".join(block.parts))
                if not _fits(data):
                    raise self.garbled("a block that no record can carry")
                return [Kept(self._next(), data)]

    def _release(self, whole: bool) -> list[Event]:
        """The call that is held. `whole`: the model went on after it, or says that it is done."""
        block, self._held = self._held, None
        if block is None:
            return []
        arguments, malformed = _arguments("".join(block.parts), block.start.get("input"), whole)
        name, call_id = self._name_of(_short(block.start["name"])), self._own_id(_short(block.start["id"]))
        return [Used(self._next(), call_id, name, arguments, malformed)]

    def _own_id(self, call_id: str) -> str:
        """The id, once in a turn: results and what clients show are told apart by it."""
        own, number = call_id, 2
        while own in self._ids:
            own, number = f"{call_id}_{number}", number + 1
        self._ids.add(own)
        return own

    def _end(self) -> list[Event]:
        if self._open or self._stop_reason is None:
            raise self.garbled("it ended in the middle of a block, or without saying why")
        self.stopped = True
        return [*self._release(whole=False), Stopped(self._stop_reason, self.usage)]

    def _next(self) -> int:
        self._blocks += 1
        if self._blocks > MAX_BLOCKS:
            raise self._too_long(f"{MAX_BLOCKS} blocks")
        return self._blocks - 1

    def _grow(self, text: str) -> None:
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise self._too_long(f"{MAX_CHARS} characters")

    def _too_long(self, most: str) -> ModelError:
        return ModelError("too_long", f"a turn of more than {most}", retry=False, usage=self.usage)


def _arguments(text: str, given: Any, whole: bool) -> tuple[Json, str | None]:
    """The arguments, and what was given instead of a JSON object. Some servers put them into the block's start."""
    if not text and isinstance(given, dict) and given:
        text = json.dumps(given)
    if not text:
        return {}, None if whole else ""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    return (value, None) if isinstance(value, dict) and _fits(value) else ({}, text.replace("\0", "\ufffd"))


def _short(text: Any) -> str:
    """A name or an id as it can be kept and shown."""
    return str(text).replace("\0", "\ufffd")[:200]


def _no_number(word: str) -> None:
    raise ValueError(word)


def _fits(value: Any, depth: int = 1) -> bool:
    """Whether a record can carry it unchanged: no absurd nesting, no lone surrogates, no number beyond all bounds."""
    if depth > MAX_DEPTH or (isinstance(value, float) and not math.isfinite(value)):
        return False
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(_fits(key, depth) and _fits(inner, depth + 1) for key, inner in value.items())
    return all(_fits(inner, depth + 1) for inner in value) if isinstance(value, list) else True


def error_of(event: Json, usage: Usage) -> ModelError:
    """The failure that an `error` event tells of."""
    error = event["error"]
    kind = _ERRORS.get(error.get("type"), "500")
    message = str(error.get("message") or error.get("type") or "an error")
    return ModelError(kind, message[:500], retry=kind not in FINAL, usage=usage)

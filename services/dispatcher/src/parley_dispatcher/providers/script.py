"""The script in a message: text → turns, a pure function. `scripted` plays them; docs/scripted-model.md is the manual.

A line that begins with `/` and a known name is a directive; where there is one, other lines are ignored. A malformed
directive becomes the text `script error: line N …`, so that its writer sees it where the answer would be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from parley_events.body import Json

MAX_PIECES = 100_000
MAX_WAIT_MS = 600_000
MAX_DEPTH = 64
"""How deep the arguments of a tool may be nested; records are read with a limit too, and must be readable."""
ERRORS = ("400", "401", "429", "500", "529", "cut", "stall")


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Stream:
    """`count` pieces `"%04d "` from `start` on, each followed by a pause."""

    count: int
    delay_ms: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Stamp:
    """`count` pieces, each the time at which it is said in ms since 1970 and a space, each followed by a pause."""

    count: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Wait:
    ms: int


@dataclass(frozen=True, slots=True)
class Show:
    what: Literal["system", "messages", "tools"]


@dataclass(frozen=True, slots=True)
class Fail:
    """`times` None: always."""

    kind: str
    times: int | None = 1


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Stop:
    reason: str


Directive = Think | Text | Stream | Stamp | Tool | Wait | Show | Fail | Usage | Stop


@dataclass(slots=True)
class ScriptTurn:
    """What one model turn plays, in order; its tools stand at its end."""

    directives: list[Directive] = field(default_factory=list)

    @property
    def tools(self) -> list[Tool]:
        return [directive for directive in self.directives if isinstance(directive, Tool)]


class Malformed(ValueError):
    """A directive that cannot be read; the text says what it should look like."""


def turns_of(message: str) -> list[ScriptTurn] | None:
    """The turns that the message scripts; None when it has no directive. A script that ends in tools has an empty
    turn after them."""
    turns = [ScriptTurn()]
    found = False
    for number, line in enumerate(message.split("\n"), start=1):
        name, _, rest = line.removesuffix("\r").partition(" ")
        parse = _PARSERS.get(name)
        if parse is None:
            continue
        found = True
        try:
            directive = parse(rest)
        except Malformed as error:
            directive = Text(f"script error: line {number}: {error}")
        if turns[-1].tools and not isinstance(directive, Tool):
            turns.append(ScriptTurn())
        turns[-1].directives.append(directive)
    if not found:
        return None
    if turns[-1].tools:
        turns.append(ScriptTurn())
    return turns


def words_of(text: str) -> list[str]:
    """The pieces a text is streamed in: each a word with the spaces after it. Joined they are the text."""
    return re.findall(r"\s+|\S+\s*", text)


_ESCAPE = re.compile(r"\\(?:(n)|(\\)|u([0-9a-fA-F]{4}))")


def unescape(text: str) -> str:
    r"""`\n`, `\\` and `\uXXXX` as what they mean, surrogate pairs combined; other backslashes stay."""

    def character(match: re.Match[str]) -> str:
        if match[1]:
            return "\n"
        return "\\" if match[2] else chr(int(match[3], 16))

    plain = _ESCAPE.sub(character, text)
    try:
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Malformed("a lone surrogate is not a character") from None


def _number(text: str, what: str, most: int) -> int:
    digits = text.lstrip("0") or text[:1]
    if not text.isascii() or not text.isdigit() or len(digits) > len(str(most)) or int(digits) > most:
        raise Malformed(f"{what} must be a whole number from 0 to {most}, not {text[:40]!r}")
    return int(digits)


def _fields(rest: str, usage: str, least: int, most: int) -> list[str]:
    fields = rest.split()
    if not least <= len(fields) <= most:
        raise Malformed(f"expected {usage}")
    return fields


def _stream(rest: str) -> Directive:
    fields = _fields(rest, "/stream COUNT DELAY_MS [FROM]", 2, 3)
    start = _number(fields[2], "FROM", 10**9) if len(fields) == 3 else 0
    return Stream(_number(fields[0], "COUNT", MAX_PIECES), _number(fields[1], "DELAY_MS", MAX_WAIT_MS), start)


def _stamp(rest: str) -> Directive:
    count, delay_ms = _fields(rest, "/stamp COUNT DELAY_MS", 2, 2)
    return Stamp(_number(count, "COUNT", MAX_PIECES), _number(delay_ms, "DELAY_MS", MAX_WAIT_MS))


def _tool(rest: str) -> Directive:
    name, _, text = rest.strip().partition(" ")
    if not name:
        raise Malformed("expected /tool NAME {json}")
    try:
        arguments = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the arguments are not JSON ({str(error)[:80]})") from None
    if not isinstance(arguments, dict):
        raise Malformed("the arguments must be a JSON object")
    _check(arguments, 1)
    return Tool(name, arguments)


def _check(value: object, depth: int) -> None:
    """Refuse what a record cannot carry unchanged: absurd nesting, lone surrogates, numbers that are none in JSON."""
    if depth > MAX_DEPTH:
        raise Malformed(f"the arguments are nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise Malformed("a lone surrogate is not a character")
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed("the arguments hold a number that JSON cannot")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, depth)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def _wait(rest: str) -> Directive:
    return Wait(_number(_fields(rest, "/wait MS", 1, 1)[0], "MS", MAX_WAIT_MS))


def _usage(rest: str) -> Directive:
    fields = _fields(rest, "/usage IN OUT", 2, 2)
    return Usage(_number(fields[0], "IN", 10**12), _number(fields[1], "OUT", 10**12))


def _stop(rest: str) -> Directive:
    return Stop(_fields(rest, "/stop REASON", 1, 1)[0])


def _error(rest: str) -> Directive:
    fields = _fields(rest, "/error KIND [TIMES]", 1, 2)
    if fields[0] not in ERRORS:
        raise Malformed(f"KIND must be one of {', '.join(ERRORS)}")
    if len(fields) == 1:
        return Fail(fields[0])
    return Fail(fields[0], None if fields[1] == "always" else _number(fields[1], "TIMES", 10**6))


def _show(rest: str) -> Directive:
    match rest.strip():
        case "system":
            return Show("system")
        case "messages":
            return Show("messages")
        case "tools":
            return Show("tools")
    raise Malformed("expected /show system, /show messages or /show tools")


_PARSERS: dict[str, Callable[[str], Directive]] = {
    "/think": lambda rest: Think(unescape(rest)),
    "/text": lambda rest: Text(unescape(rest)),
    "/stream": _stream,
    "/stamp": _stamp,
    "/tool": _tool,
    "/wait": _wait,
    "/usage": _usage,
    "/stop": _stop,
    "/error": _error,
    "/show": _show,
}

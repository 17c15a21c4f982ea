"""Tools for tests, given only to the agent `scripted`: `echo`, `repeat`, `sleep`, `fail`, `append_line`, `publish`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool

_MOST_REPEATED = 20_000_000


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Pause(Arguments):
    ms: int = Field(ge=0, le=600_000)


class Times(Arguments):
    text: str = Field(min_length=1, max_length=10_000)
    times: int = Field(ge=1, le=10_000_000)


class Failure(Arguments):
    message: str = Field(max_length=10_000)


class Line(Arguments):
    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$", description="a plain file name")
    line: str = Field(max_length=10_000, pattern=r"^[^\r\n]*$")


async def _echo(call: Call, arguments: Anything) -> Result:
    return Result(json.dumps(arguments.model_extra or {}, ensure_ascii=False))


async def _repeat(call: Call, arguments: Times) -> Result:
    if len(arguments.text) * arguments.times > _MOST_REPEATED:
        raise ToolError(f"at most {_MOST_REPEATED} characters in all")
    return Result(arguments.text * arguments.times)


async def _sleep(call: Call, arguments: Pause) -> Result:
    await asyncio.sleep(arguments.ms / 1000)
    return Result(json.dumps({"slept_ms": arguments.ms}))


async def _fail(call: Call, arguments: Failure) -> Result:
    raise ToolError(arguments.message)


class Words(Arguments):
    text: str = Field(min_length=1, max_length=10_000)


def _append(folder: Path, name: str, line: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


async def _append_line(call: Call, arguments: Line) -> Result:
    await asyncio.to_thread(_append, call.effects, arguments.file, f"{call.effect_key}\t{arguments.line}\n")
    return Result(json.dumps({"appended": arguments.file}))


async def _publish(call: Call, arguments: Words) -> Result:
    await asyncio.to_thread(_append, call.effects, "published", f"{call.effect_key}\t{json.dumps(arguments.text)}\n")
    return Result(json.dumps({"published": arguments.text}, ensure_ascii=False))


ECHO = Tool("echo", "Returns its arguments.", Anything, _echo, "read_only")
REPEAT = Tool("repeat", "Returns a text that many times.", Times, _repeat, "read_only")
SLEEP = Tool("sleep", "Waits.", Pause, _sleep, "read_only")
FAIL = Tool("fail", "Fails with the message.", Failure, _fail, "read_only")
APPEND_LINE = Tool("append_line", "Appends a line to a file, with the call's effect key before it.", Line, _append_line)
PUBLISH = Tool("publish", "Publishes a text, for all to see.", Words, _publish)

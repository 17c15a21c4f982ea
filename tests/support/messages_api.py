"""The Messages API as a local server: real sockets, the published wire format, and a strict reader of what it is sent.

It plays transcripts (`turn`, `failure`, or steps of one's own), one per request, and answers 400 to whatever the API
would refuse; `requests` has everything that came, `violations` what was wrong with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
KEY = "sk-test-0123456789"
NEW, OLD = "2026-10-21", "2023-06-01"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
_PLAIN = {"host", "accept", "connection", "user-agent", "content-type", "content-length"}
HEADERS = _PLAIN | {"anthropic-version", "x-api-key"}
_CACHE = {"cache_control"}
FIELDS: dict[str, set[str]] = {
    "text": {"type", "text"} | _CACHE,
    "image": {"type", "source"} | _CACHE,
    "document": {"type", "source", "title"} | _CACHE,
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
    "tool_use": {"type", "id", "name", "input"} | _CACHE,
    "tool_result": {"type", "tool_use_id", "content", "is_error"} | _CACHE,
    "server_tool_use": {"type", "id", "name", "input"} | _CACHE,
    "web_search_tool_result": {"type", "tool_use_id", "content"} | _CACHE,
}
BY_ROLE = {
    "user": {"text", "image", "document", "tool_result"},
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "web_search_tool_result"},
}
TOP = {"model", "max_tokens", "messages", "system", "tools", "thinking", "stream"}
IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}


# ---- transcripts


@dataclass(frozen=True)
class Hold:
    """The stream stands still here: `reached` is set, and it goes on when `gate` is."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Raw:
    """Bytes as they are."""

    data: bytes


class Cut:
    """The connection is reset."""


@dataclass(frozen=True)
class Forever:
    """An event again and again, until the client has left."""

    event: Json
    every_s: float


Step = Json | Hold | Raw | Cut | Forever


@dataclass(frozen=True)
class Play:
    """The answer to one request."""

    steps: Sequence[Step]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream; charset=utf-8"})
    pings: bool = False


def start(input_tokens: int = 25, **cache: int) -> Json:
    usage = {"input_tokens": input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0} | cache
    message: Json = {
        "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-5-5",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": 1},
    }
    return {"type": "message_start", "message": message}


def end(stop_reason: str = "end_turn", output_tokens: int = 15, **more: Any) -> list[Step]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    usage = {"output_tokens": output_tokens} | more
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def block(content: Json, *deltas: Json, stop: bool = True) -> list[Json]:
    """The events of one block; `index` is set by `turn`."""
    events = [{"type": "content_block_start", "content_block": content}]
    events += [{"type": "content_block_delta", "delta": delta} for delta in deltas]
    return [*events, {"type": "content_block_stop"}] if stop else events


def text(*pieces: str) -> list[Json]:
    return block({"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def thought(*pieces: str, signature: str | None = SIGNATURE) -> list[Json]:
    signed = [{"type": "signature_delta", "signature": signature}] if signature else []
    said = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    return block({"type": "thinking", "thinking": "", "signature": ""}, *said, *signed)


def redacted(data: str = "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP") -> list[Json]:
    return block({"type": "redacted_thinking", "data": data})


def tool(name: str, call_id: str, *partial: str) -> list[Json]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *partial)]
    return block({"type": "tool_use", "id": call_id, "name": name, "input": {}}, *deltas)


def numbered(*blocks: list[Json]) -> list[Step]:
    """The events of blocks, with their index."""
    return [event | {"index": index} for index, events in enumerate(blocks) for event in events]


def turn(*blocks: list[Json], stop: str = "end_turn", pings: bool = True, **usage: int) -> Play:
    """A whole turn."""
    return Play([start(), *numbered(*blocks), *end(stop, **usage)], pings=pings)


def failure(status: int, kind: str, message: str = "no", **headers: str) -> Play:
    """An answer that is an error."""
    body: Json = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Play([Raw(json.dumps(body).encode())], status, {"content-type": "application/json"} | named)


def error_event(kind: str, message: str = "Overloaded") -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}}


# ---- the server


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    headers: dict[str, str]
    body: Json

    @property
    def messages(self) -> list[Json]:
        return list(self.body["messages"])


class MessagesApi:
    """The server. `plays` are played one after the other; or a function of the request gives each. `key` is the key it
    takes (None: it wants none, and takes none). `hung_up` is set when a client leaves in the middle of an answer."""

    def __init__(self, *plays: Play, key: str | None = KEY, choose: Callable[[Received], Play] | None = None) -> None:
        self._plays, self._key, self._choose = list(plays), key, choose
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self.hung_up = asyncio.Event()
        self.connections = 0
        self._issued: set[tuple[str, str]] = set()
        self._thoughts_of: dict[str, list[Json]] = {}
        self._ahead: dict[asyncio.StreamReader, bytes] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> MessagesApi:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        rest = await reader.readuntil(b"\r\n\r\n")
        head = (self._ahead.pop(reader, b"") + rest).decode()
        request_line, *lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(headers, json.loads(content))
        self.requests.append(received)
        wrong = self._wrong(request_line, received)
        if wrong is not None and wrong[0] == 400:
            self.violations.append(wrong[1])
        if wrong is not None:
            kind = "authentication_error" if wrong[0] == 401 else "invalid_request_error"
            play = failure(wrong[0], kind, wrong[1])
        else:
            play = self._choose(received) if self._choose is not None else self._plays.pop(0)
            self._remember(play)
        watch = asyncio.create_task(self._watch(reader))
        try:
            return await self._play(play, writer)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Note when the client goes away in the middle of an answer; it says nothing before the end of it."""
        first = b""
        with suppress(ConnectionError):
            first = await reader.read(1)
        if first:  # of the next request: it came before this task was told to stop
            self._ahead[reader] = first
        else:
            self.hung_up.set()

    async def _play(self, play: Play, writer: asyncio.StreamWriter) -> bool:
        named = "".join(f"{name}: {value}\r\n" for name, value in play.headers.items())
        writer.write(f"HTTP/1.1 {play.status} OK\r\n{named}transfer-encoding: chunked\r\n\r\n".encode())
        for step in play.steps:
            match step:
                case Hold():
                    await writer.drain()
                    step.reached.set()
                    await step.gate.wait()
                case Cut():
                    await writer.drain()
                    writer.transport.abort()
                    return False
                case Raw():
                    self._chunk(writer, step.data)
                case Forever():
                    while not self.hung_up.is_set():
                        self._chunk(writer, framed(step.event))
                        await asyncio.sleep(step.every_s)
                    return False
                case _:
                    assert isinstance(step, dict)
                    self._chunk(writer, framed(step))
                    if play.pings and step["type"] in ("message_start", "content_block_start"):
                        self._chunk(writer, framed({"type": "ping"}))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    # ---- what was said before

    def _remember(self, play: Play) -> None:
        """The thoughts of a turn, by their signature and by the calls that they led to."""
        thoughts: dict[int, Json] = {}
        calls: list[str] = []
        for step in play.steps:
            if not isinstance(step, dict):
                continue
            if step["type"] == "content_block_start":
                content = step["content_block"]
                if content["type"] in ("thinking", "redacted_thinking"):
                    thoughts[step["index"]] = dict(content)
                elif content["type"] == "tool_use":
                    calls.append(content["id"])
            elif step["type"] == "content_block_delta" and step["index"] in thoughts:
                delta = step["delta"]
                for name in ("thinking", "signature"):
                    thoughts[step["index"]][name] += delta.get(name, "")
        self._issued |= {(t["thinking"], t["signature"]) for t in thoughts.values() if t["type"] == "thinking"}
        for call in calls:
            self._thoughts_of[call] = list(thoughts.values())

    # ---- what is wrong with a request

    def _wrong(self, request_line: str, received: Received) -> tuple[int, str] | None:
        try:
            assert request_line.split(" ")[:2] == ["POST", "/v1/messages"], f"not found: {request_line}"
            extra = received.headers.keys() - HEADERS
            assert not extra, f"headers: {sorted(extra)}"
            if received.headers.get("x-api-key") != self._key:
                return 401, f"invalid x-api-key {received.headers.get('x-api-key')}"
            self._check(received)
        except AssertionError as error:
            return 400, str(error).partition("\n")[0]
        return None

    def _check(self, received: Received) -> None:
        body, version = received.body, received.headers.get("anthropic-version")
        assert version in (NEW, OLD), f"anthropic-version: {version}"
        top = TOP | ({"temperature"} if version == OLD else set())
        assert body.keys() <= top, f"{sorted(body.keys() - top)}: Extra inputs are not permitted"
        assert body["stream"] is True and body["max_tokens"] >= 1
        assert len(json.dumps(body)) <= 32 * 1024 * 1024, "request too large"
        thinking = body.get("thinking", {"type": "disabled"})
        if thinking["type"] == "enabled":
            assert 1024 <= thinking["budget_tokens"] < body["max_tokens"], "thinking.budget_tokens"
        if thinking["type"] in ("enabled", "adaptive"):
            assert body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled"
        for index, declared in enumerate(body.get("tools", ())):
            assert declared.keys() <= {"name", "description", "input_schema"} | _CACHE, f"tools.{index}: extra inputs"
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", declared["name"]), f"tools.{index}.name: bad pattern"
            assert declared["input_schema"]["type"] == "object"
        names = [declared["name"] for declared in body.get("tools", ())]
        assert len(names) == len(set(names)), "tools: Tool names must be unique."
        for part in body.get("system", ()):
            assert part["text"].strip(), "system: text content blocks must be non-empty"
        marks = json.dumps(body).count('"cache_control"')
        assert marks <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        self._check_messages(body["messages"])

    def _check_messages(self, messages: list[Json]) -> None:
        assert messages and messages[0]["role"] == "user", "messages: first message must use the user role"
        ids: set[str] = set()
        asked: list[str] = []
        for index, message in enumerate(messages):
            place, role, content = f"messages.{index}", message["role"], message["content"]
            assert message.keys() == {"role", "content"}, f"{place}: extra inputs"
            assert role == ("user", "assistant")[index % 2], f"{place}: roles must alternate"
            assert content, f"{place}: all messages must have non-empty content"
            results = [part["tool_use_id"] for part in content if part["type"] == "tool_result"]
            if role == "user":
                assert sorted(results) == sorted(asked), f"{place}: tool_use ids without tool_result, or the reverse"
                head = [part["type"] for part in content[: len(results)]]
                assert head == ["tool_result"] * len(results), f"{place}: tool_result blocks must come first"
            asked = [part["id"] for part in content if part["type"] == "tool_use"]
            assert not ids & set(asked) and len(asked) == len(set(asked)), f"{place}: `tool_use` ids must be unique"
            ids |= set(asked)
            for part in content:
                assert part["type"] in BY_ROLE[role], f"{place}: {part['type']} is not permitted for {role}"
                self._check_block(place, part)
            if role == "assistant":
                paused = index == len(messages) - 1
                self._check_thoughts(place, content, asked, last=index >= len(messages) - 2)
                last = content[-1]["type"]
                assert paused or last not in ("thinking", "redacted_thinking"), f"{place}: final block is `thinking`"
                assert not paused or any(p["type"] == "server_tool_use" for p in content), f"{place}: no prefill"
        assert not asked, "tool_use ids were found without tool_result blocks"

    def _check_thoughts(self, place: str, content: list[Json], asked: list[str], *, last: bool) -> None:
        for part in content:
            if part["type"] == "thinking":
                said = (part["thinking"], part["signature"])
                assert said in self._issued, f"{place}: Invalid `signature` in `thinking` block"
        wanted = self._thoughts_of.get(asked[0], []) if asked and last else []
        kept = [part for part in content if part["type"] in ("thinking", "redacted_thinking")]
        signed = [part for part in wanted if part["type"] != "thinking" or part["signature"]]
        assert [t for t in kept if t in signed] == signed, f"{place}: thinking blocks cannot be modified"

    def _check_block(self, place: str, part: Json) -> None:
        kind = part["type"]
        assert part.keys() <= FIELDS[kind], f"{place}.{kind}: {sorted(part.keys() - FIELDS[kind])} are not permitted"
        if "cache_control" in part:
            assert part["cache_control"] == {"type": "ephemeral"}
        match kind:
            case "text":
                assert part["text"].strip(), f"{place}: text content blocks must contain non-whitespace text"
            case "tool_use":
                assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", part["name"]), f"{place}: tool_use.name"
                assert re.fullmatch(r"[a-zA-Z0-9_-]+", part["id"]), f"{place}: tool_use.id"
                assert isinstance(part["input"], dict), f"{place}: tool_use.input: Input should be a valid dictionary"
            case "tool_result":
                inner = part["content"]
                assert inner or not part.get("is_error"), f"{place}: content cannot be empty if `is_error` is true"
                for piece in inner if isinstance(inner, list) else ():
                    assert piece["type"] in ("text", "image", "document"), f"{place}: {piece['type']}"
                    self._check_block(place, piece)
            case "image" | "document":
                self._check_source(place, part)

    def _check_source(self, place: str, part: Json) -> None:
        source = part["source"]
        assert source.keys() == {"type", "media_type", "data"}, f"{place}: source {sorted(source)}"
        if source["type"] == "text":
            assert part["type"] == "document" and source["media_type"] == "text/plain" and source["data"].strip()
            return
        assert source["type"] == "base64", f"{place}: source.type: {source['type']}"
        data = base64.b64decode(source["data"], validate=True)
        if part["type"] == "document":
            assert source["media_type"] == "application/pdf" and data.startswith(b"%PDF"), f"{place}: not a PDF"
        else:
            assert data.startswith(IMAGES[source["media_type"]]), f"{place}: the image appears to be of another type"
            assert len(source["data"]) <= 5 * 1024 * 1024, f"{place}: image exceeds 5 MB maximum"


def framed(event: Json) -> bytes:
    """An event as it goes over the wire."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

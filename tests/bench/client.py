"""A client for measuring: one keep-alive connection, HTTP/1.1 by hand, no work per frame beyond a search for the first.

It makes a thread, posts a message as a stream, notes when bytes came, and afterwards checks that the text is whole: a
benchmark that loses words measures nothing.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from dataclasses import dataclass
from time import perf_counter, time
from typing import Any, cast
from urllib.parse import urlsplit

_FIRST = b'"text.delta"'
_LAST_CHUNK = b"\n0\r\n\r\n"
_EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one stream took, in seconds, and how many model deltas' text it brought."""

    first_delta_s: float
    whole_s: float
    deltas: int


class Connection(asyncio.Protocol):
    """One connection to a gateway. `arrivals`: how many bytes of an answer were there at what time, in seconds since
    1970, where `noting` is set."""

    def __init__(self, noting: bool) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = bytearray()
        self.first_at: float | None = None
        self.arrivals: list[tuple[int, float]] = []
        self._noting = noting
        self._waiting: asyncio.Future[None] | None = None
        self._streaming = False
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self._streaming and self.first_at is None and b"content-length:" in self.data:
            self._streaming = False  # no stream is what was answered
        if self._streaming:
            if self._noting:
                self.arrivals.append((len(self.data), time()))
            if self.first_at is None and _FIRST in data:
                self.first_at = perf_counter()
            if self.data.endswith(_LAST_CHUNK):
                self._done()
        elif b"\r\n\r\n" in self.data:
            head, _, body = self.data.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            if len(body) >= length:
                self._done()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(f"the connection ended early: {bytes(self.data[:300])!r}"))

    def _done(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def request(self, raw: bytes, streaming: bool, limit_s: float) -> bytes:
        """Send a request; its whole answer."""
        assert self.transport is not None
        self.data.clear()
        self.arrivals.clear()
        self.first_at, self._streaming = None, streaming
        self._waiting = self._loop.create_future()
        self.transport.write(raw)
        await asyncio.wait_for(self._waiting, limit_s)
        return bytes(self.data)


class Refused(AssertionError):
    """An answer that is no success; nobody who measures expects one."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Client:
    """Requests over one connection of its own. Use as an asynchronous context."""

    def __init__(self, base_url: str, key: str, limit_s: float = 120.0, noting: bool = False) -> None:
        where = urlsplit(base_url)
        assert where.hostname is not None and where.port is not None
        self._where, self._key, self._limit_s, self._noting = (where.hostname, where.port), key, limit_s, noting
        self.connection: Connection

    async def __aenter__(self) -> Client:
        await self._connect()
        return self

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, self.connection = await loop.create_connection(lambda: Connection(self._noting), *self._where)

    async def __aexit__(self, *exc: object) -> None:
        if self.connection.transport is not None:
            self.connection.transport.close()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """A JSON answer. Raises Refused where it is not a 2xx."""
        data = await self._request(self._raw(method, path, body, "application/json"), False)
        head, _, content = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if not 200 <= status < 300:
            raise Refused(status, f"{method} {path}: {status} {content[:300]!r}")
        return json.loads(content)

    async def thread(self) -> str:
        """A new thread's id."""
        return str((await self.ask("POST", "/api/v1/chat/threads", {"agent_id": "scripted"}))["id"])

    async def say(self, thread: str, script: str) -> bytes:
        """Post a message, and take its stream to the end: the bytes of the answer. Raises Refused where there is none,
        as when nobody decided the command in time."""
        path = f"/api/v1/chat/threads/{thread}/messages"
        data = await self._request(self._raw("POST", path, {"content": script}, _EVENTS), True)
        status = int(data.split(b" ", 2)[1])
        if status != 200:
            raise Refused(status, f"POST {path}: {data[:300]!r}")
        return data

    async def settle(self, thread: str, script: str) -> None:
        """Post a message and wait for the end of its run, however long that takes."""
        await self.ask("POST", f"/api/v1/chat/threads/{thread}/messages?wait={self._limit_s:.0f}", {"content": script})

    async def _request(self, raw: bytes, streaming: bool) -> bytes:
        if self.connection.transport is None or self.connection.transport.is_closing():
            await self._connect()  # the server keeps no connection that stands idle for long
        return await self.connection.request(raw, streaming, self._limit_s)

    def _raw(self, method: str, path: str, body: object, accept: str) -> bytes:
        payload = b"" if body is None else json.dumps(body).encode()
        host, port = self._where
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        ).encode() + payload


async def stream_once(base_url: str, key: str, count: int, delay_ms: int, limit_s: float = 120.0) -> Streamed:
    """One thread, one message that plays `count` deltas at `delay_ms` and one tool call; the whole stream."""
    async with Client(base_url, key, limit_s) as client:
        thread = await client.thread()
        began = perf_counter()
        data = await client.say(thread, f'/stream {count} {delay_ms}\n/tool echo {{"n": 1}}')
        ended, first = perf_counter(), client.connection.first_at
    if text_of(data) != counted(count) or first is None:
        raise AssertionError(f"the stream is not whole: {len(text_of(data))} characters; {data[:300]!r}")
    return Streamed(first - began, ended - began, count)


async def ages_once(base_url: str, key: str, count: int, delay_ms: int, limit_s: float = 120.0) -> list[float]:
    """One thread, one message whose deltas say when the model said them: the age of each, in seconds, when the frame
    with its last character had come."""
    async with Client(base_url, key, limit_s, noting=True) as client:
        data = await client.say(await client.thread(), f"/stamp {count} {delay_ms}")
        ages = ages_of(data, client.connection.arrivals)
    if len(ages) != count:
        raise AssertionError(f"the stream is not whole: {len(ages)} of {count} deltas; {data[:300]!r}")
    return ages


def ages_of(data: bytes, arrivals: list[tuple[int, float]]) -> list[float]:
    """The ages of the stamps in a stream. `arrivals`: how many of its bytes were there, and when."""
    ages: list[float] = []
    text = ""
    for end, frame in _frames(data):
        if frame["type"] != "text.delta":
            continue
        # A frame counts as come when its last byte has.
        _, came = arrivals[bisect_left(arrivals, end, key=lambda arrival: arrival[0])]
        *stamps, text = (text + frame["delta"]).split(" ")
        ages += [came - int(stamp) / 1000 for stamp in stamps]
    return ages


def text_of(data: bytes) -> str:
    """All text of a stream."""
    return "".join(frame["delta"] for _, frame in _frames(data) if frame["type"] == "text.delta")


def counted(count: int) -> str:
    """What `/stream` says."""
    return "".join(f"{i:04d} " for i in range(count))


def _frames(data: bytes) -> list[tuple[int, dict[str, str]]]:
    """The frames of a stream, each with where its line ends."""
    found: list[tuple[int, dict[str, str]]] = []
    end = 0
    for line in data.split(b"\n"):
        end += len(line) + 1
        if line.startswith(b"data: "):
            found.append((end, json.loads(line[6:])))
    return found

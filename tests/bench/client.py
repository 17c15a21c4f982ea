"""A client for measuring: one keep-alive connection, HTTP/1.1 by hand, no work per frame beyond a search for the first.

It makes a thread, posts a message as a stream, notes when the first `text.delta` came, and afterwards checks that the
text is whole: a benchmark that loses words measures nothing.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

_FIRST = b'"text.delta"'
_LAST_CHUNK = b"\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one stream took, in seconds, and how many model deltas' text it brought."""

    first_delta_s: float
    whole_s: float
    deltas: int


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = bytearray()
        self.first_at: float | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.streaming = False
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.streaming:
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
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError(f"the connection ended early: {bytes(self.data[:300])!r}"))

    def _done(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    async def request(self, raw: bytes, streaming: bool, limit_s: float) -> bytes:
        assert self.transport is not None
        self.data.clear()
        self.first_at, self.streaming = None, streaming
        self.waiting = self._loop.create_future()
        self.transport.write(raw)
        await asyncio.wait_for(self.waiting, limit_s)
        return bytes(self.data)


def _raw(method: str, path: str, host: str, key: str, body: object, accept: str) -> bytes:
    payload = json.dumps(body).encode()
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload


async def stream_once(base_url: str, key: str, count: int, delay_ms: int, limit_s: float = 120.0) -> Streamed:
    """One thread, one message that plays `count` deltas at `delay_ms` and one tool call; the whole stream."""
    where = urlsplit(base_url)
    assert where.hostname is not None and where.port is not None
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, where.hostname, where.port)
    try:
        created = await connection.request(
            _raw("POST", "/api/v1/chat/threads", where.netloc, key, {"agent_id": "scripted"}, "application/json"),
            False,
            limit_s,
        )
        thread = json.loads(created.partition(b"\r\n\r\n")[2])["id"]
        script = f'/stream {count} {delay_ms}\n/tool echo {{"n": 1}}'
        began = perf_counter()
        data = await connection.request(
            _raw(
                "POST",
                f"/api/v1/chat/threads/{thread}/messages",
                where.netloc,
                key,
                {"content": script},
                "text/event-stream",
            ),
            True,
            limit_s,
        )
        ended = perf_counter()
        first = connection.first_at
    finally:
        if connection.transport is not None:
            connection.transport.close()
    text = "".join(frame["delta"] for frame in _frames(data) if frame["type"] == "text.delta")
    wanted = "".join(f"{i:04d} " for i in range(count))
    if text != wanted or first is None:
        raise AssertionError(f"the stream is not whole: {len(text)} of {len(wanted)} characters; {data[:300]!r}")
    return Streamed(first - began, ended - began, count)


def _frames(data: bytes) -> list[dict[str, str]]:
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]

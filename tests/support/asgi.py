"""Requests straight to an ASGI application, and its answer send by send: what a server would write, and when. Each
answer is held against the document of its contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.types import ASGIApp, Message

from tests.support.documented import check

LIMIT_S = 20.0


@dataclass
class Exchange:
    """One request and what has come of it. `held`: while it is clear, the client takes nothing (a full socket)."""

    sends: list[Message] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)
    _task: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        return int(self.sends[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sends[0]["headers"]}

    @property
    def parts(self) -> list[bytes]:
        """The bodies of the sends so far, one by one; the empty last one of a response that ended is not among them."""
        return [send["body"] for send in self.sends[1:] if send.get("body")]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def over(self) -> bool:
        """Whether the response was finished as it should be."""
        return len(self.sends) > 1 and not self.sends[-1].get("more_body", False)

    def json(self) -> Any:
        return json.loads(self.body)

    def leave(self) -> None:
        """The client goes away."""
        self._left.set()

    async def until(self, check: Any) -> None:
        """Wait until `check(self)` holds; fails after the limit."""
        async with asyncio.timeout(LIMIT_S), self._grown:
            await self._grown.wait_for(lambda: check(self))

    async def end(self) -> Exchange:
        """Wait until the application is done with the request."""
        assert self._task is not None
        async with asyncio.timeout(LIMIT_S):
            await self._task
        return self


@asynccontextmanager
async def exchange(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    body: bytes | Any = b"",
) -> AsyncIterator[Exchange]:
    """A request that is under way; what is left of it is cancelled when the block is left."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    heads = {"host": "parley", "content-length": str(len(raw))}
    if not isinstance(body, bytes):
        heads["content-type"] = "application/json"
    if key is not None:
        heads["authorization"] = f"Bearer {key}"
    heads |= {name.lower(): value for name, value in (headers or {}).items()}
    made = Exchange()
    made.held.set()
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": raw, "more_body": False}
        await made._left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await made.held.wait()
        async with made._grown:
            made.sends.append(message)
            made._grown.notify_all()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": urlencode(params or {}).encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in heads.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def run() -> None:
        await app(scope, receive, send)

    made._task = asyncio.create_task(run())
    try:
        yield made
    finally:
        made._task.cancel()
        await asyncio.gather(made._task, return_exceptions=True)
    if made.sends and not made._left.is_set():
        check(method, path, made.status, made.headers, made.body, made.over)


async def ask(app: ASGIApp, method: str, path: str, **options: Any) -> Exchange:
    """The whole exchange of a request whose response ends by itself."""
    async with exchange(app, method, path, **options) as made:
        return await made.end()

"""The door of the MCP server: `POST /mcp`, with the same keys and the same bounds as everything else.

What is wrong with a request itself (no key, no JSON, too large) is told as `threads` tells it; what is wrong with a
message in JSON-RPC the SDK tells; what goes wrong in a tool is the tool's result.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Problem, Unavailable, forbidden
from parley_gateway.http import endpoint, failure, parse_body, raw_body

if TYPE_CHECKING:
    from parley_gateway.mcp.serving import Serving

log = logging.getLogger(__name__)

PATH = "/mcp"
OURS = "something went wrong on our side; it is in the logs"
PRINCIPAL = "parley.principal"
"""Where a request's scope says who asks."""
MOST_AT_ONCE = 1000
"""How many requests are answered at the same time; each may last for minutes."""
ANSWER_S = 360.0
"""The longest that one lasts: longer than any tool, so that only a client that takes nothing comes to it."""


class McpServer:
    """The MCP server of one gateway. What it is made of is imported when it is first asked for."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._serving: Serving | None = None
        self._making = asyncio.Lock()
        self.answering = 0

    def routes(self) -> list[Route]:
        """Its one path. It keeps no sessions, so there is nothing to listen to (GET) and nothing to end (DELETE)."""
        return [endpoint(self._core, PATH, {"POST": self._post}, flat=True)]

    async def close(self) -> None:
        """End it, if it was ever asked."""
        if self._serving is not None:
            await self._serving.close()

    async def _post(self, core: Core, request: Request, who: Principal) -> Response:
        if "origin" in request.headers and "authorization" not in request.headers:
            # A key that is lent to whoever reaches this machine is not lent to every page that a browser shows there.
            raise forbidden("a request from a page in a browser needs a key of its own")
        raw = bytes(await raw_body(request, core.settings.body_mb * 1024 * 1024))
        parse_body(request.headers.get("content-type"), raw)
        if self.answering >= MOST_AT_ONCE:
            raise Unavailable("too many calls at the same time; try again")
        return _Answering(self, await self._ready(), who, raw)

    async def _ready(self) -> Serving:
        async with self._making:
            if self._serving is None or self._serving.ended:
                made = (await asyncio.to_thread(_imported))(self._core)
                await made.start()
                self._serving = made
        return self._serving


def _imported() -> type[Serving]:
    from parley_gateway.mcp.serving import Serving

    return Serving


class _Answering(Response):
    """The SDK's answer to a request whose body was read."""

    def __init__(self, server: McpServer, serving: Serving, who: Principal, raw: bytes) -> None:
        self.status_code, self.background = 200, None
        self._server, self._serving, self._who, self._raw = server, serving, who, raw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = begun = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": self._raw, "more_body": False}

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._server.answering += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._serving.answer({**scope, PRINCIPAL: self._who}, again, noted)
        except TimeoutError:
            # Its client takes nothing. The server closes the connection of a response that was not finished.
            return
        except Exception:
            log.exception("an MCP request failed")
            if not begun:
                await failure(Problem("internal", OURS, 500), flat=True)(scope, receive, send)
        finally:
            self._server.answering -= 1

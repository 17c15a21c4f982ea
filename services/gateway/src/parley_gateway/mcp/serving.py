"""The MCP server itself: what is asked in JSON-RPC, answered by `tools`. The only module of the gateway that imports
the SDK; it takes a third of a second of CPU to import, so `endpoint` does it at the first call.

Every request stands for itself: there are no sessions that a replica would have to know. What clients of both eras of
the protocol ask comes in here, those that shake hands first and those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Missing, Problem, invalid, not_found
from parley_gateway.http import idempotency_key, places, traceparent
from parley_gateway.mcp.endpoint import OURS, PRINCIPAL
from parley_gateway.mcp.tools import TOOLS, Answer, Asked, Tool, refused, schema_of

log = logging.getLogger(__name__)
# The SDK logs what clients say, word for word; what matters of it is logged here, without that.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)

IDEMPOTENCY_KEY = "parley/idempotency-key"
"""Where a call's `_meta` may have what a request of HTTP has as `Idempotency-Key`."""
_ABOUT = "Chat with the agents of this workspace. Threads keep a conversation; `do` asks whoever holds a role."


class Serving:
    """The server, over all requests of a gateway. `start` it before the first one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        server = Server(
            "parley",
            version=version("parley-gateway"),
            instructions=_ABOUT,
            on_list_tools=self._listed,
            on_call_tool=self._called,
        )
        # The gateway shows each request itself; the SDK would show it again, with messages of exceptions.
        server.middleware.clear()
        limit = core.settings.body_mb * 1024 * 1024
        self._manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=limit)
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve, until `close`: in a task of its own, which the SDK's own tasks are children of."""
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._run(ready))
        await ready.wait()

    async def _run(self, ready: asyncio.Event) -> None:
        async with self._manager.run():
            ready.set()
            await self._stop.wait()

    @property
    def ended(self) -> bool:
        """Whether it serves no more."""
        return self._running is None or self._running.done()

    async def close(self) -> None:
        """End what is being answered."""
        self._stop.set()
        if self._running is not None:
            with contextlib.suppress(Exception):
                await self._running

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; its scope says who asks."""
        await self._manager.handle_request(scope, receive, send)

    async def _listed(
        self, ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_offer(tool) for tool in TOOLS.values()])

    async def _called(
        self, ctx: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}: {', '.join(TOOLS)}")
        found = await self._outcome(ctx, tool, params.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(text=found.text)], structured_content=found.data, is_error=found.is_error
        )

    async def _outcome(self, ctx: ServerRequestContext[Any], tool: Tool, arguments: dict[str, Any]) -> Answer:
        """What came of a call; a failure in the contract's words."""
        assert ctx.request is not None
        who: Principal = ctx.request.scope[PRINCIPAL]
        told = 0

        async def progress(text: str | None) -> None:
            nonlocal told
            told += len(text) if text else 1
            await ctx.session.report_progress(told, None, text)

        try:
            key = idempotency_key(ctx.request, (ctx.meta or {}).get(IDEMPOTENCY_KEY))
            asked = Asked(self._core, who, progress, key, traceparent(ctx.request))
            return await tool.run(asked, tool.arguments.model_validate(arguments))
        except ValidationError as error:
            return refused(invalid("the arguments are not what they should be", fields=places(error)))
        except Problem as problem:
            return refused(problem)
        except Missing:
            return refused(not_found("thing"))
        except Exception:
            log.exception("the MCP tool %s failed", tool.name)
            return refused(Problem("internal", OURS, 500))


def _offer(tool: Tool) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=tool.read_only, destructive_hint=False)
    return types.Tool(name=tool.name, description=tool.description, input_schema=schema_of(tool), annotations=hints)

"""The official MCP client against a Parley: a session, and calls of which every progress is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client


@dataclass
class Client:
    """A session, and what was told of progress in the call made last: (progress, message)."""

    session: ClientSession
    told: list[tuple[float, str | None]] = field(default_factory=list)

    async def call(self, name: str, meta: dict[str, Any] | None = None, /, **arguments: Any) -> types.CallToolResult:
        """A call of a tool, with its progress."""
        self.told = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            self.told.append((progress, message))

        asked: Any = meta
        result = await self.session.call_tool(
            name, arguments, read_timeout_seconds=60, progress_callback=progress, meta=asked
        )
        assert isinstance(result, types.CallToolResult)
        return result

    async def data(self, name: str, /, **arguments: Any) -> Any:
        """What a call that succeeds gives."""
        result = await self.call(name, **arguments)
        assert not result.is_error, text_of(result)
        return result.structured_content

    async def error(self, name: str, /, **arguments: Any) -> Any:
        """What a call that fails says."""
        result = await self.call(name, **arguments)
        assert result.is_error, text_of(result)
        return result.structured_content


def text_of(result: types.CallToolResult) -> str:
    """The text of a result."""
    [part] = result.content
    assert isinstance(part, types.TextContent)
    return part.text


@asynccontextmanager
async def connected(url: str, key: str | None, *, modern: bool = False) -> AsyncIterator[Client]:
    """A session with the MCP server of the gateway at `url`. `modern`: in the newer protocol, without a handshake."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = httpx2.Timeout(30, read=120)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http,
        streamable_http_client(f"{url}/mcp", http_client=http) as (read, write),
        ClientSession(read, write) as session,
    ):
        await (session.discover() if modern else session.initialize())
        yield Client(session)

"""The HTTP side of a connection to an MCP server: a client whose failures say whether the request can have arrived.

What fails here fails one request, not the whole session with all the calls that are under way in it: it becomes a
JSON-RPC error with a code of our own, which `mcp` understands. No server can say one of these, for none knows the mark.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping

import httpx2

from parley_events.objects import MAX_OBJECT_BYTES

UNSENT, BROKEN, REFUSED = -31901, -31902, -31903
"""It cannot have arrived (no connection; a session that the server forgot); it may have; the server refused it."""
MARK = secrets.token_hex(8)
MAX_ANSWER_BYTES = MAX_OBJECT_BYTES // 3 * 4 + 1024 * 1024
"""An answer: the largest object in base64, and something around it."""


def client_of(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client that sends these headers with every request. How long it may read is the caller's to limit."""
    limits = httpx2.Timeout(10.0, read=None)
    return httpx2.AsyncClient(headers=dict(headers), timeout=limits, transport=Way(httpx2.AsyncHTTPTransport()))


class Way(httpx2.AsyncBaseTransport):
    """Requests to the server, with their failures told by codes."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _failure(request, 503, UNSENT, f"it cannot be reached ({type(error).__name__})")
        except httpx2.TransportError as error:
            return _failure(request, 502, BROKEN, f"the connection broke ({type(error).__name__})")
        status = response.status_code
        is_json = response.headers.get("content-type", "").lower().startswith("application/json")
        if request.method == "POST" and (status == 404 or (status >= 400 and not is_json)):
            await response.aclose()
            if status == 404 and "mcp-session-id" in request.headers:
                return _failure(request, status, UNSENT, "the server forgot the session")
            code = REFUSED if status < 500 else BROKEN
            return _failure(request, status, code, f"it answered with HTTP {status}")
        if is_json and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ANSWER_BYTES
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _failure(request: httpx2.Request, status: int, code: int, message: str) -> httpx2.Response:
    error = {"code": code, "message": message, "data": MARK}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    return httpx2.Response(status, content=body, headers={"content-type": "application/json"}, request=request)

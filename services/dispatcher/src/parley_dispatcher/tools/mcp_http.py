"""The HTTP side of a connection to an MCP server: a client whose failures say whether the request can have arrived.

What fails here fails one request, not the whole session with all the calls that are under way in it: it becomes a
JSON-RPC error with a code of our own, which `mcp` understands. No server can say one of these, for none knows the mark.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import httpx2

UNSENT, BROKEN, REFUSED = -31901, -31902, -31903
"""It cannot have arrived (no connection; a session that the server forgot); it may have; the server refused it."""
MARK = secrets.token_hex(8)
MAX_FILES_BYTES = 32 * 1024 * 1024
"""The files of one answer. Less than an object may have: an answer is parsed at once, and nothing else runs then."""
MAX_ANSWER_BYTES = MAX_FILES_BYTES // 3 * 4 + 1024 * 1024
"""An answer: its files in base64, and something around them."""


def client_of(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client that sends these headers with every request. How long it may read is the caller's to limit."""
    limits = httpx2.Timeout(10.0, read=None)
    # Not compressed: what a few bytes unfold to has no bound.
    sent = {"accept-encoding": "identity", **headers}
    return httpx2.AsyncClient(headers=sent, timeout=limits, transport=Way(httpx2.AsyncHTTPTransport()))


class Way(httpx2.AsyncBaseTransport):
    """Requests to the server, with their failures told by codes."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._judged(request, await self._inner.handle_async_request(request))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _failure(request, 503, UNSENT, f"it cannot be reached ({type(error).__name__})")
        except httpx2.TransportError as error:
            return _failure(request, 502, BROKEN, f"the connection broke ({type(error).__name__})")

    async def _judged(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """The response as it is, or what it means."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            return _failure(request, 502, BROKEN, "it answered compressed, although it was asked not to")
        kind = response.headers.get("content-type", "").lower()
        is_json = kind.startswith("application/json")
        if is_json and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        if request.method != "POST":
            return response
        status = response.status_code
        if status >= 400:
            body = await response.aread() if is_json and status != 404 else b""
            if _is_answer(body):
                headers = {"content-type": "application/json"}
                return httpx2.Response(status, content=body, headers=headers, request=request)
            await response.aclose()
            if status == 404 and "mcp-session-id" in request.headers:
                return _failure(request, status, UNSENT, "the server forgot the session")
            code = REFUSED if status < 500 else BROKEN
            return _failure(request, status, code, f"it answered with HTTP {status}")
        if status < 300 and _wants_answer(request) and not (is_json or kind.startswith("text/event-stream")):
            await response.aclose()
            return _failure(request, 502, BROKEN, f"it answered with HTTP {status}, but with no message")
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


def _wants_answer(request: httpx2.Request) -> bool:
    """Whether it carries a request, which must be answered, and not a notification."""
    with suppress(ValueError):
        message = json.loads(request.content)
        return isinstance(message, dict) and "id" in message and "method" in message
    return False


def _is_answer(body: bytes) -> bool:
    """Whether it is the server's own answer, and not that of something on the way to it."""
    with suppress(ValueError):
        message = json.loads(body)
        return isinstance(message, dict) and message.get("jsonrpc") == "2.0" and "error" in message
    return False


def _failure(request: httpx2.Request, status: int, code: int, message: str) -> httpx2.Response:
    error = {"code": code, "message": message, "data": MARK}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    return httpx2.Response(status, content=body, headers={"content-type": "application/json"}, request=request)

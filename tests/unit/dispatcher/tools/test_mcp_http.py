"""What an HTTP failure says of a request: that it cannot have arrived, that it may have, or that it was refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from parley_dispatcher.tools import mcp_http
from parley_dispatcher.tools.mcp_http import BROKEN, MARK, REFUSED, UNSENT, Way

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
TOLD = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
RPC_ERROR = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "bad"}}
JSON = {"content-type": "application/json"}


async def answer(
    respond: Callable[[httpx2.Request], httpx2.Response], message: Any = CALL, session: str | None = None
) -> httpx2.Response:
    headers = {"mcp-session-id": session} if session else {}
    request = httpx2.Request("POST", "http://h/mcp", json=message, headers=headers)
    response = await Way(httpx2.MockTransport(respond)).handle_async_request(request)
    await response.aread()
    return response


def code_of(response: httpx2.Response) -> int | None:
    """The code that was put on it on the way; None for what the server said itself."""
    try:
        error = json.loads(response.content)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return int(error["code"]) if error.get("data") == MARK else None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx2.ConnectError("no"), UNSENT),
        (httpx2.ConnectTimeout("no"), UNSENT),
        (httpx2.PoolTimeout("no"), UNSENT),
        (httpx2.ReadError("no"), BROKEN),
        (httpx2.WriteError("no"), BROKEN),
        (httpx2.RemoteProtocolError("no"), BROKEN),
        (httpx2.ReadTimeout("no"), BROKEN),
    ],
)
async def test_a_connection_that_was_never_made_is_told_from_one_that_broke(error: Exception, code: int) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise error

    assert code_of(await answer(fail)) == code


@pytest.mark.parametrize(
    ("status", "headers", "body", "session", "code"),
    [
        (401, {}, b"no", None, REFUSED),
        (401, JSON, b'{"detail": "no"}', None, REFUSED),
        (404, {}, b"", None, REFUSED),
        (404, JSON, json.dumps(RPC_ERROR).encode(), "s", UNSENT),
        (500, {}, b"oops", "s", BROKEN),
        (502, JSON, b'{"message": "bad gateway"}', "s", BROKEN),
        (503, JSON, b"[]", None, BROKEN),
        (202, {}, b"", None, BROKEN),
        (200, {**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}"), None, BROKEN),
        (200, {"content-type": "text/html"}, b"<p>", None, BROKEN),
        (400, JSON, json.dumps(RPC_ERROR).encode(), None, None),
        (500, JSON, json.dumps(RPC_ERROR).encode(), None, None),
        (200, JSON, b'{"jsonrpc": "2.0", "id": 1, "result": {}}', None, None),
        (200, {"content-type": "text/event-stream"}, b"data: x\n\n", None, None),
    ],
)
async def test_a_status_says_whether_the_server_may_have_done_it(
    status: int, headers: dict[str, str], body: bytes, session: str | None, code: int | None
) -> None:
    response = await answer(lambda _: httpx2.Response(status, headers=headers, content=body), session=session)
    assert code_of(response) == code
    if code is None:
        assert (response.status_code, response.content) == (status, body)


async def test_a_notification_needs_no_answer() -> None:
    assert (await answer(lambda _: httpx2.Response(202), TOLD)).status_code == 202


async def test_an_answer_beyond_all_bounds_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_http, "MAX_ANSWER_BYTES", 100)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 60

    with pytest.raises(httpx2.ReadError, match="more than 100 bytes"):
        await answer(lambda _: httpx2.Response(200, headers=JSON, content=endless()))

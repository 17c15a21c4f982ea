"""What comes over a socket that is no tidy request: paths as bytes, bodies in chunks and cut short, and no HTTP at all.
Each is answered in the contract's shape, or its connection ends; nothing is half-accepted, nothing hangs."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from parley_events.commands import PostMessage
from tests.unit.gateway.world import World, say

LIMIT_S = 10.0
CHAT = b"/api/v1/chat"
NESTED = (b"/api/org/chat", b"/api/v3/organizations/default/ai", b"/api/agents", b"/api/v1/agents", b"/nothing")


async def spoken(here: World, raw: bytes, *, leave: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes, and read to the end of the connection. `leave`: send no more after them."""
    address = urlsplit(here.gateways[0][1])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(raw)
        await writer.drain()
        if leave:
            writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return (int(first.split()[1]) if first else 0), fields, body


def request(here: World, method: bytes, target: bytes, *heads: bytes, body: bytes = b"") -> bytes:
    key = b"Authorization: Bearer " + here.key.encode()
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: parley", b"Connection: close", key, *heads]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def shape(body: bytes) -> tuple[bool, str]:
    """Whether an error is flat, and its code; fails when it is none of ours."""
    told: dict[str, Any] = json.loads(body)
    if isinstance(told["error"], str):
        assert set(told) == {"error", "message"}
        return True, told["error"]
    assert set(told) == {"error"} and set(told["error"]) == {"code", "message"}
    return False, told["error"]["code"]


@pytest.mark.parametrize(
    "odd", [b"%2F", b"%00", b"%ff", b"%", b"%zz", b"a%2fb", b"..", b"%2e%2e", b"x" * 20_000, b"%C3%28"]
)
async def test_a_path_of_odd_bytes_is_refused_in_the_contracts_shape(here: World, odd: bytes) -> None:
    for base, name in ((CHAT, b"/threads/"), (b"/api/org/chat", b"/runs/"), (b"/api/v1", b"/agents/")):
        status, heads, body = await spoken(here, request(here, b"GET", base + name + odd))
        assert (status, heads["content-type"]) == (404, "application/json"), (base, status, body)
        assert shape(body) == (base == CHAT, "not_found")


async def test_what_no_contract_serves_is_refused_in_the_shape_of_the_one_it_is_near(here: World) -> None:
    for path in (CHAT, CHAT + b"/nothing", b"/api/v1/knowledge/a/b", b"/mcp/x"):
        for method, code in ((b"GET", "not_found"), (b"PROPFIND", "not_found")):
            _, _, body = await spoken(here, request(here, method, path))
            assert shape(body) == (True, code), path
    for path in NESTED:
        _, _, body = await spoken(here, request(here, b"GET", path + b"/x/y/z"))
        assert shape(body) == (False, "not_found"), path


async def test_a_query_of_odd_bytes_is_no_error_of_ours(here: World) -> None:
    for query in (b"limit=%ff", b"limit=1&limit=2", b"limit", b"&&&=&", b"x=" + b"y" * 60_000, b"cursor=%zz", b"=%00"):
        status, _, body = await spoken(here, request(here, b"GET", CHAT + b"/threads?" + query))
        assert status in (200, 400), (query[:20], status, body)


async def test_a_head_request_has_no_body_and_says_what_is_served(here: World) -> None:
    status, heads, body = await spoken(here, request(here, b"HEAD", CHAT + b"/threads"))
    assert (status, body) == (405, b"")
    assert heads["allow"] == "get, post"
    status, heads, body = await spoken(here, request(here, b"OPTIONS", CHAT + b"/threads"))
    assert (status, shape(body)) == (405, (True, "method_not_allowed"))


async def test_a_body_in_chunks_without_a_length_is_taken(here: World) -> None:
    here.dispatcher.play = say("ok")
    raw = json.dumps({"message": "hello"}).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, raw[at : at + 1]) for at in range(len(raw))) + b"0\r\n\r\n"
    heads = (b"Transfer-Encoding: chunked", b"Content-Type: application/json")
    target = b"/api/agents/scripted/chat"
    status, _, body = await spoken(here, request(here, b"POST", target, *heads, body=chunks))
    assert status == 200, body
    said = [command.body for command in here.dispatcher.heard if isinstance(command.body, PostMessage)]
    assert [body.text for body in said] == ["hello"]


async def test_a_body_that_is_cut_is_not_half_accepted(here: World) -> None:
    heard = len(here.dispatcher.heard)
    target = b"/api/agents/scripted/chat"
    kind = b"Content-Type: application/json"
    chunked = request(here, b"POST", target, b"Transfer-Encoding: chunked", kind, body=b'10\r\n{"message": "hel')
    sized = request(here, b"POST", target, b"Content-Length: 100", kind, body=b'{"message": "hello"}')
    for raw in (chunked, sized):
        await spoken(here, raw, leave=True)
    answered, _, _ = await spoken(here, request(here, b"GET", target))
    assert answered == 200
    assert len(here.dispatcher.heard) == heard, "nothing of it reached the log"


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /api/org/chat/message HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /api/org/chat/message HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /api/org/chat/message HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=str,
)
async def test_what_is_no_http_is_refused_in_our_shape_and_the_connection_ends(here: World, raw: bytes) -> None:
    status, heads, body = await spoken(here, raw)
    assert (status, heads["content-type"], shape(body)[1]) == (400, "application/json", "invalid_request")

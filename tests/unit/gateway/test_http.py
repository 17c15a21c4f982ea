"""Requests in: bodies, queries and headers, each bounded, each refused in one clear way; and failures that end as
answers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from parley_gateway import http
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Missing, Problem
from parley_gateway.http import (
    MAX_DEPTH,
    Wire,
    body_of,
    check_text,
    endpoint,
    idempotency_key,
    parse_body,
    query,
    query_flag,
    query_limit,
    query_wait,
    resume_point,
    wants,
)
from tests.support.asgi import ask
from tests.unit.gateway.world import World, world


def request(headers: dict[str, str] | None = None, query_string: str = "", parts: tuple[bytes, ...] = ()) -> Request:
    """A request whose body comes in these parts."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    heads = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query_string.encode(), "headers": heads}
    return Request(scope, receive)


def refused(problem: pytest.ExceptionInfo[Problem]) -> tuple[int, str]:
    return problem.value.status, problem.value.code


@pytest.mark.parametrize("kind", [None, "application/json", "APPLICATION/JSON; charset=UTF-8", "application/ld+json"])
def test_json_is_taken_under_its_names_or_none(kind: str | None) -> None:
    assert parse_body(kind, b'{"a": "\xc3\xa9"}') == {"a": "é"}
    assert parse_body(kind, b" \n") == parse_body(kind, b"") == {}


def test_no_body_needs_no_type() -> None:
    assert parse_body("text/plain", b"") == {}


@pytest.mark.parametrize("kind", ["text/plain", "", "application/json;charset=latin-1", "json", "application/xml"])
def test_another_type_is_415(kind: str) -> None:
    with pytest.raises(Problem) as problem:
        parse_body(kind, b"{}")
    assert refused(problem) == (415, "unsupported_media_type")


def test_nesting_is_taken_up_to_its_limit_wherever_it_stands() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert parse_body(None, nested(MAX_DEPTH))
    with pytest.raises(Problem) as problem:
        parse_body(None, nested(MAX_DEPTH + 1))
    assert refused(problem) == (400, "invalid_json")
    wide = orjson.dumps({"a": [{"b": [n]} for n in range(1000)], "text": "{[" * 100})
    assert len(parse_body(None, wide)["a"]) == 1000, "many brackets are not deep ones"


def test_nul_is_refused_in_names_and_texts_at_any_depth_and_told_from_its_look() -> None:
    for raw in (b'{"\\u0000": 1}', b'{"a": {"b": ["x\\u0000"]}}'):
        with pytest.raises(Problem) as problem:
            parse_body(None, raw)
        assert refused(problem) == (400, "invalid_text")
    assert parse_body(None, b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


class Asked(Wire):
    name: str
    inner: list[int] = []  # noqa: RUF012


async def test_a_body_is_read_up_to_its_limit_however_it_comes() -> None:
    whole = b'{"name": "x"}'
    assert (await body_of(request(parts=(whole[:4], whole[4:])), Asked, 1)).name == "x"
    for headers, parts in (
        ({}, (b"x" * 1024 * 1024, b"y")),
        ({"Content-Length": str(1024 * 1024 + 1)}, ()),
        ({"Content-Length": "nonsense"}, (b"x" * (1024 * 1024 + 1),)),
    ):
        with pytest.raises(Problem) as problem:
            await body_of(request(headers, parts=parts), Asked, 1)
        assert refused(problem) == (413, "too_large")
        assert problem.value.headers["Connection"] == "close", "what is left of it is not read"


async def test_a_wrong_field_is_named_without_what_stood_in_it() -> None:
    with pytest.raises(Problem) as problem:
        await body_of(request(parts=(b'{"name": 7, "inner": [1, "secret"]}',)), Asked, 1)
    assert problem.value.details is not None
    assert [field["field"] for field in problem.value.details["fields"]] == ["name", "inner.1"]
    assert b"secret" not in problem.value.body(True)


async def test_many_wrong_fields_make_no_long_answer() -> None:
    with pytest.raises(Problem) as problem:
        await body_of(request(parts=(orjson.dumps({"name": "x", "inner": ["y"] * 5000}),)), Asked, 1)
    assert len(problem.value.body(True)) < 4000


def test_a_text_has_at_most_a_mebibyte_of_utf_8() -> None:
    for text in ("x" * 1024 * 1024, "é" * (512 * 1024), "😀" * (256 * 1024)):
        assert check_text(text, "content") is text
        with pytest.raises(Problem) as problem:
            check_text(text + "x", "content")
        assert refused(problem) == (413, "too_large")
    with pytest.raises(Problem) as problem:
        check_text(" \n", "content")
    assert refused(problem) == (400, "invalid_message")


def test_queries_are_what_they_should_be_or_400() -> None:
    assert query(request(query_string="a=1&a=2"), "a") == "2"
    assert query(request(), "a") is None
    with pytest.raises(Problem):
        query(request(query_string="a=%00"), "a")
    assert query_limit(request()) == 50
    assert query_limit(request(query_string="limit=200")) == 200
    for text, flag in (("true", True), ("1", True), ("FALSE", False), ("0", False)):
        assert query_flag(request(query_string=f"f={text}"), "f") is flag
    assert query_flag(request(), "f") is None
    for text in ("", "yes", "2"):
        with pytest.raises(Problem):
            query_flag(request(query_string=f"f={text}"), "f")
    for text, seconds in (("", 30.0), ("0", 0.0), ("1.5", 1.5), (".5", 0.5), ("301", 300.0), ("9" * 20, 300.0)):
        assert query_wait(request(query_string=f"wait={text}"), 30.0) == seconds
    assert query_wait(request(), 30.0) is None


def test_headers_are_read_as_they_should_be() -> None:
    assert idempotency_key(request()) is None
    for good in ("k", "x" * 255, "a b", "~!"):
        assert idempotency_key(request({"Idempotency-Key": good})) == good
    for bad in ("", " k", "k ", "x" * 256, "é", "a\tb"):
        with pytest.raises(Problem) as problem:
            idempotency_key(request({"Idempotency-Key": bad}))
        assert refused(problem) == (400, "bad_idempotency_key")
    assert resume_point(request({"Last-Event-ID": "3"}, "after=2")) == "3"
    assert resume_point(request(query_string="after=2")) == "2"
    assert resume_point(request({"Last-Event-ID": ""}, "after=")) is None
    accept = request({"Accept": "text/html, TEXT/event-stream;q=0.9"})
    assert wants(accept, "text/event-stream") and not wants(accept, "application/json")
    assert not wants(request({"Accept": "*/*"}), "text/event-stream"), "by name"


@pytest.mark.parametrize("flat", [True, False])
async def test_whatever_a_handler_raises_is_an_answer(flat: bool) -> None:
    raised: list[BaseException] = [
        Problem("teapot", "short and stout", 418, {"spout": 1}, {"X-Tea": "yes"}),
        Missing("/gone"),
        ZeroDivisionError("a secret"),
    ]

    async def handler(core: Any, asked: Request, who: Any) -> Response:
        raise raised[0]

    async with world(sockets=False) as here:
        app = FastAPI(openapi_url=None)
        app.router.routes.append(endpoint(here.core, "/x", {"POST": handler}, flat=flat))
        found = await ask(app, "POST", "/x", key=here.key)
        assert (found.status, found.headers["x-tea"]) == (418, "yes")
        assert found.json() == (
            {"error": "teapot", "message": "short and stout", "details": {"spout": 1}}
            if flat
            else {"error": {"code": "teapot", "message": "short and stout", "details": {"spout": 1}}}
        )
        del raised[0]
        assert (await ask(app, "POST", "/x", key=here.key)).status == 404
        del raised[0]
        broken = await ask(app, "POST", "/x", key=here.key)
        assert broken.status == 500 and b"secret" not in broken.body
        wrong = await ask(app, "GET", "/x")
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST"), "before anyone asks for a key"


async def test_large_bodies_at_the_same_time_are_refused_until_the_others_are_done() -> None:
    reading, done = asyncio.Event(), asyncio.Event()

    async def handler(core: Core, request: Request, principal: Principal) -> Response:
        await body_of(request, Asked, 3)
        reading.set()
        await done.wait()
        return Response(status_code=204)

    large = orjson.dumps({"name": "x" * 2 * 1024 * 1024})
    async with world(sockets=False, uploads_mb=3) as here:
        app = FastAPI(openapi_url=None)
        app.router.routes.append(endpoint(here.core, "/x", {"POST": handler}, flat=True))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(ask(app, "POST", "/x", key=here.key, body=large))
            await reading.wait()
            second = await ask(app, "POST", "/x", key=here.key, body=large)
            assert (second.status, second.headers["connection"]) == (503, "close")
            assert "retry-after" in second.headers
            small = tasks.create_task(ask(app, "POST", "/x", key=here.key, body=b'{"name": "x"}'))
            done.set()
        assert (first.result().status, small.result().status) == (204, 204)
        assert (await ask(app, "POST", "/x", key=here.key, body=large)).status == 204
        assert here.core.uploads.taken == 0


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.02)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(Problem) as problem:
        await body_of(Request(scope, receive), Asked, 1)
    assert refused(problem) == (408, "request_timeout")
    assert problem.value.headers["Connection"] == "close"


async def test_before_the_log_is_open_requests_are_503() -> None:
    async with world(sockets=False) as here:
        await _unopened(here)


async def _unopened(here: World) -> None:
    here.core.hub._next.clear()
    refused = await ask(here.gateways[0][0], "GET", "/api/v1/chat/threads", key=here.key)
    assert refused.status == 503 and refused.headers["retry-after"]


def test_wire_models_are_strict_and_tolerant() -> None:
    assert issubclass(Asked, BaseModel)
    assert Asked.model_validate({"name": "x", "unknown": 1}).name == "x"
    with pytest.raises(ValueError, match="name"):
        Asked.model_validate({"name": 1})

"""Requests in, answers out: what all dialects need of HTTP, with every input bounded.

`endpoint` makes one route of a path's methods: it finds out who asks, calls the handler, and turns every failure into
the dialect's one error shape. A body is read up to a limit, must be a JSON object, and holds no NUL, no lone surrogate
and no absurd nesting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from parley_events import tracing
from parley_events.body import Json, json_bytes
from parley_events.clock import parse_rfc3339
from parley_events.telemetry import about
from parley_gateway import answered
from parley_gateway.auth import Principal
from parley_gateway.bodies import LONG, Long, Parsed, parse_large
from parley_gateway.errors import Missing, Problem, Unavailable, invalid, not_found
from parley_gateway.uploads import Held

if TYPE_CHECKING:
    from parley_gateway.core import Core

log = logging.getLogger(__name__)

Handler = Callable[["Core", Request, Principal], Awaitable[Response]]
Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 64
MAX_TEXT_BYTES = 1024 * 1024
MAX_DATA_BYTES = 64 * 1024
BODY_S = 120.0
"""How long a body may take to come."""
_HELD = "parley.held"
_LIMITS = "parley.limits"
_NOTED = "parley.noted"
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}")


class Wire(BaseModel):
    """The base of what clients send: types are exact, unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def endpoint(core: Core, path: str, methods: Mapping[str, Handler], *, flat: bool) -> Route:
    """One path with all its methods. `flat`: the error shape (see `Problem.body`)."""

    async def serve(request: Request) -> Response:
        ids = {name: request.path_params.get(name) for name in ("thread_id", "run_id")}
        held = request.scope[_HELD] = core.uploads.begin()
        try:
            with about(**ids), core.instruments.request(request, path) as told:
                return told(_headed(await respond(request), request, core))
        finally:
            held.close()

    async def respond(request: Request) -> Response:
        try:
            handler = methods.get(request.method)
            if handler is None:
                raise Problem(
                    "method_not_allowed",
                    f"{request.method} is not served here",
                    405,
                    headers={"Allow": ", ".join(sorted(methods))},
                )
            if core.hub.draining:
                raise Unavailable("this gateway is stopping; try again", 1)
            if core.hub.log is None:
                raise Unavailable("this gateway is starting: the log or history does not answer yet")
            who = await core.auth.principal(request.headers.get("authorization"))
            request.scope[_LIMITS] = core.limits.count(who)
            request.scope[_NOTED] = answered.begin()
            return await handler(core, request, who)
        except Problem as problem:
            return failure(problem, flat)
        except Missing:
            # It was there a moment ago.
            return failure(not_found("thing"), flat)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("%s %s failed", request.method, path)
            return failure(Problem("internal", "something went wrong on our side; it is in the logs", 500), flat)

    route = Route(path, serve)
    # Whatever the method: what is not served is refused here, in the dialect's words.
    route.methods = None
    return route


def _headed(response: Response, request: Request, core: Core) -> Response:
    """The answer, with what is said of a limited key's rate, and of what it is as new as."""
    said: dict[str, str] = dict(request.scope.get(_LIMITS, {}))
    noted: answered.Noted | None = request.scope.get(_NOTED)
    if noted is not None and response.status_code < 400:
        position = noted.text(core.hub.end_of)
        if position is not None:
            said[answered.HEADER] = position
    if not said:
        return response
    heads = [(name.lower().encode(), value.encode()) for name, value in said.items()]
    if not hasattr(response, "raw_headers"):
        return _Headed(response, heads)
    response.raw_headers.extend(heads)
    return response


class _Headed(Response):
    """An answer that makes its head itself, with more in it."""

    def __init__(self, answer: Response, heads: list[tuple[bytes, bytes]]) -> None:
        self.status_code, self.background = answer.status_code, None
        self._answer, self._heads = answer, heads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._heads]}
            await send(message)

        await self._answer(scope, receive, headed)


def failure(problem: Problem, flat: bool) -> Response:
    """A problem as an answer."""
    return Response(problem.body(flat), problem.status, problem.headers, "application/json")


def answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, dict(headers or {}), "application/json")


async def body_of(request: Request, model: type[Model], limit_mb: int, files_mb: int = 0) -> Model:
    """The request's body as the model; a Problem 400, 413 or 415. `files_mb`: how much more it may have in contents
    in base64, its own or of its attachments."""
    limit = limit_mb * 1024 * 1024
    raw = await raw_body(request, limit + files_mb * 1024 * 1024)
    try:
        data = parse_body(request.headers.get("content-type"), raw)
    except Problem:
        if len(raw) > limit:  # nothing in it says that attachments are what makes it so large
            raise _too_large(limit) from None
        raise
    if len(raw) > limit and len(raw) - _files_size(data) > limit:
        raise _too_large(limit)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ill_formed(error, "the request is not what it should be") from None


def _files_size(data: Mapping[str, Any]) -> int:
    """The characters of the contents that a body brings along."""
    size = 0
    files = data.get("attachments")
    for file in (data, *(files if type(files) is list else ())):
        content = file.get("content_base64") if type(file) is dict else None
        if isinstance(content, Long):
            size += len(content.view)
        elif isinstance(content, str):
            size += len(content)
    return size


def ill_formed(error: ValidationError, message: str) -> Problem:
    """What was sent does not have its form."""
    return invalid(message, fields=places(error))


def places(error: ValidationError) -> list[dict[str, str]]:
    """What is wrong where; nothing of what was given."""
    return [
        {"field": ".".join(str(part) for part in problem["loc"]) or "body", "problem": problem["msg"]}
        for problem in error.errors(include_input=False, include_url=False, include_context=False)[:20]
    ]


async def raw_body(request: Request, limit: int) -> bytearray:
    """The bytes of a body, up to a limit; a Problem 408, 413 or 415."""
    encoding = request.headers.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise Problem("unsupported_media_type", "send the body as it is, without Content-Encoding", 415)
    length = request.headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    held: Held | None = request.scope.get(_HELD)
    raw = bytearray()  # grows in place: joining parts would copy a large body at once
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                if len(raw) + len(part) > limit:
                    raise _too_large(limit)
                if held is not None:
                    held.grow(len(raw) + len(part))
                raw += part
    except TimeoutError:
        message = f"the body did not come within {BODY_S:g} s"
        raise Problem("request_timeout", message, 408, headers={"Connection": "close"}) from None
    return raw


def _too_large(limit: int) -> Problem:
    return Problem(
        "too_large", f"the body may have at most {limit} bytes", 413, {"limit": limit}, {"Connection": "close"}
    )


def parse_body(content_type: str | None, raw: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in a body (none at all: an empty one)."""
    if len(raw) < LONG and not raw.strip():
        return {}
    if content_type is not None:
        kind, _, options = content_type.partition(";")
        kind = kind.strip().lower()
        charset = re.search(r"charset\s*=\s*\"?([\w-]+)", options, re.IGNORECASE)
        if not (kind == "application/json" or kind.endswith("+json")) or (
            charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii")
        ):
            raise Problem("unsupported_media_type", "send JSON in UTF-8: Content-Type: application/json", 415)
    try:
        data, seen = parse_large(raw) if len(raw) > LONG else Parsed(orjson.loads(raw), raw)
    except ValueError:
        raise invalid("the body is not JSON in UTF-8", "invalid_json") from None
    if not isinstance(data, dict):
        raise invalid("the body must be a JSON object", "invalid_json")
    if b"\\u0000" in seen or seen.count(b"{") + seen.count(b"[") > MAX_DEPTH:
        _check(data, 1)
    return data


def _check(value: Any, depth: int) -> None:
    """Refuse NUL and absurd nesting; called only where the raw bytes make one of them possible."""
    if depth > MAX_DEPTH:
        raise invalid(f"the body is nested more than {MAX_DEPTH} levels deep", "invalid_json")
    if isinstance(value, str):
        if "\x00" in value:
            raise invalid("the character U+0000 cannot stand in a text", "invalid_text")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name, depth)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def check_text(text: str, name: str, *, may_be_empty: bool = False) -> str:
    """A message's text: not empty, at most 1 MiB."""
    if not may_be_empty and not text.strip():
        raise invalid(f"{name} is empty", "invalid_message")
    if len(text) > MAX_TEXT_BYTES or (len(text) * 4 > MAX_TEXT_BYTES and len(text.encode()) > MAX_TEXT_BYTES):
        raise Problem("too_large", f"{name} may have at most 1 MiB", 413, {"limit": MAX_TEXT_BYTES})
    return text


def check_data(value: Json | None, name: str) -> Json | None:
    """What is given to the model as data beside a message: at most 64 KiB of JSON."""
    if value is not None and len(json_bytes(value)) > MAX_DATA_BYTES:
        raise Problem("too_large", f"{name} may have at most 64 KiB of JSON", 413, {"limit": MAX_DATA_BYTES})
    return value


def query(request: Request, name: str) -> str | None:
    """A query parameter, or None."""
    text = request.query_params.get(name)
    if text is not None and "\x00" in text:
        raise invalid(f"the character U+0000 cannot stand in {name}", "invalid_text")
    return text


def query_limit(request: Request, default: int = 50, most: int = 200) -> int:
    """`?limit=`: a number from 1 to `most`."""
    text = query(request, "limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= most):
        raise invalid(f"limit must be a number from 1 to {most}", "bad_limit")
    return int(text)


def query_number(request: Request, name: str, low: int, high: int) -> int | None:
    """A query parameter that is a number."""
    text = query(request, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise invalid(f"{name} must be a number from {low} to {high}")
    return int(text)


def query_flag(request: Request, name: str) -> bool | None:
    """A query parameter that is true or false."""
    text = query(request, name)
    if text is None:
        return None
    if text.lower() not in ("true", "false", "1", "0"):
        raise invalid(f"{name} must be true or false")
    return text.lower() in ("true", "1")


def query_wait(request: Request, default: float) -> float | None:
    """`?wait=` in seconds: None when it is not given, `default` when without a number, at most 300."""
    text = query(request, "wait")
    if text is None:
        return None
    if text == "":
        return default
    if _SECONDS.fullmatch(text) is None:
        raise invalid("wait must be a number of seconds, 0 or more", "bad_wait")
    return min(float(text), 300.0)


def as_of(request: Request) -> dict[str, int] | None:
    """`?as_of=`: a seq of the thread, or a time, as history takes it."""
    text = query(request, "as_of")
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        if len(text) <= 15 and int(text) > 0:
            return {"as_of_seq": int(text)}
    elif _TIME.fullmatch(text):
        with contextlib.suppress(ValueError, OverflowError):
            return {"as_of_ms": max(0, parse_rfc3339(text))}
    raise invalid("as_of must be a seq from 1 on, or a time as 2026-04-20T14:30:00Z", "bad_as_of")


def min_position(request: Request) -> str | None:
    return query(request, "min_position")


def idempotency_key(request: Request, given: object = None) -> str | None:
    """The `Idempotency-Key` header, or what was given in its place; a Problem 400 when it is not 1 to 255 printable
    characters."""
    text = request.headers.get("idempotency-key") if given is None else given
    if text is None:
        return None
    if not isinstance(text, str) or _KEY.fullmatch(text) is None:
        raise invalid("Idempotency-Key must be 1 to 255 printable ASCII characters", "bad_idempotency_key")
    return text


def traceparent(request: Request) -> str | None:
    """The W3C trace context that the request came with."""
    return tracing.traceparent(request.headers.get("traceparent"))


def resume_point(request: Request) -> str | None:
    """The cursor from which a stream is to go on: `Last-Event-ID`, else `?after=`."""
    return request.headers.get("last-event-id") or query(request, "after") or None


def wants(request: Request, media_type: str) -> bool:
    """Whether the client asks for this type by name."""
    return any(
        part.partition(";")[0].strip().lower() == media_type for part in request.headers.get("accept", "").split(",")
    )


REPLAYED = {"Idempotency-Replayed": "true"}

"""Bad input, by table: every endpoint of every contract × every row that applies to it. Each is refused in the
contract's own shape and words with a status that the row names; nothing is a 500, and nothing comes of it.

The endpoints are those of the OpenAPI documents, so that a new one is in the table as soon as it is served. What is
foreign, and what a key may not do, is in `test_rights`; a key that is used again in `test_idempotency`; what
no ASGI server hands on in `tests/unit/gateway/test_sockets`.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from parley_gateway.administration import wire as administration_wire
from parley_gateway.feed.vector import Vector
from parley_gateway.openapi.contracts import CONTRACTS, documents
from parley_gateway.openapi.operation import Contract, Operation
from tests.contract.dialects.test_rights import DEEDS, OF_A_TEAM, Deed, Scene, parked_once, staged
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import PARTITIONS, WORKSPACE, world

MEBI = 1024 * 1024
NOBODY = "99999999-2222-4333-8444-555555555555"
JSON_TYPES: dict[str, Any] = {
    "integer": 7,
    "string": "x",
    "array": [],
    "object": {},
    "boolean": True,
    "null": None,
    "number": 1.5,
}
"""A value of each type of JSON."""


class Bad(NamedTuple):
    """A request that is refused: what is wrong with it, how it is made from the good one, and with what it is refused.
    `code` None: the document's list of codes alone judges."""

    row: str
    status: int
    code: str | None
    path: str
    options: dict[str, Any]


DEED: dict[tuple[str, str], Deed] = {deed.template(): deed for deed in DEEDS}
"""A good request for every operation."""
HEAD = {"content-type": "application/json"}
BODIES: tuple[tuple[str, bytes, dict[str, str], int, str], ...] = (
    ("cut JSON", b"{", HEAD, 400, "invalid_json"),
    ("no JSON", b"hi", HEAD, 400, "invalid_json"),
    ("a list", b"[]", HEAD, 400, "invalid_json"),
    ("null", b"null", HEAD, 400, "invalid_json"),
    ("a string", b'"hi"', HEAD, 400, "invalid_json"),
    ("a number", b"1", HEAD, 400, "invalid_json"),
    ("two values", b"{} {}", HEAD, 400, "invalid_json"),
    ("broken UTF-8", b"\xff\xfe", HEAD, 400, "invalid_json"),
    ("broken UTF-8 in a text", b'{"x":"\xc3\x28"}', HEAD, 400, "invalid_json"),
    ("a surrogate in UTF-8", b'{"x":"\xed\xa0\x80"}', HEAD, 400, "invalid_json"),
    ("a lone surrogate", b'{"x":"\\ud800"}', HEAD, 400, "invalid_json"),
    ("a byte order mark", b"\xef\xbb\xbf{}", HEAD, 400, "invalid_json"),
    ("UTF-16", '{"x":1}'.encode("utf-16"), HEAD, 400, "invalid_json"),
    ("NaN", b'{"x": NaN}', HEAD, 400, "invalid_json"),
    ("infinity", b'{"x": -Infinity}', HEAD, 400, "invalid_json"),
    ("nested 100 deep", b'{"x":' * 100 + b"1" + b"}" * 100, HEAD, 400, "invalid_json"),
    ("nested 100,000 deep", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", HEAD, 400, "invalid_json"),
    ("NUL", b'{"x":"a\\u0000b"}', HEAD, 400, "invalid_text"),
    ("NUL in a name", b'{"a\\u0000b":1}', HEAD, 400, "invalid_text"),
    ("plain text", b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ("a form", b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ("a multipart form", b"{}", {"content-type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
    ("another charset", b"{}", {"content-type": "application/json; charset=utf-16"}, 415, "unsupported_media_type"),
    ("compressed", gzip.compress(b"{}"), HEAD | {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ("said to be huge", b"", HEAD | {"content-length": str(10**12)}, 413, "too_large"),
)
"""What cannot be a body: what it is, its bytes, its headers, and the refusal."""
TEXTS: tuple[tuple[str, str, int, str], ...] = (
    ("empty", "", 400, "invalid_message"),
    ("blank", " \n\t", 400, "invalid_message"),
    ("2 MiB", "x" * (2 * MEBI), 413, "too_large"),
)
"""What cannot be a message."""
MESSAGES = {"message", "content"}
"""The fields that hold one."""
FILES: tuple[tuple[str, Any, int, str], ...] = (
    ("no base64", [{"name": "a", "content_base64": "%%%"}], 400, "invalid_attachment"),
    ("cut base64", [{"name": "a", "content_base64": "aGVsbG8"}], 400, "invalid_attachment"),
    ("empty", [{"name": "a", "content_base64": ""}], 400, "invalid_attachment"),
    ("a path", [{"name": "../a", "content_base64": "aGk="}], 400, "invalid_attachment"),
    ("no name", [{"content_base64": "aGk="}], 400, "invalid_request"),
    ("no content", [{"name": "a"}], 400, "invalid_request"),
    ("no list", "a", 400, "invalid_request"),
    (
        "26 MiB",
        [{"name": n, "content_base64": base64.b64encode(bytes(13 * MEBI)).decode()} for n in "ab"],
        413,
        "too_large",
    ),
)
"""What cannot be attachments."""
DOCUMENTS: tuple[tuple[str, str, int, str], ...] = (
    ("no base64", "%%%", 400, "invalid_document"),
    ("cut base64", "aGVsbG8", 400, "invalid_document"),
    ("empty", "", 400, "invalid_document"),
    ("no text", base64.b64encode(bytes(range(256))).decode(), 400, "invalid_document"),
    ("26 MiB", base64.b64encode(b"x" * (26 * MEBI)).decode(), 413, "too_large"),
)
"""What cannot be a document."""
QUERIES: dict[str, tuple[tuple[str, ...], str]] = {
    "limit": (("0", "-1", "201", "1.5", "many", "", "٣", "1e2", "9" * 400, "NaN"), "bad_limit"),
    "cursor": (("x", "%", "eyJ9", "é"), "bad_cursor"),
    "min_position": (("soon", "@", "1", "a@b", f"{NOBODY}@-1", "0:x"), "bad_position"),
    "wait": (("-1", "soon", "nan", "inf", "1e2", "٣"), "bad_wait"),
    "after": (("x", "1/2", "-1", "01"), "bad_cursor"),
    "before": (("x", "-1", "1.5", "9" * 30), "bad_cursor"),
    "version": (("0", "-1", "x", "9" * 30), "invalid_request"),
    "as_of": (("0", "-1", "soon", "", "٣", "9" * 400, "2026-04-20", "2026-04-20T14:30:00"), "bad_as_of"),
    "pinned": (("maybe", ""), "invalid_request"),
    "archived": (("maybe", "2"), "invalid_request"),
    "deltas": (("maybe", "2"), "invalid_request"),
    "threads": (("", ",".join([NOBODY] * 102)), "invalid_request"),
    "order": (("up", "", "ASC"), "invalid_request"),
    "kind": (("all", ""), "invalid_request"),
    "status": (("any", ""), "invalid_request"),
    "structure_id": (("x", "", "1"), "invalid_structure_id"),
    "role_id": (("",), "invalid_request"),
}
"""What parameters cannot be, and the code."""
NUMBERS_ARE_IDS = {"/api/agents/{agent_id}/chat"}
"""Where `after` is a message's id."""
KEYS = ("", "x" * 256, "é", " a", "a ", "a\tb")
"""What cannot be an Idempotency-Key."""
ODD_IDS = ("x", "%", "%2F", "%00", "a\0b", "�", "é", "..", "x" * 5000, f"{NOBODY}.r0123456789abcdef.x", " ", "null")
"""What no thing is called."""
TAKEN = {("boolean", "thinking")}
"""YAML writes `on` and `off`."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW")
LENIENT = {"key_id", "name", "organisation", "record_id", "rejected_id"}
"""Path parts that are no ids of the usual kind, and are judged in their own words."""


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with world(sockets=False) as here:
        here.dispatcher.play = parked_once
        yield await staged(here)


contracts = pytest.mark.parametrize("contract", list(CONTRACTS.values()), ids=lambda contract: contract.name)


@contracts
async def test_bad_input_is_refused_in_the_contracts_words_and_nothing_comes_of_it(
    scene: Scene, contract: Contract
) -> None:
    tried: Counter[str] = Counter()
    made = facts(scene)
    for operation in contract.operations:
        deed = DEED[operation.method, operation.path]
        for bad in every(operation, deed, places_of(scene, deed)):
            found = await send(scene, operation.method, bad)
            where = (operation.id, bad.row, found.status, found.body[:300])
            assert found.status == bad.status, where
            code = problem(contract, found, where)
            assert bad.code in (None, code), where
            assert facts(scene) == made, (where, "something came of it")
            tried[bad.row.partition(":")[0]] += 1
    assert scene.here.core.hub.listening == 0
    assert sum(tried.values()) > 100, tried
    print(f"{contract.name}: {sum(tried.values())} refused: {dict(tried)}")


@contracts
async def test_wrong_methods_and_paths_are_refused_in_the_contracts_words(scene: Scene, contract: Contract) -> None:
    for path, methods in documents()[contract.name]["paths"].items():
        served = {method.upper() for method in methods}
        real = path.format(**scene.places)
        for method in METHODS:
            if method in served:
                continue
            found = await ask(scene.here.gateways[0][0], method, real, key=scene.here.admin_key)
            where = (method, path, found.status, found.body[:300])
            assert (found.status, problem(contract, found, where)) == (405, "method_not_allowed"), where
            if method in ("PUT", "HEAD", "OPTIONS"):
                assert set(found.headers["allow"].split(", ")) == served, where
        for odd in (f"{real}/", f"{real}//", f"{real}/nothing/at/all"):
            for method in served:
                found = await ask(scene.here.gateways[0][0], method, odd, key=scene.here.admin_key)
                where = (method, odd, found.status, found.body[:300])
                assert (found.status, problem(contract, found, where)) == (404, "not_found"), where


@contracts
async def test_what_is_odd_and_allowed_is_no_error_of_ours(scene: Scene, contract: Contract) -> None:
    """Names that come twice, numbers beyond 64 bits, unknown fields and parameters, a body without a length, a long
    query: taken or refused as what they say, and never a 500."""
    for operation in contract.operations:
        deed = DEED[operation.method, operation.path]
        if operation.method == "GET":
            continue
        path, options = good(operation, deed, places_of(scene, deed))
        raw = json.dumps(options.get("body", {})).encode()
        odd: list[dict[str, Any]] = [{**options, "params": {**options.get("params", {}), "x": "y" * 60_000}}]
        if operation.request is not None:
            odd += [
                {**options, "body": raw[:-1] + (b"," if len(raw) > 2 else b"") + extra + b"}", "headers": HEAD}
                for extra in (
                    b'"x":1,"x":2',
                    b'"x":' + str(2**70).encode(),
                    b'"x":-1e999',
                    b'"x":1' + b"0" * 5000,
                    b'"metadata":{"n":' + str(2**70).encode() + b"}",
                    b'"metadata":{"n":1e400}',
                    b'"context":{"n":' + str(-(2**64)).encode() + b"}",
                    b'"lead_context":{"n":' + str(2**64).encode() + b"}",
                )
            ]
        for each in odd:
            found = await ask(scene.here.gateways[0][0], operation.method, path, key=scene.here.admin_key, **each)
            where = (operation.id, str(each.get("body"))[:200], found.status, found.body[:300])
            assert found.status < 500, where


async def test_a_session_that_has_expired_is_404_in_every_contracts_words() -> None:
    now = 1_776_695_400_000
    async with world(sockets=False, clock=lambda: now, session_idle_s=60) as here:
        app = here.gateways[0][0]
        chat = "/api/v3/organizations/default/ai/agents/scripted/chat"
        said = await ask(app, "POST", chat, key=here.key, body={"message": "hi"})
        session = said.json()["sessionId"]
        again = {"message": "hi", "sessionId": session}
        assert (await ask(app, "POST", chat, key=here.key, body=again)).status == 200
        now += 61_000
        for name, path, body in (
            ("org_agents", chat, again),
            ("threads", f"/api/v1/chat/threads/{session}/messages", {"content": "hi"}),
            ("tool_chat", "/api/agents/scripted/chat", {"message": "hi", "conversation_id": session}),
            ("team_chat", "/agents/scripted/chat", {"message": "hi", "conversation_id": session}),
        ):
            found = await ask(app, "POST", path, key=here.key, body=body)
            assert (found.status, problem(CONTRACTS[name], found, name)) == (404, "session_expired"), name


# ---- the table


def every(operation: Operation, deed: Deed, places: dict[str, str]) -> Iterator[Bad]:
    """Every bad request of an operation."""
    path, options = good(operation, deed, places)
    yield from _bad_names(operation, deed, places)
    yield from _bad_queries(operation, path, options)
    if operation.method == "POST":
        for key in KEYS:
            yield Bad(
                f"Idempotency-Key: {key[:5]!r}",
                400,
                "bad_idempotency_key",
                path,
                {**options, "headers": {**options.get("headers", {}), "Idempotency-Key": key}},
            )
    if operation.request is not None:
        for bad in _bad_bodies(operation, path, options):
            words = operation.path == "/api/agents/{agent_id}/chat" and bad.status == 400
            yield bad._replace(code="invalid_message") if words else bad


def good(operation: Operation, deed: Deed, places: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The path and the rest of a request that would be taken."""
    node = {"structure_id": WORKSPACE, "role_id": "scripted"}
    fields = set() if operation.request is None else names(operation)
    options: dict[str, Any] = {}
    if operation.request is not None:
        options["body"] = {**(deed.body or {}), **{name: value for name, value in node.items() if name in fields}}
    params = {one.name: node[one.name] for one in operation.parameters if one.name in node}
    return operation.path.format(**places), options | ({"params": params} if params else {})


def names(operation: Operation) -> set[str]:
    """The fields of the body, as they are sent."""
    return set(schema_of(operation).get("properties", {}))


def schema_of(operation: Operation) -> dict[str, Any]:
    """What the body may be; of a change, what the whole may be."""
    assert operation.request is not None
    if operation.request is administration_wire.Given:
        form = administration_wire.NewAgent if "agent" in operation.path else administration_wire.NewTeam
        whole = form.model_json_schema()
        fields = {name: field for name, field in whole["properties"].items() if name != "id"}
        return {**whole, "properties": fields, "required": []}
    return operation.request.model_json_schema()


def _bad_names(operation: Operation, deed: Deed, places: dict[str, str]) -> Iterator[Bad]:
    for name in places:
        if f"{{{name}}}" not in operation.path or name in LENIENT:
            continue
        for odd in (NOBODY, f"{NOBODY}.r0123456789abcdef", *ODD_IDS):
            if name == "tool_call_id" and odd != "a\0b":
                continue  # any text may be the id of a call
            path, options = good(operation, deed, {**places, name: odd})
            yield Bad(f"unknown id: {name} {odd[:20]!r}", 404, None, path, options)


def _bad_queries(operation: Operation, path: str, options: dict[str, Any]) -> Iterator[Bad]:
    taken = {parameter.name for parameter in operation.parameters if parameter.place == "query"}
    if operation.method == "GET":
        taken.add("min_position")
    for name in sorted(taken):
        if name == "cursor" and operation.path.endswith("/events"):
            options = {**options, "headers": {"Accept": "application/json"}}  # it is read where pages are asked for
        numbers = operation.path in NUMBERS_ARE_IDS and name == "after"
        values, code = QUERIES.get("before" if numbers else name, ((), ""))
        for value in values:
            params = {**options.get("params", {}), name: value}
            yield Bad(f"query: {name}={value[:9]}", 400, code, path, {**options, "params": params})
        params = {**options.get("params", {}), name: "a\0b"}
        yield Bad(f"query with NUL: {name}", 400, None, path, {**options, "params": params})
    if {"before", "after"} <= taken:
        params = {"before": "9", "after": "1"}
        yield Bad("both cursors", 400, "bad_cursor", path, {**options, "params": params})
    if "after" in taken and operation.path not in NUMBERS_ARE_IDS:
        far = str(Vector(dict.fromkeys(range(PARTITIONS), 999999))) if operation.id == "allEvents" else "999999"
        ahead = {**options.get("params", {}), "after": far}
        yield Bad("cursor ahead", 400, "cursor_ahead", path, {**options, "params": ahead})


def _bad_bodies(operation: Operation, path: str, options: dict[str, Any]) -> Iterator[Bad]:
    body = options["body"]
    for what, raw, headers, status, code in BODIES:
        yield Bad(f"body: {what}", status, code, path, {**options, "body": raw, "headers": headers})
    padded = {**body, "nobody": "x" * (9 * MEBI)}
    yield Bad("body: 9 MiB", 413, "too_large", path, {**options, "body": padded})
    schema = schema_of(operation)
    for name in schema.get("required", ()):
        less = {field: value for field, value in body.items() if field != name}
        yield Bad(f"missing field: {name}", 400, None, path, {**options, "body": less})
    for name, form in schema.get("properties", {}).items():
        allowed = types_of(form, schema)
        for kind, value in JSON_TYPES.items():
            if kind not in allowed and (kind, name) not in TAKEN and not (kind == "integer" and "number" in allowed):
                yield Bad(f"wrong type: {name} is {kind}", 400, None, path, {**options, "body": {**body, name: value}})
        if "integer" in allowed and name != "thinking":
            yield Bad(f"too large a number: {name}", 400, None, path, {**options, "body": {**body, name: 2**70}})
    for name in MESSAGES & set(body):
        if operation.path.endswith(("/messages", "/message", "/sync", "/chat")):
            for what, text, status, code in TEXTS:
                yield Bad(f"message: {what}", status, code, path, {**options, "body": {**body, name: text}})
    if "mode" in schema.get("properties", {}) and operation.path.startswith(("/teams", "/api/teams")):
        yield Bad("unknown mode", 422, "unknown_mode", path, {**options, "body": {**body, "mode": "choir"}})
    if "content_base64" in schema.get("properties", {}):
        for what, content, status, code in DOCUMENTS:
            document = {"title": "t", "content_base64": content, "content_type": "text/plain"}
            yield Bad(f"document: {what}", status, code, path, {**options, "body": document})
    if "attachments" in schema.get("properties", {}):
        for what, files, status, code in FILES:
            yield Bad(f"attachments: {what}", status, code, path, {**options, "body": {**body, "attachments": files}})


def types_of(form: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """The types of JSON that a schema takes."""
    if "$ref" in form:
        return types_of(schema["$defs"][form["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in form:
        return {kind for one in form["anyOf"] for kind in types_of(one, schema)}
    if "const" in form or "enum" in form:
        return {"string"}
    return {form["type"]} if "type" in form else set(JSON_TYPES)


def places_of(scene: Scene, deed: Deed) -> dict[str, str]:
    """What there is in the place of each name."""
    return scene.places | ({"run_id": scene.places["run_of_team"]} if deed.path in OF_A_TEAM else {})


# ---- asking


def facts(scene: Scene) -> int:
    """How many facts there are; a refusal is none."""
    return sum(fact.seq is not None for written in scene.here.dispatcher.written.values() for fact in written)


async def send(scene: Scene, method: str, bad: Bad) -> Exchange:
    return await ask(scene.here.gateways[0][0], method, bad.path, key=scene.here.admin_key, **bad.options)


def problem(contract: Contract, found: Exchange, where: Any) -> str:
    """The code of a refusal; fails unless it has exactly the contract's shape."""
    assert found.headers["content-type"] == "application/json", where
    body = found.json()
    if not contract.flat:
        assert set(body) == {"error"}, where
        body = body["error"]
    name = "error" if contract.flat else "code"
    assert set(body) - {"details"} == {name, "message"}, where
    assert isinstance(body["message"], str) and isinstance(body[name], str), where
    return str(body[name])

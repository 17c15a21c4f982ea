"""Every answer of every test against the OpenAPI documents: nothing is answered that is not said there.

`asgi` hands each exchange in. The documents leave room for more fields, as clients must; here they are closed, so that
a field that nobody wrote down is found, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from parley_gateway.openapi.contracts import documents

STREAM = "text/event-stream"
LARGE = 512 * 1024
"""What is larger is not looked into: it is one long text."""


class Documented(NamedTuple):
    """A path of a document."""

    contract: str
    path: str
    methods: dict[str, Any]


def check(method: str, path: str, status: int, headers: dict[str, str], body: bytes, over: bool) -> None:
    """Fails when the answer to a request is not one that the path's document knows. `over`: the body is whole."""
    found = documented(path)
    if found is None:
        return
    said = found.methods.get(method.lower())
    where = f"{method} {path} ({found.contract}): {status} {body[:300]!r}"
    if said is None:
        assert status == 405, f"not documented: {where}"
        return
    answer = said["responses"].get(str(status))
    assert answer is not None, f"this status is not documented: {where}"
    kind = headers.get("content-type", "").partition(";")[0]
    content = answer.get("content", {})
    if not content:
        assert not body, f"no body is documented: {where}"
        return
    if "*/*" in content:
        return
    assert kind in content, f"{kind} is not documented: {where}"
    place = (found.contract, found.path, method.lower(), str(status), kind)
    if kind == STREAM:
        for block in body.decode().split("\n\n")[:-1]:
            for line in block.split("\n"):
                if line.startswith("data: ") and line != "data: [DONE]":
                    _hold(place, json.loads(line[6:]), where)
    elif over and len(body) < LARGE:
        told = json.loads(body)
        _hold(place, told, where)
        if "examples" in content[kind]:
            code = told["error"] if isinstance(told["error"], str) else told["error"]["code"]
            assert code in content[kind]["examples"], f"the code {code} is not documented: {where}"


def documented(path: str) -> Documented | None:
    """The path of a document that a request's path is."""
    for pattern, found in _paths():
        if pattern.fullmatch(path):
            return found
    return None


@cache
def _paths() -> Sequence[tuple[re.Pattern[str], Documented]]:
    found = [
        (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), Documented(name, path, methods))
        for name, document in documents().items()
        for path, methods in document["paths"].items()
    ]
    return sorted(found, key=lambda one: one[1].path.count("{"))


def _hold(place: tuple[str, str, str, str, str], value: Any, where: str) -> None:
    wrong = next(_validator(*place).iter_errors(value), None)
    assert wrong is None, f"{wrong.json_path}: {wrong.message}: {where}"


@cache
def _validator(contract: str, path: str, method: str, status: str, kind: str) -> Validator:
    document = _closed_document(contract)
    content = document["paths"][path][method]["responses"][status]["content"][kind]
    schema = frame_schema(content["schema"]) if kind == STREAM else content["schema"]
    return Draft202012Validator({**schema, "components": document["components"]})


def frame_schema(event: dict[str, Any]) -> dict[str, Any]:
    """The schema of the data of a stream's frames."""
    data = event["properties"]["data"]
    told = data.get("anyOf", [data])[-1]
    return dict(told["contentSchema"])


@cache
def _closed_document(contract: str) -> dict[str, Any]:
    return {**closed(deepcopy(documents()[contract]))}


def closed(schema: Any) -> Any:
    """A document in which an object has no fields but those that are written down, unless it says that it has."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found

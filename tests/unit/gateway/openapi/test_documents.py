"""The documents against the routes, the standard, and themselves: nothing is left out, nothing too many, and every
example is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from parley_gateway.administration.routes import BASE as ADMINISTRATION
from parley_gateway.administration.routes import PATHS as ADMINISTERED
from parley_gateway.dialects import DIALECTS
from parley_gateway.dialects.org_agents.routes import PATHS as ORG_AGENTS
from parley_gateway.dialects.org_chat.routes import PATHS as ORG_CHAT
from parley_gateway.dialects.org_chat.routes import ROOT
from parley_gateway.dialects.team_chat.routes import everywhere as team_chat
from parley_gateway.dialects.threads.access import BASE
from parley_gateway.dialects.threads.routes import ELSEWHERE
from parley_gateway.dialects.threads.routes import PATHS as THREADS
from parley_gateway.dialects.tool_chat.routes import PATHS as TOOL_CHAT
from parley_gateway.errors import REFUSALS
from parley_gateway.openapi.codes import CODES
from parley_gateway.openapi.contracts import CONTRACTS, documents
from parley_gateway.openapi.document import codes_of, document
from tests.support.documented import closed, frame_schema
from tests.unit.gateway.world import world

SOURCE = Path(__file__).parents[4] / "services" / "gateway" / "src" / "parley_gateway"
METHODS = {
    "threads": {BASE + path: set(methods) for path, methods in THREADS.items()}
    | {path: set(methods) for path, methods in ELSEWHERE.items()},
    "org_chat": {ROOT + path: set(methods) for path, methods in ORG_CHAT.items()},
    "org_agents": {path: set(methods) for path, methods in ORG_AGENTS.items()},
    "tool_chat": {path: set(methods) for path, methods in TOOL_CHAT.items()},
    "team_chat": {path: set(methods) for path, methods in team_chat().items()},
    "administration": {ADMINISTRATION + path: set(methods) for path, methods in ADMINISTERED.items()},
}
"""The methods of every path that a contract serves, by the routes."""
UNDOCUMENTED = {
    "/mcp": "it is MCP, which describes itself",
    "/livez": "for the machine that runs it",
    "/readyz": "for the machine that runs it",
    "/openapi": "the documents themselves",
    "/openapi/{name}": "the documents themselves",
    "/docs": "the documents themselves",
    "/docs/{name}": "the documents themselves",
}

contracts = pytest.mark.parametrize("name", sorted(CONTRACTS))


def test_every_dialect_has_a_document() -> None:
    assert set(CONTRACTS) == {*DIALECTS, "administration"} == set(METHODS)
    assert all(DIALECTS[name].flat == CONTRACTS[name].flat for name in DIALECTS)


async def test_every_route_belongs_to_a_document_or_is_known_to_have_none() -> None:
    async with world(sockets=False) as here:
        served = {route.path for route in here.gateways[0][0].router.routes if isinstance(route, Route)}
    documented = {path for found in documents().values() for path in found["paths"]}
    assert served == documented | set(UNDOCUMENTED)
    assert not documented & set(UNDOCUMENTED)


@contracts
def test_every_operation_is_a_route_and_every_route_an_operation(name: str) -> None:
    said = {path: {method.upper() for method in methods} for path, methods in documents()[name]["paths"].items()}
    assert said == METHODS[name]


@contracts
def test_a_document_is_openapi(name: str) -> None:
    found = documents()[name]
    validate(found)
    assert found["openapi"] == "3.1.0"
    ids = [said["operationId"] for methods in found["paths"].values() for said in methods.values()]
    assert len(set(ids)) == len(ids)
    assert not [schema for schema in found["components"]["schemas"] if "__" in schema], "two shapes have one name"


@contracts
def test_every_operation_has_examples_of_what_is_sent_and_answered(name: str) -> None:
    for said in operations(name):
        where = said["operationId"]
        if said.get("requestBody", {}).get("required"):
            assert said["requestBody"]["content"]["application/json"].get("example"), where
        for status, answer in said["responses"].items():
            for kind, content in answer.get("content", {}).items():
                assert kind == "*/*" or content.get("example") or content.get("examples"), (where, status, kind)


@contracts
def test_every_example_is_what_its_schema_says(name: str) -> None:
    """With no field that the schema does not name."""
    strict = closed(documents()[name])
    found = 0
    for said in operations(name, strict):
        contents = [answer.get("content", {}) for answer in said["responses"].values()]
        contents.append(said.get("requestBody", {}).get("content", {}))
        for content in (inner for each in contents for inner in each.values()):
            examples = [one["value"] for one in content.get("examples", {}).values()]
            if "example" in content:
                examples.append(content["example"])
            for example in examples:
                found += 1
                hold(strict, content["schema"], example, said["operationId"])
        for content in (each["text/event-stream"] for each in contents if "text/event-stream" in each):
            for frame in content["examples"].values():
                if frame["value"]["data"] != "[DONE]":
                    schema = frame_schema(content["schema"])
                    hold(strict, schema, json.loads(frame["value"]["data"]), said["operationId"])
        for parameter in said["parameters"]:
            if "example" in parameter:
                hold(strict, parameter["schema"], parameter["example"], said["operationId"])
    assert found > 50


@contracts
def test_the_refusals_of_the_dispatcher_and_the_ones_of_the_gateway_are_known(name: str) -> None:
    """A status is one of those of the codes that the operation lists; nothing is listed that has none."""
    for operation in CONTRACTS[name].operations:
        statuses = {CODES[code][0] for code in codes_of(operation)}
        assert not statuses & set(operation.answers), operation.id
        assert {401, 403, 429, 500, 503} <= statuses


def test_every_code_in_the_source_is_in_the_list() -> None:
    assert {code: CODES[code][0] for code in REFUSALS} == REFUSALS
    source = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.parent.name != "openapi")
    told = set(re.findall(r'\bProblem\(\s*"(\w+)"', source))
    told |= set(re.findall(r'\binvalid\((?:[^()]|\([^()]*\))*?, "(\w+)"', source))
    assert len(told) > 15
    assert told - set(CODES) == {"method_not_allowed"}, "which no operation answers with"


def test_a_document_is_the_same_each_time() -> None:
    for name, contract in CONTRACTS.items():
        assert document(contract, "0.1.0") == document(contract, "0.1.0"), name


def operations(name: str, found: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    for methods in (found or documents()[name])["paths"].values():
        yield from methods.values()


def hold(document: dict[str, Any], schema: dict[str, Any], value: Any, where: str) -> None:
    wrong = next(Draft202012Validator({**schema, "components": document["components"]}).iter_errors(value), None)
    assert wrong is None, f"{where}: {wrong.json_path}: {wrong.message}: {value!r}"

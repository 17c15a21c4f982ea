"""From a contract's operations to its OpenAPI 3.1 document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from parley_events.body import Json
from parley_gateway.openapi.codes import CODES
from parley_gateway.openapi.operation import (
    HEADERS,
    IDEMPOTENCY_KEY,
    MIN_POSITION,
    POSITION,
    REPLAYED,
    Answer,
    Contract,
    Operation,
    Parameter,
)

ALWAYS = ("unauthorized", "forbidden", "rate_limited", "internal", "unavailable")
"""What every operation may answer."""
READ = ("invalid_text", "bad_position", "behind")
PAGED = {"limit": "bad_limit", "cursor": "bad_cursor", "after": "bad_cursor", "wait": "bad_wait"}
NAMED = ("not_found",)
"""Where the path names a thing."""
WITH_BODY = ("invalid_json", "invalid_request", "request_timeout", "unsupported_media_type")
WRITE = ("invalid_text", "object_missing", "poison", "too_large")
KEYED = ("bad_idempotency_key", "idempotency_conflict")

PATH: dict[str, tuple[str, str]] = {
    "thread_id": ("A thread's id.", "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"),
    "run_id": ("A run's id; it begins with its thread's.", "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f.r1f0c2a9d4b5e6f70"),
    "approval_id": ("An approval's id; it begins with its thread's.", "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f.p5"),
    "tool_call_id": ("The id of a call, as its `tool_call` has it.", "call_1"),
    "name": ("The name of the file.", "plan.md"),
    "knowledge_id": ("A document's id.", "6d1f1c0a-4b7e-5a55-9a53-0f5f5e1f7c11"),
    "organisation": ("The workspace's id, or its name.", "default"),
    "agent_id": ("An agent's id, or its UUID.", "assistant"),
    "team_id": ("A team's id, or its UUID.", "founders"),
    "session_id": ("A session's id.", "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"),
    "conversation_id": ("A conversation's id.", "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"),
    "key_id": ("A key's id; it is no secret.", "6d1f1c0a-4b7e-5a55-9a53-0f5f5e1f7c11"),
    "record_id": ("The place of the record, `<partition>-<offset>` of `parley.events`.", "3-1041"),
    "rejected_id": ("The place of the command, `<partition>-<offset>`.", "3-41"),
}
"""What paths name: what it is, and an example."""
_NAMES = re.compile(r"{(\w+)}")
_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_REF = "#/components/schemas/{model}"


class _Schemas(GenerateJsonSchema):
    """Without the titles that pydantic makes of names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(contract: Contract, version: str) -> Json:
    """The whole document."""
    forms = _Forms(contract)
    paths: Json = {}
    for operation in contract.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, contract.flat, forms)
    tags = dict.fromkeys(operation.tag for operation in contract.operations)
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.title, "version": version, "description": contract.description},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": {**forms.definitions, "Error": _error(contract.flat)},
            "headers": _headers(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key of a user in a workspace."}
            },
        },
    }


class _Forms:
    """The schemas of all types that a contract names."""

    def __init__(self, contract: Contract) -> None:
        found = {id(form): form for operation in contract.operations for form in _forms_of(operation)}
        asked: list[tuple[int, Literal["validation"], TypeAdapter[Any]]] = [
            (name, "validation", TypeAdapter(form)) for name, form in found.items()
        ]
        schemas, defined = TypeAdapter.json_schemas(asked, ref_template=_REF, schema_generator=_Schemas)
        self._kept = found  # an id stands for a type only as long as the type is there
        self._schemas = {name: _plain(schema) for (name, _), schema in schemas.items()}
        requests = {operation.request.__name__ for operation in contract.operations if operation.request is not None}
        self.definitions = {
            name: _plain(schema, keep_defaults=name in requests)
            for name, schema in sorted(defined.get("$defs", {}).items())
        }

    def __getitem__(self, form: Any) -> Json:
        return cast(Json, self._schemas[id(form)])


def _forms_of(operation: Operation) -> Iterator[Any]:
    if operation.request is not None:
        yield operation.request
    for parameter in _parameters_of(operation):
        yield parameter.form
    for answer in operation.answers.values():
        yield from (form for form in (answer.body, answer.events) if form is not None)


def _plain(schema: Any, *, keep_defaults: bool = False) -> Any:
    """A schema without titles, and without defaults, where it says what is answered."""
    if isinstance(schema, list):
        return [_plain(item, keep_defaults=keep_defaults) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for name, value in schema.items():
        if name == "properties":
            found[name] = {key: _plain(inner, keep_defaults=keep_defaults) for key, inner in value.items()}
        elif not (
            (name == "title" and isinstance(value, str)) or (name == "default" and (not keep_defaults or value is None))
        ):
            found[name] = _plain(value, keep_defaults=keep_defaults)
    return found


def _error(flat: bool) -> Json:
    code = {"type": "string", "description": "For programs; it never changes its meaning."}
    message = {"type": "string", "description": "For people: what happened, and what to do."}
    details = {"type": "object", "additionalProperties": True}
    inner: Json = {"message": message, "details": details}
    if flat:
        fields = {"error": code, **inner}
        return {"type": "object", "properties": fields, "required": ["error", "message"]}
    error = {"type": "object", "properties": {"code": code, **inner}, "required": ["code", "message"]}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _headers() -> Json:
    named = {name: {"description": what, "schema": {"type": "string"}} for name, what in HEADERS.items()}
    named["Retry-After"] = {"description": "In how many seconds to try again.", "schema": {"type": "integer"}}
    for name, what in zip(_LIMITS, ("may be asked", "are left", "until all are back"), strict=True):
        told = {"description": f"Of a limited key: how many {what}.", "schema": {"type": "integer"}}
        named[name] = told
    return named


def _parameters_of(operation: Operation) -> tuple[Parameter, ...]:
    found = operation.parameters
    if operation.method == "POST":
        found += (IDEMPOTENCY_KEY,)
    elif operation.method == "GET" and MIN_POSITION not in found:
        found += (MIN_POSITION,)
    return found


def codes_of(operation: Operation) -> Sequence[str]:
    """Every error code that the operation may answer with."""
    found = [*ALWAYS, *operation.errors]
    if operation.method == "GET":
        found += READ
    if operation.request is not None:
        found += WITH_BODY
    if operation.method != "GET":
        found += WRITE
    if operation.method == "POST":
        found += KEYED
    if "{" in operation.path:
        found += NAMED
    found += [PAGED[parameter.name] for parameter in operation.parameters if parameter.name in PAGED]
    if any(parameter.name == "after" for parameter in operation.parameters):
        found.append("cursor_ahead")
    return sorted(dict.fromkeys(found))


def _operation(operation: Operation, flat: bool, forms: _Forms) -> Json:
    said: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [
            *(_in_path(name) for name in _NAMES.findall(operation.path)),
            *(_parameter(parameter, forms) for parameter in _parameters_of(operation)),
        ],
    }
    if operation.more:
        said["description"] = operation.more
    if operation.request is not None:
        content: Json = {"schema": forms[operation.request]}
        if operation.example is not None:
            content["example"] = operation.example
        said["requestBody"] = {"required": not operation.optional, "content": {"application/json": content}}
    answers = {str(status): _answer(answer, operation, forms) for status, answer in operation.answers.items()}
    refused: dict[int, list[str]] = {}
    for code in codes_of(operation):
        refused.setdefault(CODES[code][0], []).append(code)
    answers |= {str(status): _refusal(status, codes, flat) for status, codes in sorted(refused.items())}
    return {**said, "responses": answers}


def _in_path(name: str) -> Json:
    what, example = PATH[name]
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": what, "schema": schema, "example": example}


def _parameter(parameter: Parameter, forms: _Forms) -> Json:
    said: Json = {"name": parameter.name, "in": parameter.place, "description": parameter.what}
    said |= {"required": True} if parameter.required else {}
    said |= {"schema": forms[parameter.form]}
    return said if parameter.example is None else {**said, "example": parameter.example}


def _answer(answer: Answer, operation: Operation, forms: _Forms) -> Json:
    said: Json = {"description": answer.what}
    names = [*answer.headers, POSITION, *((REPLAYED,) if operation.method == "POST" else ()), *_LIMITS]
    said["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in dict.fromkeys(names)}
    content: Json = {}
    if answer.body is not None:
        content["application/json"] = {"schema": forms[answer.body]}
        if answer.example is not None:
            content["application/json"]["example"] = answer.example
    if answer.events is not None:
        content["text/event-stream"] = {
            "schema": _event(forms[answer.events], answer.done),
            "examples": {f"frame {at}": {"value": _frame(text)} for at, text in enumerate(answer.stream, 1)},
        }
    if answer.file:
        content["*/*"] = {"schema": {}}
    return {**said, "content": content} if content else said


def _event(data: Json, done: bool) -> Json:
    """An event of a stream: until OpenAPI 3.2 has `itemSchema`, the schema of a stream is that of each of its events.
    `done`: the last one is no JSON, but `[DONE]`."""
    told: Json = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    fields: Json = {
        "id": {"type": "string", "description": "The cursor to resume from."},
        "data": {"anyOf": [{"const": "[DONE]"}, told]} if done else told,
    }
    return {"type": "object", "properties": fields, "required": ["data"]}


def _frame(text: str) -> Json:
    """An event as it is written, as fields."""
    return dict(line.split(": ", 1) for line in text.split("\n"))


def _refusal(status: int, codes: Sequence[str], flat: bool) -> Json:
    again = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}} if status in (429, 503) else {}
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        **({"headers": again} if again else {}),
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": {code: {"value": _told(code, flat)} for code in codes},
            }
        },
    }


def _told(code: str, flat: bool) -> Json:
    message = CODES[code][1]
    return {"error": code, "message": message} if flat else {"error": {"code": code, "message": message}}


def written(found: Json) -> bytes:
    """A document as it is served: the same bytes each time."""
    return orjson.dumps(found, option=orjson.OPT_INDENT_2)

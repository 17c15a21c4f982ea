"""A document as a page to read: one per contract, and one that lists them. Pure, and plain HTML without a script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

import orjson

from parley_events.body import Json

STYLE = "/docs/style.css"
_CODE = re.compile(r"`([^`]+)`")
_REF = "#/components/schemas/"


def index(documents: Mapping[str, Json]) -> str:
    """The page that lists the contracts."""
    listed = "".join(
        f'<section><h2><a href="/docs/{escape(name)}">{_text(found["info"]["title"])}</a></h2>'
        f"<p>{_text(found['info']['description'])}</p>"
        f'<p>{_counted(found)} · <a href="/openapi/{escape(name)}.json">OpenAPI document</a></p></section>'
        for name, found in documents.items()
    )
    return _page("Parley: contracts", f"<main><h1>Parley</h1><p>What this gateway serves.</p>{listed}</main>")


def page(name: str, found: Json) -> str:
    """The page of one contract."""
    info = found["info"]
    operations = [(path, method, said) for path, methods in found["paths"].items() for method, said in methods.items()]
    links = "".join(
        f"<h2>{_text(tag['name'])}</h2><ul>"
        + "".join(
            f'<li><a href="#{escape(said["operationId"])}"><b>{method.upper()}</b> {_text(said["summary"])}</a></li>'
            for _, method, said in operations
            if tag["name"] in said["tags"]
        )
        + "</ul>"
        for tag in found["tags"]
    )
    schemas = found["components"]["schemas"]
    body = (
        f'<nav><p><a href="/docs">All contracts</a></p>{links}<h2><a href="#schemas">Schemas</a></h2></nav>'
        f"<main><h1>{_text(info['title'])}</h1><p>{_text(info['description'])}</p>"
        f'<p><a href="/openapi/{escape(name)}.json">OpenAPI document</a>, version {_text(info["version"])}. '
        "Every request carries <code>Authorization: Bearer &lt;key&gt;</code>.</p>"
        + "".join(_operation(path, method, said) for path, method, said in operations)
        + '<h2 id="schemas">Schemas</h2>'
        + "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))
        + "</main>"
    )
    return _page(info["title"], body)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(title)}</title><link rel="stylesheet" href="{STYLE}"></head><body>{body}</body></html>'
    )


def _counted(found: Json) -> str:
    return f"{sum(map(len, found['paths'].values()))} operations"


def _operation(path: str, method: str, said: Json) -> str:
    parts = [
        f'<section id="{escape(said["operationId"])}"><h2>{_text(said["summary"])}</h2>',
        f'<p class="call"><b>{method.upper()}</b> <code>{escape(path)}</code></p>',
    ]
    if "description" in said:
        parts.append(f"<p>{_text(said['description'])}</p>")
    if said["parameters"]:
        rows = (
            (
                f"<code>{escape(one['name'])}</code>{_needed(one.get('required', False))}",
                escape(one["in"]),
                _type(one["schema"]),
                _text(one["description"]),
            )
            for one in said["parameters"]
        )
        parts.append(_table(("parameter", "in", "type", "what it is"), rows))
    if "requestBody" in said:
        content = said["requestBody"]["content"]["application/json"]
        parts.append(f"<h3>Body: {_type(content['schema'])}</h3>{_example(content.get('example'))}")
    answers = said["responses"].items()
    parts += [_answer(status, answer) for status, answer in answers if status < "4"]
    refusals = (
        (status, f"<code>{escape(code)}</code>", _text(_message(told["value"])))
        for status, answer in answers
        if status >= "4"
        for code, told in answer["content"]["application/json"]["examples"].items()
    )
    parts.append(f"<details><summary>Errors</summary>{_table(('status', 'code', 'for example'), refusals)}</details>")
    return "".join([*parts, "</section>"])


def _message(told: Json) -> str:
    found = told["message"] if "message" in told else told["error"]["message"]
    return str(found)


def _answer(status: str, answer: Json) -> str:
    parts = [f"<h3>{status}</h3><p>{_text(answer['description'])}</p>"]
    for kind, content in answer.get("content", {}).items():
        if kind == "text/event-stream":
            frames = (told["value"] for told in content["examples"].values())
            stream = "\n\n".join("\n".join(f"{name}: {value}" for name, value in frame.items()) for frame in frames)
            form = f"each frame {_type(_data(content['schema']))}"
            parts.append(f"<p><code>{kind}</code>: {form}</p>{_example(stream)}")
        else:
            told = _example(content.get("example"))
            parts.append(f"<p><code>{escape(kind)}</code>: {_type(content['schema'])}</p>{told}")
    return "".join(parts)


def _data(event: Json) -> Json:
    """The schema of what an event's data is."""
    data: Json = event["properties"]["data"]
    told: Json = data.get("anyOf", [data])[-1]
    return dict(told["contentSchema"])


def _example(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return f"<pre>{escape(text.rstrip())}</pre>"


def _schema(name: str, schema: Json) -> str:
    head = f'<section id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
    if "description" in schema:
        head += f"<p>{_text(schema['description'])}</p>"
    needed = schema.get("required", ())
    rows = (
        (f"<code>{escape(field)}</code>{_needed(field in needed)}", _type(form), _text(form.get("description", "")))
        for field, form in schema.get("properties", {}).items()
    )
    return f"{head}{_table(('field', 'type', 'what it is'), rows)}</section>"


def _type(schema: Any) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return " or ".join(_type(one) for one in schema[many])
    if "const" in schema:
        return f"<code>{_text(_json(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{_text(_json(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    kind = str(schema.get("format") or schema.get("type") or "anything")
    return escape(" ".join([kind, *_bounds(schema)]))


def _bounds(schema: Json) -> Iterator[str]:
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    if low is not None and high is not None:
        yield f"({low} to {high})"
    elif low is not None or high is not None:
        yield f"(from {low})" if high is None else f"(up to {high})"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _needed(needed: bool) -> str:
    return " <em>required</em>" if needed else ""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Cells are HTML."""
    found = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not found:
        return ""
    return "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + f"</tr>{found}</table>"


def _text(text: str) -> str:
    """A text of ours as HTML; what stands in backticks is code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))

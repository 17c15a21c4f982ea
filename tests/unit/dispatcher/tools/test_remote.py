"""What a server says of its tools, and what becomes of its answers; the servers themselves are in `test_servers`."""

from __future__ import annotations

from typing import Any

import pytest

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools.base import Result
from parley_dispatcher.tools.mcp import Answer, Offer, Part
from parley_dispatcher.tools.mcp_http import MAX_FILES_BYTES
from parley_dispatcher.tools.remote import (
    MAX_DESCRIPTION_CHARS,
    MAX_FILES,
    MAX_SCHEMA_DEPTH,
    Known,
    keep,
    known_tools,
    names,
    uses,
    verdict_of,
)
from parley_events.body import Json, McpServer, McpTool
from parley_events.errors import ObjectsUnavailable
from parley_events.objects import open_objects
from tests.unit.dispatcher.world import WORKSPACE

OBJECT: Json = {"type": "object"}
SERVER = McpServer(name="shop", command=("x",))


def offer(name: str = "buy", schema: Any = None, **more: Any) -> Offer:
    given = OBJECT if schema is None else schema
    return Offer(name, **{"description": "", "input_schema": given, "output_schema": None, "effect": "unsafe", **more})


def nested(levels: int) -> Json:
    schema: Json = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        (("shop/buy",), True),
        (("shop/*",), True),
        (("*/buy",), True),
        (("s*/b*",), True),
        (("*/*",), True),
        (("*",), False),
        (("shop*",), False),
        (("shop__buy",), False),
        (("shop/sell",), False),
        (("shops/*",), False),
        ((), False),
    ],
)
def test_a_pattern_names_tools_of_servers_by_both_parts(patterns: tuple[str, ...], named: bool) -> None:
    assert names(patterns, "shop", "buy") is named
    if named:
        assert uses(patterns, "shop")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array"}, "not one of an object"),
        ([], "not one of an object"),
        (nested(MAX_SCHEMA_DEPTH), "nests deeper"),
        ({"type": "object", "default": float("nan")}, "not JSON"),
        ({"type": "object", "required": "a"}, r"not a JSON schema (\$.required)"),
        ({"type": "object", "properties": {"a": {"items": [{}, {}]}}}, "not a JSON schema"),
        ({"type": "object", "properties": {"ä": {}}}, "which the Messages API does not take"),
        ({"type": "object", "properties": {"a" * 65: {}}}, "which the Messages API does not take"),
    ],
)
def test_a_schema_that_the_messages_api_refuses_leaves_its_tool_out_and_says_why(schema: Any, why: str) -> None:
    known, refused = known_tools(SERVER, [offer(schema=schema), offer("sell")])
    assert [tool.name for tool in known] == ["shop__sell"]
    assert len(refused) == 1 and why.replace("\\", "") in refused[0]


def test_a_schema_is_shown_as_an_object_without_what_the_messages_api_refuses_at_its_top() -> None:
    schema = {"properties": {"a": {"oneOf": [{}]}}, "oneOf": [{}], "allOf": [{}], "anyOf": [{}]}
    [tool], _ = known_tools(SERVER, [offer(schema=schema)])
    assert tool.input_schema == {"type": "object", "properties": {"a": {"oneOf": [{}]}}}
    assert tool.offer.input_schema == schema


def test_names_are_made_fit_and_the_first_of_two_alike_is_kept() -> None:
    known, refused = known_tools(SERVER, [offer("a.b"), offer("a/b"), offer("a b"), offer("x" * 200), offer("")])
    assert [(tool.name, tool.offer.name) for tool in known] == [("shop__a_b", "a.b")]
    assert len(refused) == 4


def test_the_files_word_counts_before_the_servers_and_long_descriptions_are_cut() -> None:
    server = SERVER.model_copy(update={"tools": {"buy": McpTool(effect="checkable", check="bought")}})
    lie = offer(effect="read_only", description="x" * (MAX_DESCRIPTION_CHARS + 1))
    [tool], _ = known_tools(server, [lie])
    assert tool.effect == "checkable"
    assert tool.description.endswith("x [cut]") and len(tool.description) < MAX_DESCRIPTION_CHARS + 10


# ---- answers


async def kept(*parts: Part, structured: Any = None, is_error: bool = False, output_schema: Any = None) -> Result:
    [known], _ = known_tools(SERVER, [offer(output_schema=output_schema)])
    return await keep(
        open_objects("memory:"), WORKSPACE, known, "0f-key", Answer(parts, structured, is_error), lambda text: text
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "etc_passwd"),
        (".bashrc", "bashrc"),
        ("a b\n.png", "a_b_.png"),
        ("x" * 300, "x" * 100),
        ("", "buy-0fe-1.png"),
        ("...", "buy-0fe-1.png"),
    ],
)
async def test_a_file_has_a_plain_name(given: str, name: str) -> None:
    [file] = (await kept(Part(data=b"1", content_type="image/png", name=given))).files
    assert file.name == name


async def test_two_files_of_one_name_are_told_apart() -> None:
    files = (await kept(Part(data=b"1", name="a.txt"), Part(data=b"2", name="a.txt"))).files
    assert len({file.name for file in files}) == 2


@pytest.mark.parametrize("kind", ["", "text", "text/html\r\nX: y", "a/" + "b" * 200])
async def test_a_content_type_that_is_none_is_of_plain_bytes(kind: str) -> None:
    [file] = (await kept(Part(data=b"1", content_type=kind))).files
    assert file.content_type in ("application/octet-stream",)


async def test_files_that_are_too_many_or_too_large_are_left_out_and_said_to_be() -> None:
    many = await kept(*(Part(data=b"1") for _ in range(MAX_FILES + 2)))
    assert len(many.files) == MAX_FILES and many.text.count("a file is left out") == 2
    large = await kept(Part("text"), Part(data=bytes(MAX_FILES_BYTES + 1)))
    assert large.files == () and "a file is left out" in large.text


async def test_a_store_that_is_away_costs_the_file_and_not_the_answer() -> None:
    class Away:
        async def put(self, workspace_id: str, data: bytes) -> str:
            raise ObjectsUnavailable("away")

        async def get(self, workspace_id: str, sha256: str) -> bytes:
            raise ObjectsUnavailable("away")

    [known], _ = known_tools(SERVER, [offer()])
    answer = Answer((Part("paid"), Part(data=b"1")), None, False)
    result = await keep(Away(), WORKSPACE, known, "k", answer, lambda text: text)
    assert result.text == "paid\n[a file is left out: it could not be kept just now]"


@pytest.mark.parametrize(
    ("structured", "note"),
    [
        ({"sum": 3, "more": "x"}, None),
        ({"sum": 3.0}, None),
        (None, "there is no structured content"),
        ([3], "the structured content is not an object"),
        ({}, "'sum' is missing"),
        ({"sum": "3"}, "'sum' is not of the type integer"),
        ({"sum": True}, "'sum' is not of the type integer"),
    ],
)
async def test_a_result_that_breaks_its_own_promise_comes_with_a_note(structured: Any, note: str | None) -> None:
    promise = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    text = (await kept(Part("three"), structured=structured, output_schema=promise)).text
    assert text.startswith("three")
    assert (note is None) == (text == "three")
    assert note is None or note in text


@pytest.mark.parametrize(
    "promise", [{"required": 5}, {"properties": []}, {"properties": {"sum": 5}}, {"type": ["object"]}, {"$ref": "#"}]
)
async def test_a_promise_that_is_nonsense_harms_nobody(promise: Json) -> None:
    assert (await kept(Part("three"), structured={"sum": 3}, output_schema=promise)).text.startswith("three")


async def test_structured_content_is_the_text_where_there_is_no_other() -> None:
    assert (await kept(structured={"a": "ä"})).text == '{"a": "ä"}'
    assert (await kept(Part("said"), structured={"a": 1})).text == "said"


async def test_an_error_says_something_even_if_the_server_does_not() -> None:
    with pytest.raises(ToolError, match="did not say why"):
        await kept(is_error=True)


def test_what_is_known_of_a_tool_is_what_was_offered() -> None:
    [tool], refused = known_tools(SERVER, [offer(description="Buys.")])
    assert tool == Known("shop__buy", tool.offer, "Buys.", OBJECT, "unsafe") and refused == []


@pytest.mark.parametrize(
    ("answer", "happened", "text"),
    [
        (Answer((), {"happened": True, "result": "seat 7"}, False), True, "seat 7"),
        (Answer((), {"happened": True, "result": {"seat": 7}}, False), True, '{"seat": 7}'),
        (Answer((Part('{"happened": true}'),), None, False), True, "The call took place; its own answer was lost."),
        (Answer((Part('{"happened": '), Part("false}")), None, False), False, ""),
        (Answer((), {"happened": True, "result": "the key is s3cret"}, False), True, "the key is ***"),
    ],
)
def test_a_check_says_whether_a_call_took_place(answer: Answer, happened: bool, text: str) -> None:
    verdict = verdict_of(answer, lambda said: said.replace("s3cret", "***"))
    assert (verdict.happened, verdict.result.text) == (happened, text)


@pytest.mark.parametrize(
    "answer",
    [
        Answer((), {"happened": True}, True),
        Answer((), {"happened": "yes"}, False),
        Answer((), None, False),
        Answer((Part("yes"),), None, False),
        Answer((Part("[true]"),), None, False),
        Answer((Part("[" * 100_000),), None, False),
        Answer((Part('{"happened": true, "x": "' + "x" * 1_100_000 + '"}'),), None, False),
    ],
)
def test_a_check_that_says_anything_else_tells_nothing(answer: Answer) -> None:
    with pytest.raises(ToolError, match="happened"):
        verdict_of(answer, str)

"""The script in a message, as docs/scripted-model.md has it: lines to turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_dispatcher.providers.script import (
    MAX_DEPTH,
    Directive,
    Fail,
    Malformed,
    Show,
    Stop,
    Stream,
    Text,
    Think,
    Tool,
    Usage,
    Wait,
    turns_of,
    unescape,
    words_of,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))


def turns(message: str) -> list[list[Directive]]:
    found = turns_of(message)
    assert found is not None
    return [turn.directives for turn in found]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("/think hm, well", Think("hm, well")),
        ("/text Hello  you ", Text("Hello  you ")),
        ("/text  two before", Text(" two before")),
        ("/text", Text("")),
        ("/text ", Text("")),
        ("/text /think not one", Text("/think not one")),
        ("/stream 3 20", Stream(3, 20, 0)),
        ("/stream 3 20 7", Stream(3, 20, 7)),
        ("/stream 0 0", Stream(0, 0, 0)),
        ("/wait 250", Wait(250)),
        ("/usage 12 34", Usage(12, 34)),
        ("/stop max_tokens", Stop("max_tokens")),
        ("/error 429", Fail("429", 1)),
        ("/error 529 3", Fail("529", 3)),
        ("/error cut always", Fail("cut", None)),
        ("/show system", Show("system")),
        ("/show messages", Show("messages")),
        ("/show tools", Show("tools")),
        ("/stream 0007 0000000000000005", Stream(7, 5, 0)),
    ],
)
def test_each_line_means_what_the_table_says(line: str, meant: Directive) -> None:
    assert turns(line) == [[meant]]


@pytest.mark.parametrize("kind", ["400", "401", "429", "500", "529", "cut", "stall"])
def test_every_kind_of_error_is_known(kind: str) -> None:
    assert turns(f"/error {kind}") == [[Fail(kind, 1)]]


def test_other_lines_are_ignored_where_there_is_a_directive() -> None:
    assert turns("Please:\n/text a\nand then\n /text indented is none\n/texts neither\n/Text nor this\n/text b") == [
        [Text("a"), Text("b")]
    ]


@pytest.mark.parametrize("message", ["", "hello", "/unknown thing", " /text x", "say /text x", "//text x", "/"])
def test_a_message_without_directives_is_no_script(message: str) -> None:
    assert turns_of(message) is None


def test_lines_end_at_a_newline_and_a_carriage_return_before_it_is_dropped() -> None:
    assert turns("/text one \r\n/text t\rwo\n/text thr\u2028e\u0085e\x0bo\x0cf") == [
        [Text("one "), Text("t\rwo"), Text("thr\u2028e\u0085e\x0bo\x0cf")]
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\nb", "a\nb"),
        (r"a\\nb", r"a\nb"),
        (r"a\\\nb", "a\\\nb"),
        (r"\t \x41 \q \u12 \u00g0", r"\t \x41 \q \u12 \u00g0"),
        (r"\u00e4\u00C4", "äÄ"),
        (r"\ud83d\ude00", "😀"),
        (r"x\uD83D\uDE00y", "x😀y"),
        ("\ufeffkept", "\ufeffkept"),
        (r"\ufeffkept", "\ufeffkept"),
        ("ends in \\", "ends in \\"),
    ],
)
def test_escapes_mean_a_newline_a_backslash_and_a_character(written: str, meant: str) -> None:
    assert unescape(written) == meant
    assert turns(f"/text {written}") == [[Text(meant)]]


@pytest.mark.parametrize("written", [r"\ud83d", r"\ude00", r"\ud83d x \ude00", r"\ude00\ud83d", r"\ud83d\ud83d\ude00"])
def test_a_lone_surrogate_is_malformed(written: str) -> None:
    with pytest.raises(Malformed):
        unescape(written)
    [[text]] = turns(f"/text {written}")
    assert isinstance(text, Text)
    assert text.text.startswith("script error: line 1")


@given(texts)
def test_every_text_can_be_written(text: str) -> None:
    written = text.replace("\\", "\\\\").replace("\n", "\\n")
    assert unescape(written) == text


@given(texts)
def test_the_words_of_a_text_joined_are_the_text(text: str) -> None:
    words = words_of(text)
    assert "".join(words) == text
    assert all(word and len(word.split()) <= 1 for word in words)


def test_a_word_keeps_the_spaces_after_it() -> None:
    assert words_of("  Hello   big\n world ") == ["  ", "Hello   ", "big\n ", "world "]


def test_adjacent_tools_are_one_turn_and_what_follows_is_the_next() -> None:
    script = '/text a\n/tool clock\nignored\n/tool echo {"x": [1, "ü"]}\n/usage 1 2\n/text b'
    assert turns(script) == [
        [Text("a"), Tool("clock", {}), Tool("echo", {"x": [1, "ü"]})],
        [Usage(1, 2), Text("b")],
    ]


@pytest.mark.parametrize(
    "between", ["/text x", "/think x", "/wait 1", "/usage 1 1", "/stop x", "/show tools", "/error 429"]
)
def test_any_other_directive_between_two_tools_makes_two_turns(between: str) -> None:
    assert [len(turn) for turn in turns(f"/tool a\n{between}\n/tool b")] == [1, 2, 0]


def test_a_script_that_ends_in_a_tool_ends_with_an_empty_turn() -> None:
    assert turns("/tool clock") == [[Tool("clock", {})], []]


@pytest.mark.parametrize(
    ("line", "arguments"), [("/tool t", {}), ("/tool t  ", {}), ('/tool  t   {"a": {}}', {"a": {}})]
)
def test_no_json_is_an_empty_object(line: str, arguments: dict[str, Any]) -> None:
    assert turns(line)[0] == [Tool("t", arguments)]


@pytest.mark.parametrize(
    "line",
    [
        "/stream",
        "/stream 3",
        "/stream x 1",
        "/stream 1 -1",
        "/stream 1 1 1 1",
        "/stream 1.5 1",
        "/stream ٣ 1",
        "/stream 100001 0",
        "/stream 1 600001",
        "/stream " + "0" * 12 + "9999999999 0",
        "/stream " + "9" * 5000 + " 0",
        "/stream " + "0" * 12 + "9" * 5000 + " 0",
        "/tool",
        "/tool  ",
        "/tool t {",
        "/tool t []",
        "/tool t 3",
        "/tool t null",
        '/tool t {"a": NaN}',
        '/tool t {"a": -Infinity}',
        '/tool t {"a": 1e999}',
        r'/tool t {"a": "\ud800"}',
        r'/tool t {"\udc00": 1}',
        '/tool t {"a": ' + "9" * 5000 + "}",
        '/tool t {"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
        '/tool t {"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "/wait",
        "/wait x",
        "/wait 1 2",
        "/usage 1",
        "/usage 1 x",
        "/usage 1 99999999999999999999",
        "/stop",
        "/stop two words",
        "/error",
        "/error 404",
        "/error 429 x",
        "/error 429 1 1",
        "/error 429 never",
        "/show",
        "/show all",
        r"/text \ud800",
        r"/think \udfff",
    ],
)
def test_a_malformed_directive_becomes_a_text_that_names_its_line(line: str) -> None:
    [[before, error, after]] = turns(f"/text a\n{line}\n/text b")
    assert (before, after) == (Text("a"), Text("b"))
    assert isinstance(error, Text)
    assert error.text.startswith("script error: line 2: ")
    assert len(error.text) < 300
    error.text.encode()


def test_arguments_may_be_nested_up_to_the_limit() -> None:
    inner = MAX_DEPTH - 1
    [[tool], _] = turns('/tool t {"a": ' + "[" * inner + "]" * inner + "}")
    assert isinstance(tool, Tool)


def test_a_malformed_line_stands_in_the_turn_where_it_was_written() -> None:
    assert [len(turn) for turn in turns("/tool a\n/wait\n/tool b\n/text c")] == [1, 2, 1]


NAMES = ["/think", "/text", "/stream", "/tool", "/wait", "/usage", "/stop", "/error", "/show", "hello", "/other"]
lines = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(["", " ", "  "]), texts | st.text('0123456789 -x{}[]"\\u d8')
).map("".join)


@given(st.lists(lines, max_size=8).map("\n".join))
def test_no_message_makes_the_script_fail(message: str) -> None:
    found = turns_of(message)
    if found is None:
        return
    for place, turn in enumerate(found):
        kinds = [isinstance(directive, Tool) for directive in turn.directives]
        assert kinds == sorted(kinds), "the tools of a turn stand at its end"
        assert turn.directives or place == len(found) - 1
        for tool in turn.tools:
            json.dumps(tool.arguments, allow_nan=False, ensure_ascii=False).encode()
    assert not found[-1].tools

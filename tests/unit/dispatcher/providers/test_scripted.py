"""The scripted model plays what the message says: blocks, errors at their place, usage, and the default answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers.base import Event, Request, Said, Stopped, Used
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_events.body import Usage

REQUEST = Request(
    model="scripted",
    system="Be kind.",
    messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    tools=[{"name": "clock", "description": "The time.", "input_schema": {"type": "object"}}],
    max_tokens=100,
    temperature=None,
    question="",
    turn=0,
    attempt=1,
    call_id="c0ffee_0",
)


@dataclass
class Heard:
    """What came of one attempt: the blocks, whole, and how it ended."""

    blocks: list[tuple[str, Any]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    stop_reason: str | None = None
    usage: Usage | None = None
    error: ModelError | None = None

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Said(block, kind, text):
                    assert text, "no empty piece"
                    if block == len(self.blocks):
                        self.blocks.append((kind, ""))
                    assert block == len(self.blocks) - 1, "blocks come one after another"
                    known, before = self.blocks[block]
                    assert known == kind
                    self.blocks[block] = (kind, before + text)
                    self.pieces.append(text)
                case Used(block, call_id, name, arguments):
                    assert block == len(self.blocks)
                    self.blocks.append(("tool", (call_id, name, arguments)))
                case Stopped(reason, usage):
                    assert self.stop_reason is None
                    self.stop_reason, self.usage = reason, usage


async def hear(script: str, turn: int = 0, attempt: int = 1, stall_s: float = 0.001, **more: Any) -> Heard:
    heard = Heard()
    request = replace(REQUEST, question=script, turn=turn, attempt=attempt, **more)
    try:
        async for event in ScriptedModel(stall_s).stream(request):
            heard.take([event])
    except ModelError as error:
        heard.error, heard.usage = error, error.usage
    assert (heard.stop_reason is None) == (heard.error is not None)
    return heard


async def test_a_text_is_streamed_word_by_word() -> None:
    heard = await hear("/text  Hello big   world ")
    assert heard.pieces == [" ", "Hello ", "big   ", "world "]
    assert heard.blocks == [("text", " Hello big   world ")]


async def test_a_stream_counts_in_four_digits_from_where_it_is_told() -> None:
    assert (await hear("/stream 3 0")).pieces == ["0000 ", "0001 ", "0002 "]
    assert (await hear("/stream 2 0 9999")).pieces == ["9999 ", "10000 "]


async def test_a_stamp_is_the_time_at_which_its_piece_is_said() -> None:
    now_ms = 1_790_000_000_000
    heard = Heard()
    model = ScriptedModel(1.0, lambda: now_ms)
    async for event in model.stream(replace(REQUEST, question="/text It is \n/stamp 3 0")):
        heard.take([event])
        now_ms += 20  # as long as it took to take that
    assert heard.pieces[-3:] == ["1790000000040 ", "1790000000060 ", "1790000000080 "]
    assert heard.blocks == [("text", "It is 1790000000040 1790000000060 1790000000080 ")]
    assert (await hear("/stamp 0 5")).blocks == []
    assert (await hear("/stamp 1")).blocks == [("text", "script error: line 1: expected /stamp COUNT DELAY_MS")]


async def test_each_piece_of_a_stream_is_followed_by_its_pause() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await hear("/stream 4 15")
    assert loop.time() - began >= 0.055
    began = loop.time()
    await hear("/wait 30")
    assert loop.time() - began >= 0.028


async def test_texts_streams_and_shows_join_into_one_block_with_nothing_between() -> None:
    heard = await hear("/text a\n/stream 2 0\n/wait 1\n/usage 1 1\n/show system\n/stop x\n/text b")
    assert heard.blocks == [("text", 'a0000 0001 "Be kind."b')]


async def test_only_a_thought_and_a_tool_close_a_block() -> None:
    heard = await hear("/text a\n/think b\n/text c\n/think\n/text d\n/tool clock")
    assert heard.blocks[:-1] == [("text", "a"), ("thought", "b"), ("text", "c"), ("text", "d")]
    assert heard.blocks[-1][0] == "tool"


async def test_nothing_said_is_no_block() -> None:
    assert (await hear("/text\n/stream 0 5\n/think\n/wait 0")).blocks == []


async def test_adjacent_tools_are_calls_of_one_turn_with_ids_of_their_own() -> None:
    heard = await hear('/tool clock\n/tool echo {"a": 1}')
    assert heard.blocks == [
        ("tool", ("call_c0ffee_0_0", "clock", {})),
        ("tool", ("call_c0ffee_0_1", "echo", {"a": 1})),
    ]
    assert heard.stop_reason == "tool_use"


async def test_a_repeated_attempt_gives_its_tools_the_same_ids() -> None:
    assert (await hear("/tool clock", attempt=3)).blocks == (await hear("/tool clock")).blocks


async def test_the_turn_says_where_in_the_script_to_play() -> None:
    script = "/text one\n/tool clock\n/text two\n/tool clock"
    assert [(await hear(script, turn)).blocks[:1] for turn in range(4)] == [
        [("text", "one")],
        [("text", "two")],
        [],
        [],
    ]
    assert (await hear(script, 2)).stop_reason == "end_turn"


async def test_usage_is_the_words_of_the_message_in_and_the_words_of_the_text_out() -> None:
    script = "Hello!\n/text three words here\n/think not counted\n/text and two \n/stream 2 0"
    heard = await hear(script)
    assert heard.usage == Usage(input_tokens=len(script.split()), output_tokens=6)


async def test_usage_and_stop_are_reported_as_told_by_their_turn_alone() -> None:
    script = "/usage 70 9\n/stop max_tokens\n/text a\n/tool clock\n/text b"
    first, second = await hear(script), await hear(script, 1)
    assert first.usage == Usage(input_tokens=70, output_tokens=9)
    assert first.stop_reason == "max_tokens"
    assert second.usage == Usage(input_tokens=len(script.split()), output_tokens=1)
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("kind", "retry"), [("400", False), ("401", False), ("429", True), ("500", True), ("529", True)]
)
async def test_an_api_error_comes_before_anything_else_and_reports_nothing(kind: str, retry: bool) -> None:
    heard = await hear(f"/text said first\n/usage 5 5\n/error {kind}")
    assert heard.blocks == []
    assert heard.error is not None
    assert (heard.error.kind, heard.error.retry, heard.usage) == (kind, retry, Usage())


@pytest.mark.parametrize("kind", ["cut", "stall"])
async def test_a_broken_stream_breaks_at_its_place_and_reports_what_was_said(kind: str) -> None:
    script = f"/think one two\n/text three four \n/error {kind}\n/text never"
    heard = await hear(script)
    assert heard.blocks == [("thought", "one two"), ("text", "three four ")]
    assert heard.error is not None
    assert (heard.error.kind, heard.error.retry) == (kind, True)
    assert heard.usage == Usage(input_tokens=len(script.split()), output_tokens=2)


async def test_a_broken_stream_reports_the_in_that_usage_says_and_the_words_said_so_far() -> None:
    heard = await hear("/usage 70 9\n/text one\n/error cut")
    assert heard.usage == Usage(input_tokens=70, output_tokens=1)


async def test_a_stall_is_silent_for_as_long_as_is_set() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await hear("/error stall", stall_s=0.05)
    assert loop.time() - began >= 0.045


@pytest.mark.parametrize(
    ("line", "failing"),
    [("/error 429", 1), ("/error cut 2", 2), ("/error stall 3", 3), ("/error 500 0", 0), ("/error 529 always", 9)],
)
async def test_an_error_fails_the_first_times_attempts(line: str, failing: int) -> None:
    script = f"{line}\n/text done"
    failed = [(await hear(script, attempt=attempt)).error is not None for attempt in range(1, 10)]
    assert failed == [True] * failing + [False] * (9 - failing)


async def test_an_error_is_its_own_turns_alone() -> None:
    script = "/text a\n/tool clock\n/error 429\n/text b"
    assert (await hear(script)).error is None
    assert (await hear(script, 1)).error is not None


async def test_several_errors_of_one_turn_each_count_their_own_attempts() -> None:
    script = "/text a\n/error cut 3\n/error 429 1\n/error 500 2\n/text b"
    kinds = [error and error.kind for error in [(await hear(script, attempt=n)).error for n in (1, 2, 3, 4)]]
    assert kinds == ["429", "500", "cut", None]


@pytest.mark.parametrize("what", ["system", "messages", "tools"])
async def test_show_says_the_exact_json_that_the_call_was_given(what: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": 'ä "quoted"\n\u2028 😀'}]}]
    heard = await hear(f"/show {what}", messages=messages)
    [(kind, text)] = heard.blocks
    assert kind == "text"
    assert json.loads(text) == {"system": "Be kind.", "messages": messages, "tools": REQUEST.tools}[what]
    assert what != "messages" or "ä" in text


async def test_a_message_without_directives_looks_at_the_clock_and_repeats_what_was_said() -> None:
    first = await hear("What's\nup?")
    assert first.blocks == [("tool", ("call_c0ffee_0_0", "clock", {}))]
    result = {"type": "tool_result", "tool_use_id": "x", "content": '{"now": "2026-01-02T03:04:05.678Z"}'}
    messages = [*REQUEST.messages, {"role": "assistant", "content": []}, {"role": "user", "content": [result]}]
    second = await hear("What's\nup?", 1, messages=messages)
    assert second.blocks == [("text", 'You said: "What\'s\nup?" at 2026-01-02T03:04:05.678Z')]
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize("content", ["no json", "{}", "[]", '"x"'])
async def test_without_a_time_the_answer_still_repeats_what_was_said(content: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "x", "content": content}
    heard = await hear("hi", 1, messages=[{"role": "user", "content": [result]}])
    assert heard.blocks == [("text", 'You said: "hi"')]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 3), st.integers(1, 3))
def test_any_message_is_played(message: str, turn: int, attempt: int) -> None:
    heard = asyncio.run(hear(message, turn, attempt))
    assert heard.usage is not None

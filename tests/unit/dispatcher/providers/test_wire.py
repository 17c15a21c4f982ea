"""What is sent: names and ids in the API's alphabet, its cache marked, and the parameters that a model takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from parley_dispatcher.prompt import build_request
from parley_dispatcher.providers.wire import to_wire
from parley_dispatcher.steps import CallModel, next_step
from tests.support.messages_api import KEY, NEW, MessagesApi, Received
from tests.unit.dispatcher.journals import Journal, journals
from tests.unit.dispatcher.providers.test_claude import REQUEST
from tests.unit.dispatcher.story import Story, text, use
from tests.unit.dispatcher.world import agent

SPEC = agent(model="scripted", system_prompt="Be kind.")
TOOLS = [
    {"name": name, "description": "", "input_schema": {"type": "object"}}
    for name in ("clock", "ledger/pay", "ein Wörterbuch", "x" * 100)
]


def accepted(body: dict[str, Any], issued: set[tuple[str, str]] | None = None) -> None:
    """Fails unless the API would take it."""
    api = MessagesApi()
    api._issued |= issued or set()
    received = Received({"anthropic-version": NEW, "x-api-key": KEY}, {**body, "stream": True})
    assert api._wrong("POST /v1/messages HTTP/1.1", received) is None


def test_names_that_the_api_refuses_are_changed_and_lead_back() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("ledger/pay", "t1"), use("made up!", "t2"), use("clock", "t3"))
    wire = to_wire(build_request(story.thread, run, SPEC, None, TOOLS, 1), {})
    accepted(wire.body)
    sent = [tool["name"] for tool in wire.body["tools"]]
    assert sent[0] == "clock"
    assert [wire.names.get(name, name) for name in sent] == [tool["name"] for tool in TOOLS]
    used = [block["name"] for block in wire.body["messages"][1]["content"]]
    assert [wire.names.get(name, name) for name in used] == ["ledger/pay", "made up!", "clock"]
    assert used[0] == sent[1]


def test_an_id_that_a_model_gives_again_and_again_is_told_apart_and_each_call_keeps_its_result() -> None:
    story = Story()
    run = story.posted()
    for turn in range(3):
        story.returned(run, use("clock", "call 0"), use("clock", "call 0"))
        for index in range(2):
            story.tool_called(run, index)
            story.tool_returned(run, index, "ok", f"{turn}.{index}")
    body = to_wire(build_request(story.thread, run, SPEC, None, [], 1), {}).body
    accepted(body)
    ids = [block["id"] for message in body["messages"][1::2] for block in message["content"]]
    results = [(block["tool_use_id"], block["content"]) for m in body["messages"][2::2] for block in m["content"]]
    assert results == list(zip(ids, ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"], strict=True))


def test_blank_texts_and_empty_errors_are_not_sent() -> None:
    story = Story()
    first = story.posted("one", " \n")
    story.returned(first, text("  "), use("clock", "t"))
    story.tool_called(first)
    story.tool_returned(first, 0, "error", "")
    story.returned(first, text("\n"))
    story.completed(first)
    accepted(to_wire(build_request(story.thread, story.posted("two", "on"), SPEC, None, [], 1), {}).body)


def test_the_cache_is_marked_at_tools_system_and_the_last_two_questions() -> None:
    story = Story()
    run = story.posted()
    for number in range(30):
        story.returned(run, text("so"), use("clock", f"t{number}"))
        story.tool_called(run)
        story.tool_returned(run)
    body = to_wire(build_request(story.thread, run, SPEC, None, list(TOOLS), 1), {}).body
    accepted(body)
    assert json.dumps(body).count("cache_control") == 4
    assert "cache_control" in body["tools"][-1] and "cache_control" in body["system"][-1]
    marked = [i for i, m in enumerate(body["messages"]) if "cache_control" in json.dumps(m)]
    assert marked == [len(body["messages"]) - 3, len(body["messages"]) - 1]
    assert "cache_control" not in json.dumps(TOOLS), "schemas are shared: they must not be changed"


def test_what_was_marked_before_is_the_beginning_of_what_is_sent_next() -> None:
    """Otherwise nothing would ever be read from the cache."""
    story = Story()
    run = story.posted()

    def sent() -> list[Any]:
        body = to_wire(build_request(story.thread, run, SPEC, None, list(TOOLS), 1), {}).body
        return list(json.loads(json.dumps(body).replace(', "cache_control": {"type": "ephemeral"}', ""))["messages"])

    before = sent()
    for number in range(3):
        story.returned(run, text("so"), use("clock", f"t{number}"))
        story.tool_called(run)
        story.tool_returned(run)
        assert sent()[: len(before)] == before
        before = sent()


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-sonnet-5-5", None, None),
        ("claude-sonnet-5-5", "adaptive", {"type": "adaptive", "display": "summarized"}),
        ("claude-sonnet-5-5", 2048, {"type": "adaptive", "display": "summarized"}),
        ("claude-sonnet-5-5", "off", {"type": "between_tools"}),
        ("claude-opus-5-5", "off", None),
        ("claude-haiku-5-5", "off", {"type": "disabled"}),
        ("claude-opus-5", "off", {"type": "disabled"}),
        ("claude-fable-5", "off", None),
        ("claude-opus-4-6", 2048, {"type": "adaptive", "display": "summarized"}),
        ("claude-haiku-4-5-20251001", 2048, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-haiku-4-5", 100_000, {"type": "enabled", "budget_tokens": 8191}),
        ("claude-haiku-4-5", "adaptive", {"type": "enabled", "budget_tokens": 4096}),
        ("claude-haiku-4-5", "off", None),
        ("claude-3-7-sonnet-20250219", 2048, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-mythos-preview", 2048, {"type": "adaptive", "display": "summarized"}),
        ("llama", 2048, {"type": "enabled", "budget_tokens": 2048}),
        ("llama", "off", None),
        ("llama", None, None),
    ],
)
def test_thinking_is_asked_for_as_the_model_wants_it(model: str, thinking: Any, sent: Any) -> None:
    body = to_wire(replace(REQUEST, model=model, thinking=thinking, max_tokens=8192), {}).body
    assert body.get("thinking") == sent
    accepted(body)


def test_an_answer_too_short_for_a_budget_is_without() -> None:
    assert "thinking" not in to_wire(replace(REQUEST, model="claude-haiku-4-5", thinking=2048), {}).body


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-haiku-4-5", None, 0.3),
        ("claude-opus-4-6", None, 0.3),
        ("llama", None, 0.3),
        ("claude-haiku-4-5", 2048, None),
        ("claude-opus-4-7", None, None),
        ("claude-sonnet-5-5", None, None),
        ("claude-mythos-preview", None, None),
    ],
)
def test_a_temperature_goes_to_models_that_take_one(model: str, thinking: Any, sent: Any) -> None:
    request = replace(REQUEST, model=model, thinking=thinking, temperature=0.3, max_tokens=8192)
    assert to_wire(request, {}).temperature == sent


@settings(max_examples=200, deadline=None)
@given(journals())
def test_whatever_a_journal_holds_the_api_takes_the_call_that_is_due(journal: Journal) -> None:
    for run in journal.state.runs.values():
        if not isinstance(next_step(run, SPEC.limits, 0), CallModel) or run.posted_seq <= journal.state.cleared_seq:
            continue
        body = to_wire(build_request(journal.state, run, SPEC, None, list(TOOLS), 1), {}).body
        signed = {
            (part["thinking"], part["signature"])
            for message in body["messages"]
            for part in message["content"]
            if part["type"] == "thinking"
        }
        accepted(body, signed)

"""A run that has ended, as one sees it who comes back."""

from __future__ import annotations

import io
from typing import Any

from parley_standalone.terminal import past
from parley_standalone.terminal.screen import Screen

SCREEN = Screen(io.StringIO())
POSTED = {"type": "message.posted", "content": "one\ntwo", "author": {}, "attachments": [{"name": "a.txt"}]}
CALL = {"id": "c", "name": "clock", "arguments": {}, "status": "ok", "result": "now"}


def shown(facts: list[dict[str, Any]], messages: list[dict[str, Any]]) -> list[str]:
    return [row.plain.rstrip() for row in past.rows(SCREEN, facts, messages, 79)]


def test_question_turns_and_tools_stand_in_their_order_and_apart() -> None:
    facts: list[dict[str, Any]] = [
        POSTED,
        {"type": "model.called", "model": "m"},
        {"type": "model.returned", "content": "Let me see."},
        {"type": "tool.called", "tool_call": CALL},
        {"type": "tool.returned", "tool_call": CALL},
        {"type": "model.returned", "content": "## Head"},
        {"type": "run.completed", "stop_reason": "end_turn"},
    ]
    assert shown(facts, []) == [
        "› one",
        "  two",
        "  with a.txt",
        "",
        "Let me see.",
        "",
        "  ✓ clock → now",
        "",
        "Head",
    ]


def test_what_a_cancelled_turn_had_said_comes_from_its_message() -> None:
    facts: list[dict[str, Any]] = [
        POSTED,
        {"type": "model.returned", "content": "First. "},
        {"type": "run.cancelled", "message_id": "a", "reason": None},
    ]
    messages = [{"id": "b", "content": "another"}, {"id": "a", "content": "First. Half a \x1b[2Jsen"}]
    assert shown(facts, messages)[4:] == ["First.", "", "Half a ␛[2Jsen", "  – cancelled"]


def test_a_long_answer_is_cut_and_says_so() -> None:
    facts: list[dict[str, Any]] = [
        POSTED,
        {"type": "model.returned", "content": "\n".join(f"- {n}" for n in range(100))},
    ]
    found = shown(facts, [])
    assert len(found) == past.MOST_ROWS + 1
    assert found[-1] == f"… {4 + 100 - past.MOST_ROWS} more rows"

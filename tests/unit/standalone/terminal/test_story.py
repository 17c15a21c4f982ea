"""What frames mean to someone who watches."""

from __future__ import annotations

from typing import Any

import pytest

from parley_standalone.terminal import story
from parley_standalone.terminal.tail import parts

USAGE = {"input_tokens": 3, "output_tokens": 4}
CALL = {"id": "c1", "name": "echo", "arguments": {"a": "ü"}, "status": "running"}
DONE = {**CALL, "result": "line one\n line two", "is_error": False, "status": "ok"}


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ({"type": "text.delta", "delta": "Hi "}, story.Piece("text", "Hi ")),
        ({"type": "thought.delta", "delta": "hm"}, story.Piece("thought", "hm")),
        ({"type": "model.returned", "content": "Hi you"}, story.Closed("Hi you")),
        ({"type": "run.restarted", "attempt": 2}, story.Anew(2)),
        (
            {
                "type": "message.posted",
                "content": "q",
                "author": {"id": "u", "name": "Ann"},
                "status": "queued",
                "attachments": [{"name": "a.txt"}],
            },
            story.Asked("q", "Ann", True, ("a.txt",)),
        ),
        ({"type": "tool.called", "tool_call": CALL}, story.ToolBegan("c1", "echo", '{"a": "ü"}')),
        (
            {"type": "tool.returned", "tool_call": DONE, "duration_ms": 12, "files": [{"name": "x.png"}]},
            story.ToolEnded("c1", "echo", '{"a": "ü"}', "ok", 12, "line one line two", ("x.png",)),
        ),
        (
            {"type": "model.failed", "error": {"code": "model_cut", "message": "m"}, "retry": True},
            story.Note("the model call failed (model_cut): trying again"),
        ),
        (
            {"type": "approval.requested", "approval_id": "p1", "tool_call": CALL, "question": "Go\x1b?"},
            story.ApprovalAsked("p1", "echo", '{"a": "ü"}', "Go␛?"),
        ),
        (
            {
                "type": "approval.answered",
                "approval_id": "p1",
                "decision": "approve",
                "by": "bob",
                "comment": "ok",
                "arguments": {"a": 1},
            },
            story.ApprovalOver("p1", 'approved by bob as {"a": 1}: ok'),
        ),
        (
            {"type": "approval.answered", "approval_id": "p1", "decision": "deny", "by": "bob", "comment": None},
            story.ApprovalOver("p1", "denied by bob"),
        ),
        (
            {"type": "approval.expired", "approval_id": "p1"},
            story.ApprovalOver("p1", "nobody answered in time: denied"),
        ),
        ({"type": "run.waiting", "waits_for": "approval"}, story.Waits("an approval")),
        ({"type": "run.waiting", "waits_for": "client_tool"}, story.Waits("a tool that the client runs")),
        (
            {"type": "tool.called", "run_id": "r1", "tool_call": {**CALL, "status": "waiting"}},
            story.HandedOver("r1", "c1", "echo", '{"a": "ü"}'),
        ),
        ({"type": "tool.expired", "tool_call": CALL}, story.Note("echo: no result came in time")),
        (
            {"type": "tool.settled", "tool_call": {"id": "c1"}, "by": "bob", "happened": True},
            story.Note("bob says of the call c1: it happened"),
        ),
        ({"type": "run.restarted", "attempt": None}, story.Anew(0)),
        ({"type": "run.completed", "stop_reason": "end_turn", "usage": USAGE}, story.Ended("completed", "", (3, 4))),
        (
            {"type": "run.completed", "stop_reason": "max_tokens", "usage": USAGE},
            story.Ended("completed", "max_tokens", (3, 4)),
        ),
        (
            {"type": "run.failed", "error": {"code": "model_400", "message": "no"}, "usage": USAGE},
            story.Ended("failed", "model_400: no", (3, 4)),
        ),
        ({"type": "run.cancelled", "reason": None}, story.Ended("cancelled", "", (0, 0))),
    ],
)
def test_a_frame_tells_its_event(frame: dict[str, Any], event: story.Event) -> None:
    assert story.events(frame) == [event]


def test_a_frame_of_an_unknown_type_tells_nothing() -> None:
    assert story.events({"type": "moon.rose"}) == story.events({}) == []


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]52;c;cHdk\x07",
        "\x1b[2J\x1b[H",
        "\x9b31m",
        "a\rb",
        "\x08\x08",
        "\u202egnp.exe",
        "\x7f",
    ],
)
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    frames: list[dict[str, Any]] = [
        {"type": "text.delta", "delta": text},
        {"type": "thought.delta", "delta": text},
        {"type": "model.returned", "content": text},
        {"type": "message.posted", "content": text, "author": {"name": text}, "attachments": [{"name": text}]},
        {"type": "tool.called", "tool_call": {"id": "c", "name": text, "arguments": {"a": text}}},
        {"type": "tool.returned", "tool_call": {"id": "c", "name": text, "result": text}, "files": [{"name": text}]},
        {"type": "model.failed", "error": {"code": text}},
        {"type": "run.failed", "error": {"code": text, "message": text}},
        {"type": "run.cancelled", "reason": text},
        {"type": "approval.requested", "tool_call": {"name": text}},
        {"type": "thread.created", "seed": {"agent_id": text, "title": text}},
    ]
    for frame in frames:
        shown = repr(story.events(frame)) + "".join(part for part, _ in parts(frame, True))
        assert (
            not set(text)
            & {chr(n) for n in [*range(0x20), *range(0x7F, 0xA0), 0x202E]}
            & set(
                "".join(str(field) for event in story.events(frame) for field in event)
                + "".join(part for part, _ in parts(frame, True))
            )
        ), (frame["type"], shown)


def test_newlines_and_tabs_stay() -> None:
    assert story.clean("a\r\nb\tc") == "a\nb\tc"


def test_short_is_one_line_and_says_that_it_is_cut() -> None:
    assert story.short(" a\n b ", 10) == "a b"
    assert story.short("x" * 20, 10) == "x" * 9 + "…"


def test_a_fact_on_a_line() -> None:
    fact = {
        "type": "tool.returned",
        "seq": 7,
        "thread_id": "0f0f0f0f-1111-4222-8333-444444444444",
        "run_id": "0f0f0f0f-1111-4222-8333-444444444444.r12345678",
        "created_at": "2026-01-02T03:04:05.678Z",
        "tool_call": DONE,
    }
    line = "".join(part for part, _ in parts(fact, True))
    assert line == "03:04:05.678 0f0f0f0f    7 tool.returned      .r1234567 echo ok: line one line two"

"""That every answer is held to its document is only worth something if a wrong one is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parley_gateway.dialects.threads import openapi as threads
from tests.support.documented import check, documented

THREADS = "/api/v1/chat/threads"
MESSAGES = f"{THREADS}/x/messages"
JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream; charset=utf-8"}
FRAME: dict[str, Any] = {
    "type": "text.delta",
    "seq": 3,
    "thread_id": "t",
    "run_id": "r",
    "message_id": "m",
    "delta": "a",
}


def answered(value: Any, status: int = 201, headers: dict[str, str] = JSON) -> None:
    check("POST", THREADS, status, headers, json.dumps(value).encode(), True)


def streamed(*frames: Any) -> None:
    body = "".join(f"id: 1\ndata: {json.dumps(frame)}\n\n" for frame in frames)
    check("POST", MESSAGES, 200, STREAM, body.encode(), False)


def test_what_is_documented_passes() -> None:
    answered(threads.THREAD)
    answered({"error": "unauthorized", "message": "m"}, 401)
    streamed(FRAME, {**FRAME, "type": "run.completed", "anything": "more"})
    check("GET", "/nowhere", 418, {}, b"?", True)
    check("DELETE", f"{THREADS}/x", 204, {}, b"", True)
    check("POST", MESSAGES, 200, STREAM, b'id: 1\ndata: {"type"', False)


@pytest.mark.parametrize(
    ("value", "status", "headers"),
    [
        ({**threads.THREAD, "more": 1}, 201, JSON),
        ({name: value for name, value in threads.THREAD.items() if name != "title"}, 201, JSON),
        ({**threads.THREAD, "pinned": "no"}, 201, JSON),
        (threads.THREAD, 200, JSON),
        (threads.THREAD, 201, {"content-type": "text/plain"}),
        ({"error": "invented", "message": "m"}, 400, JSON),
        ({"error": "unauthorized", "message": "m"}, 403, JSON),
        ({"error": {"code": "unauthorized", "message": "m"}}, 401, JSON),
        ({"detail": "Not Found"}, 404, JSON),
    ],
    ids=str,
)
def test_what_is_not_documented_is_noticed(value: Any, status: int, headers: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        answered(value, status, headers)


def test_a_wrong_frame_is_noticed_and_a_method_that_is_not_served() -> None:
    for wrong in ({**FRAME, "delta": 1}, {"type": "text.delta"}):
        with pytest.raises(AssertionError):
            streamed(FRAME, wrong)
    for status in (200, 404):
        with pytest.raises(AssertionError):
            check("PUT", THREADS, status, JSON, b"{}", True)
    with pytest.raises(AssertionError):
        check("DELETE", f"{THREADS}/x", 204, {}, b"{}", True)


def test_a_path_is_found_by_what_it_names_first() -> None:
    found = documented("/api/v1/chat/runs/cancel")
    assert found is not None and found.path == "/api/v1/chat/runs/cancel"
    named = documented("/api/v1/chat/runs/x")
    assert named is not None and named.path == "/api/v1/chat/runs/{run_id}"
    assert documented("/api/v1/chat/runs/x/y/z") is None

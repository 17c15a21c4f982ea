"""What is done once an answer has come to its client, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from parley_gateway.delivered import Delivered, gone
from parley_gateway.http import answer


async def waits() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def left() -> Message:
    return {"type": "http.disconnect"}


async def more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(("receive", "expected"), [(waits, False), (left, True), (more, False)])
async def test_whether_a_client_is_gone_is_seen_without_waiting(receive: Any, expected: bool) -> None:
    assert gone(receive) is expected


@pytest.mark.parametrize(("receive", "expected"), [(waits, ["start", "body", "then"]), (left, ["start", "body"])])
async def test_it_is_done_after_the_last_send_and_if_the_client_was_there(receive: Any, expected: list[str]) -> None:
    seen: list[str] = []
    heads: list[Any] = []

    async def send(message: Message) -> None:
        seen.append(message["type"].rpartition(".")[2])
        heads.extend(message.get("headers", ()))

    made = Delivered(answer(200, {"a": 1}), lambda: seen.append("then"))
    made.raw_headers.append((b"x-limited", b"yes"))
    await made({"type": "http"}, receive, send)
    assert seen == expected
    assert (b"x-limited", b"yes") in heads, "what others put into its head is in the answer's"


async def test_an_answer_that_cannot_be_sent_was_not_delivered() -> None:
    seen: list[str] = []

    async def send(message: Message) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await Delivered(answer(200, {}), lambda: seen.append("then"))({"type": "http"}, waits, send)
    assert seen == []

"""A chat followed on one gateway is taken up on the other while it still runs, at many of its ids, in both contracts.

Every follower joins in the middle, from an id that the first one was given a moment ago, and follows live to the end:
what it has then, with what came before its id, is what the one that never left has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.sse import Frame, text_of
from tests.support.system import System, collect, new_thread, stream

SCRIPT = "\n".join(
    (
        "/think One moment. ",
        "/stream 60 20",
        '/tool echo {"n": 1}',
        "/stream 60 20 60",
        '/tool sleep {"ms": 300}',
        "/text caf\\u00e9 \\ud83d\\ude00 ",
        "/stream 60 20 120",
    )
)
TEXT = (
    "".join(f"{i:04d} " for i in range(120)) + "caf\u00e9 \U0001f600 " + "".join(f"{i:04d} " for i in range(120, 180))
)
EVERY = 4
"""A new follower joins at every so many-th frame."""


@dataclass(frozen=True, slots=True)
class Contract:
    """How one contract posts, resumes, and words texts, facts and the end."""

    events: str
    text: Callable[[list[Frame]], str]
    thought: Callable[[list[Frame]], str]
    is_piece: Callable[[Frame], bool]
    end: str

    def facts(self, frames: list[Frame]) -> list[Any]:
        return [(frame.id, frame.data) for frame in frames if not self.is_piece(frame)]


def _said(kind: str) -> Callable[[list[Frame]], str]:
    return lambda frames: "".join(frame.data["content"] for frame in frames if frame.type == kind)


CONTRACTS = {
    "threads": Contract(
        "/api/v1/chat/runs/{}/events",
        text_of,
        lambda frames: text_of(frames, "thought.delta"),
        lambda frame: frame.type.endswith(".delta"),
        "run.completed",
    ),
    "org_chat": Contract(
        "/api/org/chat/runs/{}/events",
        _said("text"),
        _said("thought"),
        lambda frame: frame.type in ("text", "thought"),
        "complete",
    ),
}


@pytest.mark.parametrize("name", CONTRACTS)
async def test_a_chat_is_taken_up_on_the_other_gateway_wherever_it_is(cluster: System, name: str) -> None:
    contract = CONTRACTS[name]
    seen: list[Frame] = []
    joined: list[tuple[int, asyncio.Task[list[Frame]]]] = []
    async with cluster.client() as client, cluster.client(1) as second:
        if name == "threads":
            url, body = f"/api/v1/chat/threads/{await new_thread(client)}/messages", {"content": SCRIPT}
        else:
            workspace = cluster.ready()["workspace_id"]
            url = "/api/org/chat/message"
            body = {"structure_id": workspace, "role_id": "scripted", "message": SCRIPT}
        async with stream(client, "POST", url, json=body) as (response, frames):
            events = contract.events.format(response.headers["Parley-Run-Id"])
            async for frame in frames:
                seen.append(frame)
                if len(seen) % EVERY == 0 and frame.type != contract.end:
                    # In turn: the id of a moment ago, and one from some pieces ago, whose sequel lies behind already.
                    place = len(seen) if len(joined) % 2 else max(1, len(seen) - 8)
                    headers = {"Last-Event-ID": seen[place - 1].id or ""}
                    joined.append((place, asyncio.create_task(collect(second, "GET", events, headers=headers))))
        rests = [(place, await task) for place, task in joined]
    assert seen[-1].type == contract.end
    assert contract.text(seen) == TEXT
    assert contract.thought(seen) == "One moment. "
    assert len(joined) >= 10, "too few followers joined to say anything"
    for place, rest in rests:
        together = seen[:place] + rest
        where = f"resumed at {seen[place - 1].id}"
        assert contract.text(together) == TEXT, where
        assert contract.thought(together) == "One moment. ", where
        assert contract.facts(together) == contract.facts(seen), where
    # Those that joined well within a text must have heard it go on, not only had it whole with the fact that ends it.
    within = [rest for place, rest in rests if all(map(contract.is_piece, seen[place : place + 16]))]
    live = [rest for rest in within if all(map(contract.is_piece, rest[:3]))]
    assert within and len(live) > len(within) / 2

"""Agents on Claude, over real HTTP, with Kafka and PostgreSQL: as users get them with a key in the environment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from parley_events.partition import partition_of
from tests.support.messages_api import (
    KEY,
    SIGNATURE,
    Hold,
    MessagesApi,
    Play,
    Received,
    end,
    numbered,
    start,
    text,
    thought,
    tool,
    turn,
)
from tests.support.processes import kill
from tests.support.runs import check_run, follow, post, until
from tests.support.sse import Frame, text_of
from tests.support.system import System, collect, new_thread, stop
from tests.support.system import start as start_system
from tests.support.topics import owner_pid, read_topic

pytestmark = pytest.mark.breaks

PIECES = [f"{i:03d} " for i in range(300)]
HALF = 100


class Claude:
    """What the model says to each request, whoever sends it: `sum` is a thought, two tools and an answer; `long` is a
    long text, whose first attempt stands still in the middle."""

    def __init__(self) -> None:
        self.hold = Hold()
        self.attempts = 0

    def play(self, request: Received) -> Play:
        asked = request.messages[0]["content"][-1]["text"]
        if asked == "sum":
            if len(request.messages) == 1:
                return turn(
                    thought("Both tools ", "are needed."),
                    text("One moment. "),
                    tool("clock", "toolu_01A09q90qw90lq917835lq9"),
                    tool("calculator", "toolu_02B09q90qw90lq917835lq9", '{"expression"', ': "6 * 7"}'),
                    stop="tool_use",
                    cache_read_input_tokens=1000,
                )
            return turn(text("It is ", "42."))
        self.attempts += 1
        said = numbered(text(*PIECES))
        if self.attempts == 1:
            return Play([start(), *said[: HALF + 1], self.hold, *said[HALF + 1 :], *end()])
        return turn(text(*PIECES))


async def chat(system: System, api: MessagesApi) -> None:
    """A thought, two tools in one turn, an answer; then the next message, which shows all of it again."""
    async with system.client() as client:
        thread = await new_thread(client, "assistant")
        url = f"/api/v1/chat/threads/{thread}/messages"
        frames = await collect(client, "POST", url, json={"content": "sum"})
    facts = await check_run(system, frames[-1].data["run_id"], frames, "One moment. It is 42.")
    assert text_of(frames, "thought.delta") == "Both tools are needed."
    tools = [fact["tool_call"] for fact in facts if fact["type"] == "tool.returned"]
    assert sorted((call["name"], call["status"]) for call in tools) == [("calculator", "ok"), ("clock", "ok")]
    assert next(call["result"] for call in tools if call["name"] == "calculator").count("42") == 1
    assert [fact["model"] for fact in facts if fact["type"] == "model.called"] == ["claude-sonnet-5-5"] * 2
    usage = frames[-1].data["usage"]
    assert (usage["cache_read_tokens"], usage["cache_write_tokens"]) == (1000, 0)
    async with system.client() as client:
        run = (await client.get(f"/api/v1/chat/runs/{frames[-1].data['run_id']}")).json()
    assert run["usage"] == usage, "history tells what the end told"
    thinking = {"type": "thinking", "thinking": "Both tools are needed.", "signature": SIGNATURE}
    assert api.requests[1].messages[1]["content"][0] == thinking
    assert api.requests[0].body["thinking"] == {"type": "adaptive", "display": "summarized"}


async def crash(system: System, claude: Claude) -> None:
    """The dispatcher dies in the middle of a stream: the next owner calls the model anew, and no word is missed."""
    async with system.client() as client:
        thread = await new_thread(client, "assistant")
    run = (await post(system, thread, "long", key="long"))["run_id"]
    seen: list[Frame] = []
    following = asyncio.create_task(follow(system, run, 0, seen))
    try:
        await asyncio.wait_for(claude.hold.reached.wait(), 30)
        await until(seen, lambda seen: text_of(seen) == "".join(PIECES[:HALF]))
        partition = partition_of(thread.encode(), 8)
        records = await read_topic(system.ready()["kafka"], "parley.events", partition)
        kill(owner_pid(records, partition))
        await following
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    facts = await check_run(system, run, seen, "".join(PIECES))
    assert [fact["attempt"] for fact in facts if fact["type"] == "model.called"] == [1, 2]
    middle = next(frame.id for frame in seen[len(seen) // 2 :] if frame.id)
    head = seen[: 1 + next(i for i, frame in enumerate(seen) if frame.id == middle)]
    async with system.client(1) as client:
        url = f"/api/v1/chat/runs/{run}/events"
        rest = await collect(client, "GET", url, headers={"Last-Event-ID": middle})
    assert text_of([*head, *rest]) == "".join(PIECES)
    assert claude.attempts == 2


def holds(folder: Path, secret: str) -> list[str]:
    """The files below a folder that hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


async def test_agents_run_on_claude_and_a_crash_in_the_middle_of_a_stream_costs_no_word(tmp_path: Path) -> None:
    claude = Claude()
    async with MessagesApi(choose=claude.play) as api:
        system = await asyncio.to_thread(
            start_system,
            "cluster",
            tmp_path,
            GATEWAYS="2",
            DISPATCHERS="2",
            RESTART="1",
            ANTHROPIC_API_KEY=KEY,
            ANTHROPIC_BASE_URL=api.base_url,
            PARLEY_MODEL_BACKOFF_MS="20",
        )
        try:
            await chat(system, api)
            await crash(system, claude)
            assert api.violations == []
            assert all(json.dumps(request.body).find(KEY) < 0 for request in api.requests)
            assert holds(tmp_path, KEY) == [], "the key was written down"
        finally:
            assert await asyncio.to_thread(stop, system) == 0

"""Who comes back to a thread knows what was open when it left, however long ago that began."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_gateway.feed.recall import AT_A_TIME, open_at
from tests.support.asgi import ask, exchange
from tests.unit.gateway.feed.stories import THREAD, Story
from tests.unit.gateway.feed.test_channel import CHAT, channels, frames, posted
from tests.unit.gateway.world import World, run_id_of, silence, tool_block, world

ARGUMENTS = {"zone": "é😀"}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.dispatcher.play = silence
        yield made


async def test_a_call_that_was_made_long_ago_is_known_with_its_arguments(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    call = d.called(fact)
    block = tool_block("clock", call, ARGUMENTS)
    d.returned(fact, call, block)
    place: dict[str, Any] = {
        "run_id": run_id_of(fact),
        "call": call,
        "index": 0,
        "tool_call_id": block.tool_call_id,
        "name": "clock",
    }
    more = {"arguments": ARGUMENTS, "effect": "read_only", "effect_key": "k"}
    d.append(fact.stream, f.ToolCalled.model_validate({**place, **more}))
    for number in range(2 * AT_A_TIME):
        last = d.append(fact.stream, f.ThreadUpdated(title=str(number), changes=("title",)))
    app, path = here.gateways[0][0], f"{CHAT}/threads/{fact.stream}/events"
    async with AsyncExitStack() as stack:
        back: dict[str, Any] = {"key": here.key, "headers": {"Last-Event-ID": str(last.seq)}}
        both = [await stack.enter_async_context(exchange(app, "GET", path, **back)) for _ in range(2)]
        await here.eventually(lambda: channels(here) == [2])
        d.append(fact.stream, f.ToolReturned.model_validate({**place, "status": "ok", "result": "noon"}))
        for x in both:
            await x.until(lambda x: len(frames(x)) == 1)
            assert frames(x)[0].data["tool_call"]["arguments"] == ARGUMENTS
    page = await ask(
        app,
        "GET",
        path,
        key=here.key,
        headers={"Accept": "application/json"},
        params={"cursor": str(last.seq), "min_position": f"{fact.stream}@{(last.seq or 0) + 1}"},
    )
    [item] = page.json()["items"]
    assert item["tool_call"]["arguments"] == ARGUMENTS


class Stored:
    """History with these facts, which counts what it is asked."""

    def __init__(self, facts: list[Fact]) -> None:
        self._facts, self.asked = facts, 0

    async def facts(
        self, workspace_id: str, stream: str, after: int, limit: int, order: str, min_position: Sequence[str]
    ) -> tuple[list[Fact], Any]:
        assert order == "desc"
        self.asked += 1
        return [fact for fact in reversed(self._facts) if not after or (fact.seq or 0) < after][:limit], None


@pytest.mark.parametrize("seq", [None, "last", "before the end"])
async def test_no_more_is_read_than_to_where_the_thread_was_free(seq: str | None) -> None:
    story = Story()
    for number in range(300):
        run = story.post(number)
        call = story.call(run, 0, 1)
        story.returned(run, call, 0, [Block(kind="text", text="x")])
        story.end(run)
    first = story.post(300)
    queued = story.post(301)
    call = story.call(first, 0, 1)
    last = len(story.facts)
    if seq == "before the end":
        story.returned(first, call, 0, [Block(kind="text", text="x")])
        story.end(first)
    stored: Any = Stored(story.facts)
    found = await open_at(stored, "w", THREAD, None if seq is None else last)
    assert [(fact.type, fact.run_id) for fact in found] == [
        ("message.posted", first),
        ("message.posted", queued),
        ("model.called", first),
    ]
    assert stored.asked == 1


async def test_in_a_thread_that_is_never_free_no_more_is_read_than_to_the_run_that_has_its_turn() -> None:
    """Each message comes before the run of the one before it has ended; one of them is cancelled while it waits."""
    story = Story()
    runs = [story.post(0)]
    for number in range(1, 200):
        runs.append(story.post(number))
        if number % 7 == 0:
            story.cancel(runs.pop(), None, [])
        if len(runs) > 1:
            run = runs.pop(0)
            call = story.call(run, 0, 1)
            story.returned(run, call, 0, [Block(kind="text", text="x")])
            story.end(run)
    call = story.call(runs[0], 0, 1)
    begun = next(fact.seq or 0 for fact in story.facts if fact.run_id == runs[0])
    stored: Any = Stored(story.facts)
    found = await open_at(stored, "w", THREAD, None)
    assert (found[0].type, found[0].run_id) == ("message.posted", runs[0]) and found[-1].seq == call
    assert stored.asked == 1 and begun > AT_A_TIME


async def test_a_thread_in_which_nothing_was_said_is_read_once() -> None:
    for count in (0, 1, 3):
        facts = [
            Fact("thread.updated", THREAD, seq, 0, "w", 0, f.ThreadUpdated(title="t", changes=("title",)))
            for seq in range(1, count + 1)
        ]
        stored: Any = Stored(facts)
        assert await open_at(stored, "w", THREAD, None) == []
        assert stored.asked == 1
        assert await open_at(stored, "w", THREAD, 0) == [] and stored.asked == 1

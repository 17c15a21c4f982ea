"""Runs on Claude: the whole way from a message to its answer, with a server that refuses what the API would refuse."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter

from parley_dispatcher import tool_calls
from parley_dispatcher.providers.base import Provider
from parley_dispatcher.providers.claude import Claude
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_dispatcher.tools import TOOLS
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Attachment, Usage
from parley_events.clock import system_clock
from parley_events.objects import ObjectStore, open_objects
from tests.support.messages_api import (
    KEY,
    SIGNATURE,
    Hold,
    MessagesApi,
    Play,
    block,
    error_event,
    failure,
    numbered,
    redacted,
    start,
    text,
    thought,
    tool,
    turn,
)
from tests.unit.dispatcher.world import ANN, WORKSPACE, World, agent, make_world, new_thread, post, within

CLAUDE = "claude-sonnet-5-5"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    agents = (
        agent("claude", model="default", thinking="adaptive"),
        agent("other", model=CLAUDE, thinking="adaptive"),
        agent("scripted"),
    )
    async with make_world(tmp_path, *agents) as made:
        yield made


@asynccontextmanager
async def running(world: World, *plays: Play, key: str = KEY, **settings: Any) -> AsyncIterator[MessagesApi]:
    """A dispatcher whose Claude is a server that plays so."""
    objects = settings.pop("objects", None) or open_objects("memory:")
    async with MessagesApi(*plays) as api:
        claude = Claude(
            objects,
            api_key=key,
            base_url=api.base_url if key else "",
            stall_s=5.0,
            secret_of=lambda reference: None,
            clock=system_clock,
        )
        providers: dict[str, Provider] = {"claude": claude, "scripted": ScriptedModel(5.0)}
        async with world.dispatcher(providers=providers, model=CLAUDE, objects=objects, **settings):
            yield api
        await claude.close()
        assert api.violations == []


async def ask(world: World, thread: str, words: str, **more: Any) -> Any:
    return await world.ask(thread, post(words, **({"agent_id": "claude"} | more)))


def blocks(world: World, thread: str) -> list[list[tuple[str, str]]]:
    """The turns that returned, as the kinds of their blocks and what they hold."""
    return [
        [(b.kind, b.text or b.name or json.dumps(b.data)) for b in returned.blocks]
        for returned in world.read.of(thread, f.ModelReturned)
    ]


async def test_a_thought_two_tools_and_an_answer(world: World) -> None:
    thread = new_thread()
    plays = (
        turn(
            thought("I look at the clock ", "and add."),
            redacted(),
            text("Looking. "),
            tool("clock", "toolu_1"),
            tool("calculator", "toolu_2", '{"expression": "6', ' * 7"}'),
            stop="tool_use",
        ),
        turn(thought("Now I know."), text("It is 42.")),
        turn(text("Again: 42.")),
    )
    async with running(world, *plays) as api:
        await ask(world, thread, "what is it?")
        ended = await world.read.ended(thread)
        await ask(world, thread, "and again?")
        await world.read.ended(thread, 2)
        first, second, third = api.requests
    assert (ended.stop_reason, ended.usage) == ("end_turn", Usage(input_tokens=50, output_tokens=30))
    assert [kind for kind, _ in blocks(world, thread)[0]] == ["thought", "opaque", "text", "tool", "tool"]
    assert {called.model for called in world.read.of(thread, f.ModelCalled)} == {CLAUDE}
    assert first.body["thinking"] == {"type": "adaptive", "display": "summarized"}
    said, results = second.messages[1]["content"], second.messages[2]["content"]
    assert said[0] == {"type": "thinking", "thinking": "I look at the clock and add.", "signature": SIGNATURE}
    assert [part["type"] for part in said] == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
    assert [part["tool_use_id"] for part in results] == ["toolu_1", "toolu_2"]
    assert "42" in results[1]["content"]
    assert [message["role"] for message in third.messages] == ["user", "assistant"] * 2 + ["user"]


async def test_the_pieces_have_the_numbers_of_the_blocks(world: World) -> None:
    thread = new_thread()
    said = (redacted(), thought(), thought("hm"), text(), text("a", "b"), tool("clock", "t"))
    async with running(world, turn(*said, stop="tool_use"), turn(text("Done."))):
        await ask(world, thread, "go")
        ended = await world.read.ended(thread)
    assert isinstance(ended, f.RunCompleted)
    first, second = world.read.of(thread, f.ModelReturned)
    assert [block.kind for block in first.blocks] == ["opaque", "thought", "thought", "text", "tool"]
    assert [block.text for block in first.blocks] == ["", "", "hm", "ab", ""]
    assert first.blocks[1].signature == first.blocks[2].signature == SIGNATURE
    whole = {(first.call, 2): "hm", (first.call, 3): "ab", (second.call, 0): "Done."}
    assert {(piece.call, piece.block) for piece in world.read.pieces} == whole.keys()
    assert all(piece.text in whole[piece.call, piece.block] for piece in world.read.pieces)


async def test_a_paused_turn_goes_on_with_what_it_said(world: World) -> None:
    thread = new_thread()
    search = block({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}})
    found = block({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []})
    async with running(
        world, turn(text("I search"), search, stop="pause_turn"), turn(found, text(" and find."))
    ) as api:
        await ask(world, thread, "search")
        ended = await world.read.ended(thread)
        await world.read.wait_for(thread, f.RunCompleted)
        second = api.requests[1]
    assert ended.stop_reason == "end_turn"
    assert [message["role"] for message in second.messages] == ["user", "assistant"]
    assert [part["type"] for part in second.messages[1]["content"]] == ["text", "server_tool_use"]


@pytest.mark.parametrize("reason", ["refusal", "model_context_window_exceeded"])
async def test_what_the_model_gives_up_is_over_and_its_calls_are_not_made(world: World, reason: str) -> None:
    thread = new_thread()
    plays = (turn(text("No"), tool("clock", "toolu_1"), stop=reason), turn(text("Yes.")))
    async with running(world, *plays):
        await ask(world, thread, "do it")
        ended = await world.read.ended(thread)
        await ask(world, thread, "something else")
        await world.read.ended(thread, 2)
    assert (type(ended), ended.stop_reason) == (f.RunCompleted, reason)
    assert world.read.of(thread, f.ToolCalled) == []


async def test_bad_calls_have_results_that_say_so_and_the_run_goes_on(world: World) -> None:
    thread = new_thread()
    plays = (
        turn(
            tool("echo", "t1", '{"a": '),
            tool("no such tool", "t1"),
            tool("clock", "t1", '{"wrong": 1}'),
            tool("echo", "t2", "[]"),
            stop="tool_use",
        ),
        turn(text("Once more."), tool("echo", "t1", '{"cut'), stop="max_tokens"),
        turn(text("I give up.")),
    )
    async with running(world, *plays):
        await ask(world, thread, "go")
        ended = await world.read.ended(thread)
    results = world.read.of(thread, f.ToolReturned)
    assert [result.status for result in results] == ["error"] * 5
    by_name = sorted((r.name, r.result) for r in results[:4])
    assert "do not fit" in by_name[0][1] and "not a JSON object" in by_name[1][1] and "no tool" in by_name[3][1]
    assert "cut off (max_tokens)" in results[4].result
    assert ended.stop_reason == "end_turn"


async def test_a_hundred_calls_all_have_their_results_and_few_run_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: set[str] = set()
    most: list[int] = []
    gate, full = asyncio.Event(), asyncio.Event()

    async def busy(call: Call, arguments: Arguments) -> Result:
        under_way.add(call.tool_call_id)
        most.append(len(under_way))
        if len(under_way) == tool_calls.TOOLS_AT_ONCE:
            full.set()
        await gate.wait()
        under_way.discard(call.tool_call_id)
        return Result(call.tool_call_id)

    monkeypatch.setitem(TOOLS, "busy", Tool("busy", "Waits.", Arguments, busy, effect="read_only"))
    thread = new_thread()
    plays = (turn(*(tool("busy", f"t{i}") for i in range(100)), stop="tool_use"), turn(text("Done.")))
    async with running(world, *plays) as api:
        await ask(world, thread, "go")
        await within(full.wait())
        for _ in range(50):  # turns of the loop, in which more would have begun
            await asyncio.sleep(0)
        gate.set()
        await world.read.ended(thread)
        results = api.requests[1].messages[2]["content"]
    assert [(part["tool_use_id"], part["content"]) for part in results] == [(f"t{i}", f"t{i}") for i in range(100)]
    assert max(most) == tool_calls.TOOLS_AT_ONCE


async def test_calls_that_wait_for_their_place_are_not_begun_once_the_run_is_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    gate, full = asyncio.Event(), asyncio.Event()

    async def busy(call: Call, arguments: Arguments) -> Result:
        begun.append(call.tool_call_id)
        if len(begun) == tool_calls.TOOLS_AT_ONCE:
            full.set()
        await gate.wait()
        return Result("done")

    monkeypatch.setitem(TOOLS, "busy", Tool("busy", "Waits.", Arguments, busy, effect="read_only"))
    thread = new_thread()
    async with running(world, turn(*(tool("busy", f"t{i}") for i in range(40)), stop="tool_use")):
        posted = await ask(world, thread, "go")
        await within(full.wait())
        await world.ask(thread, c.CancelRun(principal=ANN, run_id=posted.run_id))
        gate.set()
        ended = await world.read.ended(thread)
    assert isinstance(ended, f.RunCancelled)
    assert len(begun) == len(world.read.of(thread, f.ToolCalled)) == tool_calls.TOOLS_AT_ONCE


async def test_a_cancelled_run_hangs_up_at_once_and_keeps_each_block_at_its_number(world: World) -> None:
    thread, hold = new_thread(), Hold()
    said = numbered(redacted(), tool("clock", "toolu_1"), text("half of it"))[:-1]
    async with running(world, Play([start(), *said, hold]), turn(text("What else?"))) as api:
        posted = await ask(world, thread, "go")
        await within(hold.reached.wait())
        await world.read.until(lambda: any(piece.text == "half of it" for piece in world.read.pieces))
        await world.ask(thread, c.CancelRun(principal=ANN, run_id=posted.run_id))
        ended = await world.read.ended(thread)
        await within(api.hung_up.wait(), 1.0)
        await ask(world, thread, "on")
        await world.read.ended(thread, 2)
    assert [b.kind for b in ended.blocks] == ["opaque", "tool", "text"]
    [piece] = world.read.pieces[:1]
    assert ended.blocks[piece.block].text == "half of it"


async def test_attempts_are_journaled_with_their_kind_their_cost_and_the_pause_that_was_asked_for(world: World) -> None:
    thread = new_thread()
    plays = (
        failure(529, "overloaded_error"),
        failure(429, "rate_limit_error", retry_after_ms="30"),
        Play([start(33), *numbered(text("half"))[:2], error_event("overloaded_error")]),
        turn(text("whole")),
    )
    async with running(world, *plays):
        await ask(world, thread, "go")
        ended = await world.read.ended(thread)
    failed = world.read.of(thread, f.ModelFailed)
    assert [(fact.kind, fact.attempt, fact.retry) for fact in failed] == [
        ("529", 1, True),
        ("429", 2, True),
        ("529", 3, True),
    ]
    assert failed[1].retry_after_ms == 30
    assert failed[2].usage == Usage(input_tokens=33, output_tokens=1)
    assert ended.usage == Usage(input_tokens=33 + 25, output_tokens=1 + 15)
    assert blocks(world, thread) == [[("text", "whole")]]


async def test_without_a_key_a_run_fails_at_once_and_says_what_to_set(world: World) -> None:
    thread = new_thread()
    async with running(world, key=""):
        await ask(world, thread, "hello")
        ended = await world.read.ended(thread)
        await ask(world, thread, "/text still here", agent_id="scripted")
        await world.read.ended(thread, 2)
    assert (ended.code, len(world.read.of(thread, f.ModelFailed))) == ("model_401", 1)
    assert "ANTHROPIC_API_KEY" in ended.message


async def test_another_agents_thoughts_are_not_shown_to_this_one(world: World) -> None:
    thread = new_thread()
    async with running(world, turn(thought("mine"), redacted(), text("A.")), turn(text("B."))) as api:
        await ask(world, thread, "one")
        await world.read.ended(thread)
        await ask(world, thread, "two", agent_id="other")
        await world.read.ended(thread, 2)
        second = api.requests[1]
    assert [part["type"] for part in second.messages[1]["content"]] == ["text"]


# ---- files


async def kept(objects: ObjectStore, name: str, content_type: str, data: bytes) -> Attachment:
    sha256 = await objects.put(WORKSPACE, data)
    return Attachment(name=name, content_type=content_type, size=len(data), sha256=sha256)


def pdf(pages: int) -> bytes:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(72, 72)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


async def test_attachments_are_shown_as_what_they_are(world: World) -> None:
    thread, objects = new_thread(), open_objects("memory:")
    files = (
        await kept(objects, "plot.png", "image/png", PNG),
        await kept(objects, "paper.pdf", "application/pdf", pdf(2)),
        await kept(objects, "notes.md", "text/markdown; charset=utf-8", "Grüße".encode()),
        await kept(objects, "data.zip", "application/zip", b"PK"),
    )
    async with running(world, turn(text("Seen.")), objects=objects) as api:
        await ask(world, thread, "look", attachments=files)
        await world.read.ended(thread)
        content = api.requests[0].messages[0]["content"]
    assert [(part["type"], part.get("source", {}).get("media_type"), part.get("title")) for part in content] == [
        ("image", "image/png", None),
        ("document", "application/pdf", "paper.pdf"),
        ("document", "text/plain", "notes.md"),
        ("text", None, None),
        ("text", None, None),
    ]
    assert content[2]["source"]["data"] == "Grüße"
    assert content[3]["text"] == '[attached: "data.zip", application/zip, 2 bytes; read_attachment reads it]'


async def test_a_tools_images_are_shown_with_its_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = open_objects("memory:")
    made = await kept(objects, "plot.png", "image/png", PNG)

    async def draw(call: Call, arguments: Arguments) -> Result:
        return Result("drawn", files=(made,))

    monkeypatch.setitem(TOOLS, "draw", Tool("draw", "Draws.", Arguments, draw, effect="read_only"))
    thread = new_thread()
    plays = (turn(tool("draw", "toolu_1"), stop="tool_use"), turn(text("Nice.")))
    async with running(world, *plays, objects=objects) as api:
        await ask(world, thread, "draw")
        await world.read.ended(thread)
        [result] = api.requests[1].messages[2]["content"]
    assert [part["type"] for part in result["content"]] == ["text", "image"]


async def test_a_file_that_the_server_refuses_costs_an_attempt_and_not_the_run(world: World) -> None:
    thread, objects = new_thread(), open_objects("memory:")
    picture = await kept(objects, "plot.png", "image/png", PNG)
    plays = (failure(400, "invalid_request_error", "Could not process image"), turn(text("Without it, then.")))
    async with running(world, *plays, objects=objects) as api:
        await ask(world, thread, "look", attachments=(picture,))
        ended = await world.read.ended(thread)
        shown = [part["type"] for part in api.requests[1].messages[0]["content"]]
    assert isinstance(ended, f.RunCompleted)
    assert [fact.kind for fact in world.read.of(thread, f.ModelFailed)] == ["files"]
    assert shown == ["text", "text"]


async def test_a_file_that_is_gone_fails_no_run(world: World) -> None:
    thread = new_thread()
    gone = Attachment(name="gone.png", content_type="image/png", size=9, sha256="0" * 64)
    async with running(world, turn(text("I cannot see it."))) as api:
        await ask(world, thread, "look", attachments=(gone,))
        ended = await world.read.ended(thread)
        [line, _] = api.requests[0].messages[0]["content"]
    assert isinstance(ended, f.RunCompleted)
    assert line["text"] == '[attached: "gone.png", image/png, which is gone]'

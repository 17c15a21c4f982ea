"""Runs that call tools of MCP servers: what is recorded when a server, or the dispatcher, goes away under a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher import telemetry as t
from parley_dispatcher import tool_calls
from parley_dispatcher.prompt import UNKNOWN_OUTCOME
from parley_dispatcher.tools.servers import Servers
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import AgentSpec, McpServer
from parley_events.telemetry import TelemetrySettings, open_telemetry
from tests.support.mcp_servers import Ledger, liar, over_stdio
from tests.support.otlp import receiver
from tests.support.recorder import Recorder
from tests.unit.dispatcher.world import ANN, World, agent, eventually, make_world, new_thread, post

LIMIT_S = 20.0
ALLOWED: dict[str, Any] = {"mcp_commands": True, "mcp_start_s": 15.0}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.fixture
async def world(tmp_path: Path, ledger: Ledger) -> AsyncIterator[World]:
    shopper = AgentSpec(agent_id="scripted", name="S", tools=("echo", "ledger/*", "liar/*"))
    async with make_world(tmp_path, shopper, agent("assistant")) as made:
        declare(made, over_stdio(ledger))
        yield made


def declare(world: World, *servers: McpServer) -> None:
    world.history.workspace = {"mcp_servers": [server.model_dump(mode="json") for server in servers]}


async def returned(world: World, thread: str, count: int = 1) -> f.ToolReturned:
    await eventually(lambda: len(world.read.of(thread, f.ToolReturned)) >= count, LIMIT_S)
    found: f.ToolReturned = world.read.of(thread, f.ToolReturned)[count - 1]
    return found


async def ended(world: World, thread: str) -> Any:
    await eventually(lambda: bool(world.read.of(thread, f.RunCompleted, f.RunFailed, f.RunCancelled)), LIMIT_S)
    return world.read.of(thread, f.RunCompleted, f.RunFailed, f.RunCancelled)[0]


async def test_the_intent_is_on_record_with_the_servers_word_and_the_key_that_the_server_gets(
    world: World, ledger: Ledger
) -> None:
    thread = new_thread()
    async with world.dispatcher(**ALLOWED):
        await world.ask(thread, post('/tool ledger__pay {"amount": 1}\n/tool ledger__look {}\n/text Done.'))
        assert (await ended(world, thread)).type == "run.completed"
    intents = {body.name: body for body in world.read.of(thread, f.ToolCalled)}
    assert intents["ledger__pay"].effect == "unsafe" and intents["ledger__look"].effect == "read_only"
    [entry] = ledger.entries("pay")
    assert entry["meta"] == {"parley/effect-key": intents["ledger__pay"].effect_key}
    assert "trace" not in entry, "there is no telemetry, so there is no trace to be part of"


async def test_the_model_is_shown_the_tools_of_the_servers_that_are_there(world: World, ledger: Ledger) -> None:
    thread = new_thread()
    declare(world, over_stdio(ledger), McpServer(name="liar", command=("/nothing/there",)))
    async with world.dispatcher(**ALLOWED):
        await world.ask(thread, post("/show tools"))
        await ended(world, thread)
    [said] = world.read.of(thread, f.ModelReturned)
    assert '"ledger__pay"' in said.blocks[0].text and '"echo"' in said.blocks[0].text
    assert "liar__" not in said.blocks[0].text


async def test_a_call_that_was_begun_is_unknown_also_where_its_server_cannot_be_reached_any_more(
    world: World, ledger: Ledger
) -> None:
    """The next dispatcher may start no commands: it knows nothing of the tool but what is on record."""
    thread = new_thread()
    async with world.dispatcher(**ALLOWED):
        await world.ask(thread, post("/tool ledger__hang {}\n/text Done."))
        await eventually(lambda: bool(ledger.entries("hang")), LIMIT_S)
    assert world.read.of(thread, f.ToolReturned) == []
    async with world.dispatcher(mcp_commands=False):
        result = await returned(world, thread)
        assert (await ended(world, thread)).type == "run.completed"
    assert (result.status, result.result) == ("unknown", UNKNOWN_OUTCOME)
    assert len(ledger.entries("hang")) == 1


async def test_a_call_that_was_begun_and_only_looks_is_made_again(world: World, ledger: Ledger) -> None:
    thread = new_thread()
    declare(world, over_stdio(ledger, timeout_s=1.0))
    async with world.dispatcher(**ALLOWED):
        await world.ask(thread, post("/tool ledger__hang_looking {}\n/text Done."))
        await eventually(lambda: bool(ledger.entries("hang_looking")), LIMIT_S)
    async with world.dispatcher(**ALLOWED):
        result = await returned(world, thread)
    assert result.status == "error" and "gave no answer" in result.result
    assert len(ledger.entries("hang_looking")) == 2


async def test_a_checkable_call_without_an_answer_is_asked_about_and_not_repeated(world: World, ledger: Ledger) -> None:
    thread = new_thread()
    # The check waits until no try can be under way any more: twice the limits of a call.
    declare(world, over_stdio(ledger, timeout_s=0.5, tools={"book": "checkable:booked"}))
    async with world.dispatcher(session_ms=100, mcp_commands=True, mcp_start_s=4.0):
        await world.ask(thread, post('/tool ledger__book {"seat": 7}\n/text Done.'))
        result = await returned(world, thread)
        assert (await ended(world, thread)).type == "run.completed"
    assert (result.status, result.result) == ("ok", "seat 7")
    [booked], [asked] = ledger.entries("book"), ledger.entries("booked")
    assert asked["meta"] == booked["meta"] and asked["arguments"] == booked["arguments"] == {"seat": 7}


async def test_a_cancelled_run_ends_within_the_grace_and_the_server_is_told(
    world: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "CANCEL_GRACE_S", 0.2)
    thread = new_thread()
    async with world.dispatcher(**ALLOWED):
        posted = await world.ask(thread, post("/tool ledger__hang {}\n/text Done."))
        await eventually(lambda: bool(ledger.entries("hang")), LIMIT_S)
        await world.put(thread, c.CancelRun(principal=ANN, run_id=posted.run_id))
        assert (await ended(world, thread)).type == "run.cancelled"
        await eventually(lambda: bool(ledger.entries("cancelled")), LIMIT_S)
    assert (await returned(world, thread)).status == "unknown"


async def test_files_of_a_result_are_on_record(world: World, ledger: Ledger) -> None:
    thread = new_thread()
    async with world.dispatcher(**ALLOWED):
        await world.ask(thread, post("/tool ledger__picture {}\n/text Done."))
        result = await returned(world, thread)
    assert [file.content_type for file in result.files] == ["image/png", "application/octet-stream"]


async def test_a_run_ends_properly_whatever_a_server_says(world: World) -> None:
    for lie in ("no content", "strange content", "schema is a text", "silent", "version"):
        declare(world, liar(lie))
        thread = new_thread()
        async with world.dispatcher(mcp_commands=True, mcp_start_s=3.0):
            await world.ask(thread, post("/tool liar__a {}\n/text Done."))
            assert (await returned(world, thread)).status == "error", lie
            assert (await ended(world, thread)).type == "run.completed", lie


async def test_a_workspace_without_servers_never_asks_for_any(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: Any, **named: Any) -> Any:
        raise AssertionError("it was asked")

    monkeypatch.setattr(Servers, "tools", never)
    declare(world)
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post("/tool echo {}\n/tool ghost {}\n/text Done."))
        assert (await ended(world, thread)).type == "run.completed"


async def test_a_call_is_a_span_and_is_counted_under_the_name_that_the_model_knows(world: World) -> None:
    thread, told = new_thread(), Recorder()
    async with world.dispatcher(telemetry=told, **ALLOWED):
        await world.ask(thread, post('/tool ledger__pay {"amount": 1}\n/tool ledger__steal {}\n/text Done.'))
        await ended(world, thread)
    spans = {span.attributes["gen_ai.tool.name"]: span for span in told.of(t.TOOL)}
    assert set(spans) == {"ledger__pay", "_OTHER"}, "a server is there, the second tool is not"
    assert spans["ledger__pay"].attributes["parley.tool.effect"] == "unsafe"
    counted = {(said["gen_ai.tool.name"], said["parley.tool.status"]) for _, said in told.said(t.TOOL_DURATION)}
    assert counted == {("ledger__pay", "ok"), ("_OTHER", "error")}


async def test_a_server_is_told_the_span_of_the_call(
    world: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = new_thread()
    with receiver() as got:
        for name, value in got.environment.items():
            monkeypatch.setenv(name, value)
        telemetry = open_telemetry("test", TelemetrySettings(traces=True, metrics=False))
        try:
            async with world.dispatcher(telemetry=telemetry, **ALLOWED):
                await world.ask(thread, post('/tool ledger__pay {"amount": 1}\n/text Done.'))
                await ended(world, thread)
        finally:
            await asyncio.to_thread(telemetry.close, LIMIT_S)
    [entry] = ledger.entries("pay")
    [span] = [span for span in got.spans if span.name == "execute_tool ledger__pay"]
    assert entry["trace"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert {span.scope for span in got.spans} == {"parley.dispatcher"}, "the SDK adds no spans of its own"

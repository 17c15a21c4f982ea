"""Runs that nobody attends: what would have to wait for somebody gets an error result at once, and the run goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley_events import facts as f
from parley_events.body import WaitsFor
from tests.unit.dispatcher.test_parked import (
    ASK_CHILD,
    ASK_WEATHER,
    PUBLISH,
    TERMS,
    approve,
    parked,
    published,
    results,
)
from tests.unit.dispatcher.world import World, agent, make_world, new_thread, post

BOTH: tuple[WaitsFor, ...] = ("approval", "client_tool")
SCRIPT = f"{PUBLISH % 'hello'}\n{ASK_WEATHER % 'Tokyo'}\n/tool clock\n/text done"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path, agent(**TERMS), agent("assistant", **TERMS)) as made:
        yield made


async def test_nobody_is_asked_and_the_model_is_told(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(SCRIPT, unattended=BOTH))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == [] and not world.read.of(thread, f.RunWaiting, f.ApprovalRequested)
    assert [body.name for body in world.read.of(thread, f.ToolCalled)] == ["clock"], "the others were never called"
    assert sorted(status for status, _ in results(world, thread).values()) == ["denied", "error", "ok"]
    assert [body.blocks[0].text for body in world.read.of(thread, f.ModelReturned)][-1] == "done"


async def test_one_who_waits_for_approvals_alone_is_asked(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(SCRIPT, unattended=("client_tool",)))
        waiting = await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert (waiting.waits_for, waiting.tool_call_ids) == ("approval", (request.tool_call_id,))
        await world.ask(thread, approve(request.approval_id))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == ["hello"]
    assert sorted(status for status, _ in results(world, thread).values()) == ["error", "ok", "ok"]


async def test_a_run_inside_such_a_run_has_nobody_either(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(ASK_CHILD % json.dumps(SCRIPT), unattended=BOTH))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == [] and not world.read.of(thread, f.RunWaiting, f.ApprovalRequested)


async def test_the_next_message_of_the_thread_may_be_attended(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(f"{PUBLISH % 'one'}\n/text done", unattended=BOTH))
        await world.read.ended(thread)
        await world.put(thread, post(f"{PUBLISH % 'two'}\n/text done"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert request.arguments == {"text": "two"}

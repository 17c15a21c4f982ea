"""Faults within a process: which passing strikes, what is held, and that the harness hears of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.boundaries import Boundaries, Placed
from tests.faults.control import Control


@asynccontextmanager
async def line(folder: Path) -> AsyncIterator[tuple[Control, Boundaries]]:
    control = Control(folder)
    await control.start()
    at = await asyncio.to_thread(Boundaries, str(control.path), "dispatcher-1")
    async with asyncio.timeout(10):
        while not control.connected("dispatcher-1", os.getpid()):
            await asyncio.sleep(0.01)
    try:
        yield control, at
    finally:
        at.close()
        await control.close()


async def test_the_passing_that_matches_strikes_once(tmp_path: Path) -> None:
    async with line(tmp_path) as (control, at):
        fault = Placed("f", "append.before", "hold", kind="tool.*", stream="mine", text="pay", passing=2)
        await control.place(fault, "dispatcher")
        others = [
            ("append.after", "tool.called", "mine", "pay"),
            ("append.before", "model.called", "mine", "pay"),
            ("append.before", "tool.called", "another", "pay"),
            ("append.before", "tool.called", "mine", "book"),
        ]
        for boundary, kind, stream, text in others * 2:
            assert at.passing(boundary, kind, {stream}, text) is None
        assert at.passing("append.before", "tool.called", {"mine"}, "pay") is None, "the first passing"
        assert at.passing("append.before", "tool.returned", {"mine"}, "pay") is not None
        assert at.passing("append.before", "tool.called", {"mine"}, "pay") is None, "it has struck"
        hit = await control.hit("f", 10)
        assert (hit.name, hit.pid, hit.boundary, hit.kind) == (
            "dispatcher-1",
            os.getpid(),
            "append.before",
            "tool.returned",
        )


async def test_what_is_held_goes_on_when_the_fault_is_lifted(tmp_path: Path) -> None:
    async with line(tmp_path) as (control, at):
        await control.place(Placed("f", "fold.before", "hold", every=True), "dispatcher")
        held = [asyncio.create_task(at.passing_async("fold.before", "", ())) for _ in range(2)]
        await control.hit("f", 10, 2)
        done, _ = await asyncio.wait(held, timeout=0.2)
        assert not done
        await control.lift("f")
        await asyncio.wait_for(asyncio.gather(*held), 10)


async def test_a_fault_that_never_strikes_is_said_to_be_so(tmp_path: Path) -> None:
    async with line(tmp_path) as (control, _):
        await control.place(Placed("f", "nowhere", "kill"), "dispatcher")
        with pytest.raises(TimeoutError):
            await control.hit("f", 0.05)

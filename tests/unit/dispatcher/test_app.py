"""The dispatcher's HTTP side: whether its loops turn, and whether it has what it was given."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from parley_dispatcher.app import build
from parley_dispatcher.settings import Settings
from tests.unit.dispatcher.world import PARTITIONS, GatedLog, World, eventually


async def test_it_is_alive_while_its_loops_turn_and_ready_once_it_has_claimed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._COMMIT_S", 0.01)
    told: list[str] = []
    world.history.away = True
    app = build(
        Settings(data=world.folder, partitions=PARTITIONS, drain_s=0.0),
        log=GatedLog(world.log),
        history=world.history.client,
        on_failure=told.append,
    )
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://dispatcher")
    async with app.router.lifespan_context(app), asking:

        async def status(path: str) -> int:
            return (await asking.get(path)).status_code

        assert (await status("/livez"), await status("/readyz")) == (200, 503)
        world.history.away = False
        worker = app.state.running.worker
        await eventually(lambda: worker.ready)
        assert (await status("/livez"), await status("/readyz")) == (200, 200)

        def broken() -> int:
            raise RuntimeError("a mistake")

        with monkeypatch.context() as patch:
            patch.setattr(worker.owners[0], "watermark", broken)
            await eventually(lambda: bool(told))
        answer = await asking.get("/livez")
        assert (answer.status_code, told) == (503, ["commit: a mistake"])
        assert answer.json() == {"status": "ending", "problems": ["commit: a mistake"]}


async def test_it_is_not_alive_once_it_asks_for_no_commands(world: World) -> None:
    app = build(
        Settings(data=world.folder, partitions=PARTITIONS, drain_s=0.0, poll_limit_s=0.5),
        log=GatedLog(world.log),
        history=world.history.client,
    )
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://dispatcher")
    async with app.router.lifespan_context(app), asking:
        worker = app.state.running.worker
        await eventually(lambda: worker.polled_at > 0)
        worker.polled_at = asyncio.get_running_loop().time()
        answer = await asking.get("/livez")
        assert answer.status_code == 200 and answer.json()["poll_s"] < 0.5 and answer.json()["loop_s"] < 0.5
        worker._loops[0].cancel()
        worker.polled_at = asyncio.get_running_loop().time() - 0.6
        answer = await asking.get("/livez")
        assert answer.status_code == 503 and answer.json()["status"] == "stuck"


async def test_a_partition_that_stands_still_is_named_and_the_others_are_ready(world: World) -> None:
    app = build(
        Settings(data=world.folder, partitions=PARTITIONS, drain_s=0.0),
        log=GatedLog(world.log),
        history=world.history.client,
    )
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://dispatcher")
    async with app.router.lifespan_context(app), asking:
        worker = app.state.running.worker
        await eventually(lambda: worker.ready)
        worker.owners[1].stop("a stored fact cannot be read")
        answer = await asking.get("/readyz")
        assert answer.status_code == 200
        assert answer.text == "ready; partition 1 stands still: a stored fact cannot be read"

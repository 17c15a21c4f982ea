"""The dispatcher's HTTP side: whether its loops turn, and whether it has what it was given."""

from __future__ import annotations

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
        assert (answer.status_code, answer.text, told) == (503, "commit: a mistake", ["commit: a mistake"])


async def test_loops_that_stand_still_are_not_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = build(
        Settings(data=world.folder, partitions=PARTITIONS, drain_s=0.0),
        log=GatedLog(world.log),
        history=world.history.client,
    )
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://dispatcher")
    async with app.router.lifespan_context(app), asking:
        await eventually(lambda: app.state.running.worker.polled_at > 0)
        monkeypatch.setattr("parley_dispatcher.app._STUCK_S", -1.0)
        assert (await asking.get("/livez")).status_code == 503

"""A gateway as a whole: messages in, streams out, through a log."""

from __future__ import annotations

import asyncio

import pytest

from parley_events.log.embedded import EmbeddedLog
from parley_gateway.app import build
from parley_gateway.feed.hub import Hub
from parley_gateway.settings import Settings
from tests.support.sse import text_of
from tests.support.system import collect, new_thread
from tests.unit.gateway.world import World

BASE = "/api/v1/chat"


async def test_a_posted_message_streams_its_run(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        frames = await collect(client, "POST", f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
        assert [f.type for f in frames if not f.type.endswith(".delta")] == [
            "message.posted",
            "model.called",
            "model.returned",
            "run.completed",
        ]
        assert text_of(frames) == "Hello world"
        assert all(frame.id for frame in frames)


async def test_a_gateway_whose_hub_died_says_so_that_its_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that answers and hears nothing would be worse than none."""

    async def dies(hub: Hub) -> None:
        raise RuntimeError("a slip")

    monkeypatch.setattr(Hub, "run", dies)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    log = await EmbeddedLog.open(None, partitions=1)
    app = build(Settings(), log=log, on_failure=told.set_result)
    async with app.router.lifespan_context(app), asyncio.timeout(5):
        assert "hub" in await told
    await log.close()

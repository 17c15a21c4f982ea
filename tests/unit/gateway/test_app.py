"""A gateway as a whole: messages in, streams out, through a log."""

from __future__ import annotations

from tests.support.sse import frames_of, text_of
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
        assert frames_of is not None

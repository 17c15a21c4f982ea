"""What `org_chat` tells of calls that somebody else had a say in: results, with a status that is not simply ok."""

from __future__ import annotations

from typing import Any

from parley_events.codec import Fact
from tests.support.asgi import ask
from tests.support.sse import frame_of
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, tool_block

NAMES = ("pay", "publish", "get_weather")


async def play(d: Dispatcher, posted: Fact) -> None:
    call = d.called(posted)
    d.returned(posted, call, *(tool_block(name, call, {}) for name in NAMES))
    d.use(posted, call, "pay", {"eur": 3}, "nobody knows", status="unknown")
    d.use(posted, call, "publish", {}, "denied: not now", index=1, status="denied")
    d.use(posted, call, "get_weather", {}, "21", index=2)
    d.completed(posted)


async def test_a_result_that_is_not_ok_says_what_it_is(here: World) -> None:
    here.dispatcher.play = play
    body = {"structure_id": WORKSPACE, "role_id": "executive-office-cmo", "message": "hi"}
    x = await ask(here.gateways[0][0], "POST", "/api/org/chat/message", key=here.key, body=body)
    results: list[Any] = [f.data["content"] for f in map(frame_of, x.parts) if f.type == "tool_result"]
    assert [(result["tool"], result.get("status")) for result in results] == [
        ("pay", "unknown"),
        ("publish", "denied"),
        ("get_weather", None),
    ]
    assert results[2] == {"tool": "get_weather", "result": 21, "tool_call_id": results[2]["tool_call_id"]}

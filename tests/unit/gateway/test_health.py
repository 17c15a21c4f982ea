"""Health: alive as soon as it answers, ready once it has read what was on the log, and no longer when it stops."""

from __future__ import annotations

from tests.support.asgi import ask, exchange
from tests.unit.gateway.world import WORKSPACE, silence, world


async def test_it_is_ready_while_it_takes_requests() -> None:
    async with world(sockets=False) as here:
        app = here.gateways[0][0]
        here.dispatcher.play = silence
        told = (await ask(app, "GET", "/livez")).json()
        assert told["status"] == "ok" and 0 <= told["loop_s"] < 5 and 0 <= told["poll_s"] < 5
        assert (await ask(app, "GET", "/readyz")).json() == {"status": "ok", "streams": 0}
        body = {"structure_id": WORKSPACE, "role_id": "scripted", "message": "hi"}
        async with exchange(app, "POST", "/api/org/chat/message", key=here.key, body=body):
            await here.eventually(lambda: here.core.hub.listening == 1)
            assert (await ask(app, "GET", "/readyz")).json()["streams"] == 1
        here.core.hub.drain()
        stopping = await ask(app, "GET", "/readyz")
        assert (stopping.status, stopping.json()) == (503, {"status": "stopping"})
        assert (await ask(app, "GET", "/livez")).status == 200
        assert (await ask(app, "POST", "/livez")).json()["error"]["code"] == "method_not_allowed"


async def test_it_is_not_ready_before_it_has_caught_up() -> None:
    async with world(sockets=False) as here:
        here.core.hub._goal[0] += 1
        starting = await ask(here.gateways[0][0], "GET", "/readyz")
        assert (starting.status, starting.json()) == (503, {"status": "starting"})

"""Health pages: `/livez` (the process turns, and asks the log) and `/readyz` (it has read the log, takes requests)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.watch import Beat
from parley_gateway.feed.hub import Hub
from parley_gateway.http import answer


def routes(hub: Hub, beat: Beat, loop_limit_s: float, poll_limit_s: float) -> list[Route]:
    """Both pages."""

    async def live(request: Request) -> Response:
        alive = beat.age_s <= loop_limit_s and hub.poll_age_s <= poll_limit_s
        told = {"loop_s": round(beat.age_s, 2), "poll_s": round(hub.poll_age_s, 2)}
        return answer(200 if alive else 503, {"status": "ok" if alive else "stuck", **told})

    async def ready(request: Request) -> Response:
        if hub.draining:
            return answer(503, {"status": "stopping"})
        if not hub.ready:
            return answer(503, {"status": "starting"})
        return answer(200, {"status": "ok", "streams": hub.listening})

    return [Route("/livez", live), Route("/readyz", ready)]

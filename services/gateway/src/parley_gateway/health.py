"""Health pages: `/livez` (the process answers) and `/readyz` (it has read the log and takes requests)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_gateway.feed.hub import Hub
from parley_gateway.http import answer


def routes(hub: Hub) -> list[Route]:
    """Both pages."""

    async def live(request: Request) -> Response:
        return answer(200, {"status": "ok"})

    async def ready(request: Request) -> Response:
        if hub.draining:
            return answer(503, {"status": "stopping"})
        if not hub.ready:
            return answer(503, {"status": "starting"})
        return answer(200, {"status": "ok", "streams": hub.listening})

    return [Route("/livez", live), Route("/readyz", ready)]

"""The routes of the documents, for whoever comes: no key is asked for, since nothing in them is anybody's.

    /openapi                    the list, as JSON
    /openapi/<contract>.json    the OpenAPI 3.1 document of a contract
    /docs, /docs/<contract>     the same to read

Everything is made when it is first asked for, on a thread, and kept. No page has a script, and none is loaded from
elsewhere.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_gateway.errors import not_found
from parley_gateway.http import failure

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "public, max-age=300",
}


class _Written(NamedTuple):
    media_type: str
    body: bytes


def routes() -> list[Route]:
    """All of them."""
    return [
        Route("/openapi", _serve, methods=["GET"]),
        Route("/openapi/{name}", _serve, methods=["GET"]),
        Route("/docs", _serve, methods=["GET"]),
        Route("/docs/{name}", _serve, methods=["GET"]),
    ]


async def _serve(request: Request) -> Response:
    found = (await asyncio.to_thread(_written)).get(request.url.path)
    if found is None:
        return failure(not_found("contract; /openapi lists them"), flat=False)
    return Response(found.body, 200, HEADERS, found.media_type)


@cache
def _written() -> dict[str, _Written]:
    """Everything that is served, by its path."""
    # Only here: the contracts import the dialects, which import this package.
    from parley_gateway.openapi import page
    from parley_gateway.openapi.contracts import documents
    from parley_gateway.openapi.document import written

    made = documents()
    listed = [
        {
            "name": name,
            "title": found["info"]["title"],
            "document": f"/openapi/{name}.json",
            "docs": f"/docs/{name}",
        }
        for name, found in made.items()
    ]
    style = files("parley_gateway.openapi").joinpath("style.css").read_bytes()
    return {
        "/openapi": _Written("application/json", orjson.dumps({"contracts": listed})),
        "/docs": _Written("text/html", page.index(made).encode()),
        page.STYLE: _Written("text/css", style),
        **{f"/openapi/{name}.json": _Written("application/json", written(found)) for name, found in made.items()},
        **{f"/docs/{name}": _Written("text/html", page.page(name, found).encode()) for name, found in made.items()},
    }

"""The composition root: `build` makes a whole gateway out of its settings; tests and `standalone` call the same one.

A missing part means "make the real one". Nothing is opened before the application starts; what was opened here is
closed here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from parley_events.clock import Clock, system_clock
from parley_events.contents import Contents
from parley_events.ids import NewUuid, random_uuid
from parley_events.log import Log
from parley_events.log.open import open_log
from parley_events.objects import Objects, open_objects
from parley_events.telemetry import OFF, Telemetry
from parley_events.watch import Beat
from parley_gateway import administration, health
from parley_gateway.auth import Auth
from parley_gateway.core import Core, forget_deleted
from parley_gateway.dialects import DIALECTS
from parley_gateway.errors import Problem
from parley_gateway.feed.hub import Hub
from parley_gateway.feed.listener import HubLimits
from parley_gateway.feed.rotation import Rotation
from parley_gateway.history import History
from parley_gateway.http import failure
from parley_gateway.limits import Limits
from parley_gateway.marks import Marks
from parley_gateway.mcp import McpServer
from parley_gateway.openapi.routes import routes as document_routes
from parley_gateway.reads import Reads
from parley_gateway.send import Sender
from parley_gateway.settings import Settings
from parley_gateway.telemetry import Instruments
from parley_gateway.undecided import Undecided
from parley_gateway.uploads import Uploads
from parley_gateway.workspaces import Workspaces

logger = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024


def build(
    settings: Settings,
    *,
    log: Log | None = None,
    history: History | None = None,
    objects: Objects | None = None,
    clock: Clock = system_clock,
    new_uuid: NewUuid = random_uuid,
    new_secret: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    random_number: Callable[[], float] = random.random,
    telemetry: Telemetry = OFF,
    on_failure: Callable[[str], None] | None = None,
) -> FastAPI:
    """The gateway as an ASGI application; `app.state.core` holds its parts. A log or history that is given in is not
    closed at the end. `on_failure` is called when the hub dies, which it never should: the process should end then."""
    opened: list[Log] = []

    async def the_log() -> Log:
        if log is not None:
            return log
        made = await open_log(
            settings.log,
            settings.kafka,
            settings.data,
            settings.partitions,
            "parley-gateway",
            batches_per_s=settings.batches_per_s,
        )
        opened.append(made)
        return made

    asked = history or History.over(settings.history_url, settings.internal_token)
    limits = HubLimits(settings.queue_items, settings.queue_mb * MEGABYTE, settings.kept_mb * MEGABYTE)
    the_objects = objects or open_objects(settings.objects, settings.data)
    contents = Contents(the_objects)
    hub = Hub(the_log, asked.positions, clock, limits, contents)
    instruments = Instruments(telemetry, settings.log)
    sender = Sender(hub, clock, new_uuid, settings.outcome_s, contents, instruments)
    core = Core(
        settings=settings,
        hub=hub,
        history=asked,
        auth=Auth(hub, asked, settings.anonymous_key, lambda: clock() / 1000),
        limits=Limits(
            settings.rate(settings.rate_limit),
            settings.rate(settings.workspace_rate_limit),
            clock,
            random_uuid(),
            lambda: hub.log,
        ),
        workspaces=Workspaces(hub, asked),
        sender=sender,
        objects=the_objects,
        uploads=Uploads(settings.uploads_mb * MEGABYTE),
        reads=Reads(asked, hub, sender, Undecided(hub, settings.group)),
        marks=Marks(sender),
        clock=clock,
        new_uuid=new_uuid,
        new_secret=new_secret,
        instruments=instruments,
        rotation=Rotation(random_number),
    )
    forget_deleted(core)
    mcp = McpServer(core)
    beat = Beat()

    def died(reading: asyncio.Task[None]) -> None:
        if not reading.cancelled() and (error := reading.exception()) is not None:
            logger.critical("the hub died", exc_info=error)
            if on_failure is not None:
                on_failure(f"the hub died: {type(error).__name__}")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reading = asyncio.create_task(hub.run())
        beat.start()
        reading.add_done_callback(died)
        counting = asyncio.create_task(core.limits.run())
        instruments.watch(hub)
        try:
            yield
        finally:
            beat.stop()
            core.rotation.stop()
            hub.drain()
            await core.marks.close()
            reading.cancel()
            counting.cancel()
            await asyncio.wait([reading, counting], timeout=5)
            await mcp.close()
            await sender.close()
            if history is None:
                await asked.close()
            for made in opened:
                await made.close()

    # FastAPI's own telemetry would show every request a second time, and messages of exceptions.
    own: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(lifespan=lifespan, telemetry=own, openapi_url=None, redirect_slashes=False)
    app.state.core, app.state.mcp = core, mcp
    app.router.routes.extend(health.routes(hub, beat, settings.loop_limit_s, settings.poll_limit_s))
    for dialect in DIALECTS.values():
        app.router.routes.extend(dialect.routes(core))
    app.router.routes.extend(administration.routes(core))
    app.router.routes.extend(mcp.routes())
    app.router.routes.extend(document_routes())
    app.add_exception_handler(HTTPException, _framework_error)
    return app


def drain(app: FastAPI, window_s: float = 0.0) -> None:
    """Take nothing new, and end all open streams cleanly, one after the other within that time: call it when the
    process is told to stop."""
    core: Core = app.state.core
    core.hub.draining = True
    core.rotation.begin(window_s, core.hub.drain)


async def _framework_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in the shape of the contract that the path belongs to."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    flat = any(dialect.flat and path.startswith((dialect.base, *dialect.also)) for dialect in DIALECTS.values())
    if error.status_code == 404:
        return failure(Problem("not_found", "there is nothing at this address", 404), flat)
    if error.status_code == 405:
        return failure(
            Problem("method_not_allowed", "that method is not served here", 405, headers=error.headers), flat
        )
    return failure(Problem("invalid_request", str(error.detail), error.status_code), flat)

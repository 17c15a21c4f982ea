"""The composition root: `build(settings, …)` gives history as an application: the read API, the two health paths, and
the projector for as long as its lifespan. Tests and `standalone` call the same function with a log of their own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.clock import Clock, system_clock
from parley_events.contents import Contents
from parley_events.errors import LogError
from parley_events.log import Log
from parley_events.log.open import open_log
from parley_events.objects import Objects, open_objects
from parley_events.telemetry import OFF, Telemetry
from parley_events.watch import Beat
from parley_history.db import Pool
from parley_history.errors import BadData, Unavailable
from parley_history.http import Reader, answer, routes
from parley_history.positions import Reached, Watch
from parley_history.projector import Health, Projector, stopped
from parley_history.reads.answers import PROJECTION, SQL
from parley_history.reads.streams import reached
from parley_history.settings import Settings
from parley_history.telemetry import Instruments

logger = logging.getLogger(__name__)

_READY_S = 1.0
_REOPEN_S = 2.0


class History:
    """What the lifespan holds: pools, the watch, and the projector once the log is open."""

    def __init__(
        self, settings: Settings, log: Log | None, objects: Objects, telemetry: Telemetry, clock: Clock
    ) -> None:
        def pool(dsn: str, size: int) -> Pool:
            return Pool(dsn, schema=settings.schema, size=size, timeout_s=settings.query_timeout_s)

        self.settings, self._log, self._contents, self._clock = settings, log, Contents(objects), clock
        self.writer = pool(settings.postgres_projector, 4)
        self.internal = pool(settings.postgres_projector, 8)
        self.scoped = pool(settings.postgres_reader, 8)
        self.watch = Watch(self._ask)
        self.reader = Reader(self.internal, self.scoped, self.watch, settings.internal_token, clock)
        self.projector: Projector | None = None
        self._instruments = Instruments(telemetry, settings.log)

    @property
    def health(self) -> Health:
        return self.projector.health if self.projector is not None else Health(reason="the log is not open yet")

    async def project(self) -> None:
        """Open the log, if none was given, and fold until cancelled."""
        async with AsyncExitStack() as stack:
            log = self._log
            while log is None:
                try:
                    log = await self._open_log()
                    stack.push_async_callback(log.close)
                except LogError as error:
                    logger.warning("the log cannot be opened yet: %s", error)
                    await asyncio.sleep(_REOPEN_S)
            self.reader.partitions = log.partitions
            dsn, settings = self.settings.postgres_projector, self.settings
            self.projector = Projector(
                self.writer,
                dsn,
                log,
                self.watch,
                self._contents,
                schema=settings.schema,
                batch=settings.batch,
                instruments=self._instruments,
                clock=self._clock,
            )
            self._instruments.watch(self.projector, log)
            await self.projector.run()

    async def _open_log(self) -> Log:
        settings = self.settings
        name = f"history-{socket.gethostname()}-{os.getpid()}"
        return await open_log(settings.log, settings.kafka, settings.data, settings.partitions, name)

    async def _ask(self, partitions: list[int], streams: list[str]) -> Reached:
        async with self.internal.connection() as con:
            return await reached(con, partitions, streams)

    async def close(self) -> None:
        await self.watch.close()
        for pool in (self.writer, self.internal, self.scoped):
            await pool.close()


def build(
    settings: Settings,
    *,
    log: Log | None = None,
    objects: Objects | None = None,
    telemetry: Telemetry = OFF,
    clock: Clock = system_clock,
    on_failure: Callable[[str], None] | None = None,
) -> Starlette:
    """History. Without a log or an object store, the one that the settings name is opened. `on_failure` is called when
    the projector dies, which it never should: the process should end then."""
    history = History(settings, log, objects or open_objects(settings.objects, settings.data), telemetry, clock)
    beat = Beat()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for pool in (history.writer, history.internal, history.scoped):
            await pool.open()
        task = asyncio.create_task(history.project(), name="projector")
        beat.start()

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            logger.critical("the projector ended", exc_info=task.exception())
            if on_failure is not None:
                on_failure("the projector ended")

        task.add_done_callback(ended)
        try:
            yield
        finally:
            beat.stop()
            await stopped(task)
            await history.close()

    async def livez(request: Request) -> Response:
        """How long ago the event loop turned, and the projector asked the log; never the health of Kafka or
        PostgreSQL."""
        polled_at = history.health.polled_at
        poll_s = asyncio.get_running_loop().time() - polled_at if polled_at else 0.0
        alive = beat.age_s <= settings.loop_limit_s and poll_s <= settings.poll_limit_s
        told = {"loop_s": round(beat.age_s, 2), "poll_s": round(poll_s, 2)}
        return answer(200 if alive else 503, {"status": "alive" if alive else "stuck", **told})

    async def readyz(request: Request) -> Response:
        """Whether reads are answered: the positions were read once, and PostgreSQL is there. Partitions that are
        stopped are named, and do not make the others unready."""
        health = history.health
        if not health.started:
            return answer(503, {"status": "starting", "reason": health.reason})
        try:
            async with asyncio.timeout(_READY_S), history.scoped.connection() as con:
                await con.value(SQL["ready"], PROJECTION)
        except (Unavailable, BadData, TimeoutError):
            return answer(503, {"status": "unavailable", "reason": "PostgreSQL does not answer"})
        found = {"status": "ready", "folded": health.folded, "fenced": health.fenced}
        if health.reason or health.waiting:
            found |= {"waiting": "; ".join(filter(None, (health.reason, *health.waiting.values())))}
        if health.stopped:
            named = [{"partition": p, "reason": reason} for p, reason in sorted(health.stopped.items())]
            found |= {"status": "degraded", "stopped": named}
        return answer(200, found)

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return answer(status, {"error": {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")})

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            *routes(history.reader),
        ],
        exception_handlers={HTTPException: refused, Exception: refused},
        lifespan=lifespan,
    )
    app.state.history = history
    return app

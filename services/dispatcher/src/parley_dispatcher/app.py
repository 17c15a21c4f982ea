"""The composition root: `build(settings, …)` gives the dispatcher as an application that lives as long as its lifespan.

Its HTTP side is only `/livez` and `/readyz`. Tests and `standalone` call the same function with a log and a history of
their own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig

from parley_dispatcher import providers as models
from parley_dispatcher.agents import Agents
from parley_dispatcher.deltas import Deltas
from parley_dispatcher.history import History
from parley_dispatcher.model_turns import Attempts
from parley_dispatcher.owner import World
from parley_dispatcher.providers.base import Provider
from parley_dispatcher.runner import Runner
from parley_dispatcher.sender import Sender
from parley_dispatcher.settings import Settings, named_value
from parley_dispatcher.telemetry import Instruments
from parley_dispatcher.tools.servers import Servers
from parley_dispatcher.worker import Worker
from parley_events.clock import Clock, system_clock
from parley_events.contents import Contents
from parley_events.log import Log
from parley_events.log.open import open_log
from parley_events.objects import Objects, open_objects
from parley_events.telemetry import OFF, Telemetry
from parley_events.watch import Beat

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Running:
    """What the lifespan holds, for the health routes and for tests."""

    worker: Worker | None = None
    problems: list[str] = field(default_factory=list)


def build(
    settings: Settings,
    *,
    log: Log | None = None,
    history: History | None = None,
    objects: Objects | None = None,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock = system_clock,
    value_of: Callable[[str], str | None] = named_value,
    telemetry: Telemetry = OFF,
    on_failure: Callable[[str], None] | None = None,
) -> FastAPI:
    """The dispatcher. A missing port is made for real from the settings; `value_of` looks up what `env:NAME` means.
    `on_failure` is called when a loop dies: the process should end then, so that another takes over."""
    running = Running()
    beat = Beat()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            name = f"{socket.gethostname()}-{os.getpid()}"
            the_log = log
            if the_log is None:
                the_log = await open_log(
                    settings.log,
                    settings.kafka,
                    settings.data,
                    settings.partitions,
                    f"dispatcher-{name}",
                    session_ms=settings.session_ms,
                    batches_per_s=settings.batches_per_s,
                )
                stack.push_async_callback(the_log.close)
            the_history = history
            if the_history is None:
                the_history = History(settings.history_url, settings.internal_token)
                stack.push_async_callback(the_history.close)
            sender = Sender(the_log)
            await sender.start()
            stack.push_async_callback(sender.close)
            deltas = Deltas(the_log, settings.delta_tick_ms)
            await deltas.start()
            stack.push_async_callback(deltas.close)
            the_objects = objects or open_objects(settings.objects, settings.data)
            the_providers = providers
            if the_providers is None:
                the_providers = models.build(settings, the_objects, clock)
                stack.push_async_callback(models.close, the_providers)
            world = World(
                log=the_log,
                history=the_history,
                agents=Agents(the_history, clock),
                sender=sender,
                objects=the_objects,
                contents=Contents(the_objects),
                clock=clock,
                name=name,
                cache_bytes=settings.cache_mb * 1024 * 1024 // settings.partitions,
                window_bytes=settings.window_mb * 1024 * 1024,
                timer_ms=settings.timer_ms,
                instruments=Instruments(telemetry, settings.log, settings.group),
            )
            servers = Servers(
                value_of,
                start_s=settings.mcp_start_s,
                idle_s=settings.mcp_idle_s,
                commands_allowed=settings.mcp_commands,
            )
            await servers.start()
            stack.push_async_callback(servers.close)
            runner = Runner(
                world,
                deltas,
                the_providers,
                Attempts(settings.model_attempts, settings.model_backoff_ms, settings.run_crashes),
                settings.run_slots,
                settings.tool_timeout_s,
                settings.session_ms / 1000,
                settings.data / "effects",
                settings.default_model,
                servers,
            )
            worker = Worker(world, runner, settings.group, settings.drain_s, settings.stuck_s)
            beat.start()
            stack.callback(beat.stop)
            await worker.start()
            stack.push_async_callback(worker.stop)
            running.worker = worker
            world.instruments.watch(world, worker, deltas)
            assert worker.failed is not None

            def failed(result: asyncio.Future[str]) -> None:
                if not result.cancelled():
                    running.problems.append(result.result())
                    if on_failure is not None:
                        on_failure(result.result())

            worker.failed.add_done_callback(failed)
            yield

    # FastAPI's own telemetry would show every request a second time, and messages of exceptions.
    own: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(lifespan=lifespan, telemetry=own, openapi_url=None)
    app.state.running = running

    @app.get("/livez")
    async def livez() -> Response:
        """How long ago the event loop turned, and asked for commands; never the health of Kafka."""
        if running.problems:
            return JSONResponse({"status": "ending", "problems": running.problems}, 503)
        worker = running.worker
        polled_at = worker.polled_at if worker else 0.0
        poll_s = asyncio.get_running_loop().time() - polled_at if polled_at else 0.0
        alive = beat.age_s <= settings.loop_limit_s and poll_s <= settings.poll_limit_s
        told = {"status": "alive" if alive else "stuck", "loop_s": round(beat.age_s, 2), "poll_s": round(poll_s, 2)}
        return JSONResponse(told, 200 if alive else 503)

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether every assigned partition is claimed. Those that stand still are named; the others go on."""
        worker = running.worker
        if worker is None or not worker.ready:
            return Response("claiming", 503)
        still = "; ".join(f"partition {p} stands still: {why}" for p, why in sorted(worker.stopped.items()))
        return Response(f"ready; {still}" if still else "ready", 200)

    return app

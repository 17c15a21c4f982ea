"""`parley up`: the three services in one process, on the embedded log and an embedded PostgreSQL.

The composition root of roots: each service's own `build` is called, around one log; history is asked in the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack
from typing import Any

import uvicorn

import parley_dispatcher.app
import parley_dispatcher.history
import parley_dispatcher.settings
import parley_gateway.app
import parley_gateway.history
import parley_gateway.settings
import parley_history.app
import parley_history.migrate
import parley_history.settings
from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.errors import LogError
from parley_events.ids import random_uuid
from parley_events.log.open import open_log
from parley_events.serve import server_of, set_up_logs
from parley_history.errors import HistoryError
from parley_standalone.addresses import service_environment
from parley_standalone.agents_file import AgentsFile, read_agents_file
from parley_standalone.client import in_process, wait_until_served
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.errors import PartError
from parley_standalone.parts.postgres import Postgres
from parley_standalone.ready import Ready, banner
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings

_log = logging.getLogger("parley")


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1 that is ours from now on. Raises CommandError when the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise CommandError(f"127.0.0.1:{port} is in use: name another one with PORT=, or PORT=0 for any") from None
    return listener


async def up(settings: Settings) -> int:
    """Run until a signal; the exit status. Raises CommandError."""
    file = read_agents_file(settings.agents, TOOLS)
    listener = listen(settings.port)
    folder: Folder | None = None
    try:
        folder = Folder.open(settings.data, "up")
        set_up_logs(settings.env.get("PARLEY_LOG_LEVEL", "INFO"), folder.logs / "parley.log")
        return await _run(settings, folder, file, listener)
    except (PartError, LogError, HistoryError) as error:
        raise CommandError(str(error)) from None
    finally:
        listener.close()
        if folder is not None:
            folder.close()


async def _run(settings: Settings, folder: Folder, file: AgentsFile, listener: socket.socket) -> int:
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    kept = folder.secrets
    async with AsyncExitStack() as stack:
        postgres = Postgres(folder.path / "postgres", folder.logs / "postgres.log", kept.postgres_owner, settings.env)
        stack.push_async_callback(asyncio.to_thread, postgres.stop)
        await asyncio.to_thread(postgres.start)
        env = settings.for_services(
            **service_environment(folder, postgres),
            PARLEY_LOG="embedded",
            PARLEY_PORT=str(listener.getsockname()[1]),
            PARLEY_DRAIN_S=settings.env.get("PARLEY_DRAIN_S", "3"),
        )
        history_settings = parley_history.settings.from_env(env)
        await parley_history.migrate.migrate(history_settings)
        dispatcher_settings = parley_dispatcher.settings.Settings.from_env(env)
        gateway_settings = parley_gateway.settings.Settings.from_env(env)
        log = await open_log("embedded", "", folder.path, dispatcher_settings.partitions, "parley")
        stack.push_async_callback(log.close)
        died: list[str] = []
        server: uvicorn.Server | None = None

        def on_failure(why: str) -> None:
            died.append(why)
            _log.critical("ending: %s", why)
            if server is not None:
                server.should_exit = True

        history = parley_history.app.build(history_settings, log=log, on_failure=on_failure)
        await stack.enter_async_context(_alive(history))
        asked = parley_dispatcher.history.History(
            ("http://history",), kept.internal_token, transport=in_process(history)
        )
        stack.push_async_callback(asked.close)
        dispatcher = parley_dispatcher.app.build(dispatcher_settings, log=log, history=asked, on_failure=on_failure)
        await stack.enter_async_context(_alive(dispatcher))
        gateway = parley_gateway.app.build(
            gateway_settings,
            log=log,
            history=parley_gateway.history.History.in_process(history, kept.internal_token),
        )
        server = server_of(gateway, "127.0.0.1", 0, grace_s=2.0, on_stop=lambda: parley_gateway.app.drain(gateway))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready = Ready(folder, settings.ready)
        try:
            await _first(serving, seed(log, seed_commands(kept, file, system_clock(), random_uuid)))
            await _first(serving, wait_until_served(base_url, kept.api_key, [spec.agent_id for spec in file.agents]))
            if not serving.done():
                ready.write([base_url], None, postgres.dsn(), {"standalone": [os.getpid()], "postgres": [postgres.pid]})
                for notice in file.notices:
                    print(f"  note: {notice}", flush=True)
                print(banner(base_url, folder), flush=True)
            await serving
        finally:
            ready.remove()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=5.0)
        if died:
            raise CommandError(f"Parley ended because a part of it died: {died[0]}; see {folder.logs}")
        return 0


async def _first(serving: asyncio.Task[None], work: Any) -> None:
    """Do the work, unless the server is told to stop first."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({serving, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    else:
        task.cancel()
        await asyncio.wait({task})


def _alive(app: Any) -> Any:
    """The lifespan of a service that no server runs."""
    return app.router.lifespan_context(app)

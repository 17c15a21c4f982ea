"""`parley up`, the newcomer's default: the three services in one process, on an embedded log and PostgreSQL.

The composition root of roots: each service's own `build` is called, around one log; history is asked in the process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

import parley_dispatcher.app
import parley_dispatcher.history
import parley_gateway.app
import parley_gateway.history
import parley_history.app
import parley_history.migrate
from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.errors import LogError
from parley_events.ids import random_uuid
from parley_events.log.open import open_log
from parley_events.serve import server_of, set_up_logs
from parley_events.telemetry import Telemetry, TelemetrySettings, open_telemetry
from parley_history.errors import HistoryError
from parley_standalone.addresses import service_settings
from parley_standalone.agents_file import AgentsFile, noting_keys, read_agents_file
from parley_standalone.client import in_process, wait_until_served
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.errors import PartError
from parley_standalone.parts.postgres import Postgres
from parley_standalone.ready import Ready, announce
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings
from parley_standalone.stopping import Stop, Stopped

_log = logging.getLogger("parley")

_LOOK_S = 0.2


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1 that is ours from now on. Raises CommandError when the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
        raise CommandError(f"127.0.0.1:{port} {why}: name another port with PORT=, or PORT=0 for any") from None
    return listener


async def up(settings: Settings) -> int:
    """Run until a signal; the exit status. Raises CommandError."""
    file = noting_keys(read_agents_file(settings.agents, TOOLS), settings.env)
    try:
        shown = TelemetrySettings.from_env(settings.env)
    except ValueError as error:
        raise CommandError(str(error)) from None
    folder = Folder.open(settings.data)
    listener: socket.socket | None = None
    try:
        listener = listen(settings.port)
        set_up_logs(settings.log_level, folder.logs / "parley.log")
        postgres = Postgres(
            folder.path / "postgres", folder.logs / "postgres.log", folder.secrets.postgres_owner, settings.env
        )
        stop = Stop(postgres.kill)
        telemetry = open_telemetry("parley", shown)
        try:
            with stop.listening():
                return await _run(settings, folder, file, listener, postgres, stop, telemetry)
        finally:
            await asyncio.to_thread(telemetry.close)
    except (PartError, LogError, HistoryError) as error:
        raise CommandError(str(error)) from None
    finally:
        if listener is not None:
            listener.close()
        folder.close()


async def _run(
    settings: Settings,
    folder: Folder,
    file: AgentsFile,
    listener: socket.socket,
    postgres: Postgres,
    stop: Stop,
    telemetry: Telemetry,
) -> int:
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    kept = folder.secrets
    ready = Ready(folder, settings.ready)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, postgres.stop, 5.0)
        await asyncio.to_thread(postgres.start)
        services = service_settings(settings, folder, postgres, PARLEY_LOG="embedded")
        await parley_history.migrate.migrate(services.history)
        log = await open_log("embedded", "", folder.path, services.dispatcher.partitions, "parley")
        stack.push_async_callback(log.close)
        died: list[str] = []

        def on_failure(why: str) -> None:
            died.append(why)
            _log.critical("ending: %s", why)
            stop.tell()

        history = parley_history.app.build(services.history, log=log, telemetry=telemetry, on_failure=on_failure)
        await stack.enter_async_context(history.router.lifespan_context(history))
        asked = parley_dispatcher.history.History(
            ("http://history",), kept.internal_token, transport=in_process(history)
        )
        stack.push_async_callback(asked.close)
        dispatcher = parley_dispatcher.app.build(
            services.dispatcher, log=log, history=asked, telemetry=telemetry, on_failure=on_failure
        )
        await stack.enter_async_context(dispatcher.router.lifespan_context(dispatcher))
        gateway_history = parley_gateway.history.History.in_process(history, kept.internal_token)
        stack.push_async_callback(gateway_history.close)
        gateway = parley_gateway.app.build(
            services.gateway, log=log, history=gateway_history, telemetry=telemetry, on_failure=on_failure
        )
        server = server_of(
            gateway,
            "127.0.0.1",
            0,
            grace_s=2.0,
            on_stop=lambda: parley_gateway.app.drain(gateway),
            signals=False,
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        serving.add_done_callback(lambda _: on_failure("the server ended") if not server.should_exit else None)

        def write_ready() -> None:
            ready.write([base_url], None, postgres.dsn(), {"standalone": [os.getpid()], "postgres": [postgres.pid]})

        try:
            seeded = await stop.unless(seed(log, seed_commands(kept, file, system_clock(), random_uuid)))
            agents = [spec.agent_id for spec in file.agents if spec.agent_id not in seeded.deleted]
            let_in = await stop.unless(wait_until_served(base_url, kept.api_key, agents))
            write_ready()
            announce([base_url], folder, (*file.notices, *seeded.notices), let_in)
            await stop.unless(_keep(postgres, settings.restart is not False, folder, write_ready))
        except Stopped:
            pass
        finally:
            ready.remove()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=5.0)
        if died:
            raise CommandError(f"Parley ended because a part of it died: {died[0]}; see {folder.logs}")
        return 0


async def _keep(postgres: Postgres, restart: bool, folder: Folder, write_ready: Callable[[], None]) -> None:
    """Say when PostgreSQL dies, and start it again; meanwhile sending goes on, and reading has to wait."""
    reported = 0
    while True:
        await asyncio.sleep(_LOOK_S)
        if postgres.alive or postgres.pid == reported:
            continue
        reported = postgres.pid
        again = " and is started again" if restart else ""
        print(f"  postgres (process {reported}) died{again}; see {folder.logs}", flush=True)
        if restart:
            try:
                await asyncio.to_thread(postgres.start)
            except PartError as error:
                print(f"  postgres does not start: {error}", flush=True)
                reported = 0
                await asyncio.sleep(1.0)
            else:
                write_ready()

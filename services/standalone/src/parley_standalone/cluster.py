"""`parley cluster`: Parley as it runs in production, on one machine: Kafka, PostgreSQL, and every service a process.

In the foreground. A child that dies is reported and the others go on; with RESTART it is started again on its port,
the broker and PostgreSQL too, and READY names its new pid. The children are the workers themselves, no launchers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.errors import EventsError
from parley_events.ids import random_uuid
from parley_events.log.kafka_topics import apply_topics
from parley_events.log.open import open_log
from parley_events.serve import set_up_logs
from parley_history.errors import HistoryError
from parley_history.migrate import migrate
from parley_standalone.addresses import service_settings
from parley_standalone.agents_file import AgentsFile, noting_keys, read_agents_file
from parley_standalone.client import is_ready, wait_until_served
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.errors import PartError
from parley_standalone.parts.kafka import Kafka
from parley_standalone.parts.postgres import Postgres
from parley_standalone.parts.process import free_port
from parley_standalone.parts.service import Service, end_leftovers
from parley_standalone.ready import Ready, announce
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings
from parley_standalone.stopping import LIMIT_S, Stop, Stopped
from parley_standalone.up import listen

_READY_S = 60.0
_LOOK_S = 0.1
_EDGE_S = 4.0
"""What gateways and dispatchers get at a stop; history gets half, the broker and the database what is left."""
_SHORT_LIFE_S = 5.0


class Part(Protocol):
    """Something that runs as a process: a service, the broker, the database."""

    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(slots=True)
class Cluster:
    """Every part by kind, in the order in which they are started."""

    folder: Folder
    kafka: Kafka
    postgres: Postgres
    services: list[Service] = field(default_factory=list)
    keeping: list[asyncio.Task[None]] = field(default_factory=list)

    def parts(self) -> list[tuple[str, Part]]:
        return [("kafka", self.kafka), ("postgres", self.postgres), *((s.kind, s) for s in self.services)]

    def of(self, kind: str) -> list[Service]:
        return [service for service in self.services if service.kind == kind]

    def write_ready(self, ready: Ready) -> None:
        pids: dict[str, list[int]] = {"gateway": [], "dispatcher": [], "history": [], "kafka": [], "postgres": []}
        for kind, part in self.parts():
            pids[kind].append(part.pid)
        gateways = [service.url for service in self.of("gateway")]
        ready.write(gateways, self.kafka.bootstrap, self.postgres.dsn(), pids)

    def kill(self) -> None:
        for _, part in self.parts():
            part.kill()

    async def stop(self) -> None:
        """Those that take work in first, then the view, then the broker and the database; within the limit in all."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LIMIT_S - 0.5
        for task in self.keeping:
            task.cancel()
        await asyncio.gather(*self.keeping, return_exceptions=True)
        edge = [*self.of("gateway"), *self.of("dispatcher")]
        await asyncio.gather(*(asyncio.to_thread(service.stop, _EDGE_S) for service in edge))
        await asyncio.gather(*(asyncio.to_thread(service.stop, _EDGE_S / 2) for service in self.of("history")))
        left = max(until - loop.time(), 1.0)
        await asyncio.gather(asyncio.to_thread(self.kafka.stop, left), asyncio.to_thread(self.postgres.stop, left))


async def cluster(settings: Settings) -> int:
    """Run until a signal; the exit status. Raises CommandError. Kafka's jars must be installed."""
    file = noting_keys(read_agents_file(settings.agents, TOOLS), settings.env)
    folder = Folder.open(settings.data)
    listener: socket.socket | None = None
    try:
        listener = listen(settings.port)
        set_up_logs(settings.log_level, folder.logs / "cluster.log")
        running = Cluster(
            folder,
            Kafka(folder.path / "kafka", folder.logs / "kafka.log", settings.env),
            Postgres(
                folder.path / "cluster-postgres",
                folder.logs / "cluster-postgres.log",
                folder.secrets.postgres_owner,
                settings.env,
            ),
        )
        ready = Ready(folder, settings.ready)
        stop = Stop(running.kill)
        with stop.listening():
            try:
                await _start_stores(running)
                await stop.unless(_start(running, settings, file, listener))
                running.write_ready(ready)
                for kind, part in running.parts():
                    task = asyncio.create_task(_keep(running, kind, part, ready, bool(settings.restart)))
                    running.keeping.append(task)
                for task in running.keeping:
                    task.add_done_callback(lambda task: None if task.cancelled() else stop.tell())
                await stop.wait()
            except Stopped:
                pass
            finally:
                ready.remove()
                stop.tell()
                await running.stop()
        for task in running.keeping:
            if not task.cancelled():
                task.result()
        return 0
    except (PartError, EventsError, HistoryError) as error:
        raise CommandError(str(error)) from None
    finally:
        if listener is not None:
            listener.close()
        folder.close()


async def _start_stores(running: Cluster) -> None:
    """The broker and the database, both at once. When one fails the other is waited for, so that it can be stopped."""
    starts = (asyncio.to_thread(part.start) for part in (running.kafka, running.postgres))
    for outcome in await asyncio.gather(*starts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _start(running: Cluster, settings: Settings, file: AgentsFile, listener: socket.socket) -> None:
    """Everything beyond the broker and the database, up to the moment when all of it answers."""
    folder, kept, bootstrap = running.folder, running.folder.secrets, running.kafka.bootstrap
    history_ports = [free_port() for _ in range(settings.histories)]
    services = service_settings(
        settings,
        folder,
        running.postgres,
        PARLEY_LOG="kafka",
        PARLEY_KAFKA=bootstrap,
        PARLEY_HISTORY_URL=",".join(f"http://127.0.0.1:{port}" for port in history_ports),
    )
    partitions = services.dispatcher.partitions
    await asyncio.gather(apply_topics(bootstrap, partitions), migrate(services.history))
    ports = {
        "history": history_ports,
        "dispatcher": [free_port() for _ in range(settings.dispatchers)],
        "gateway": [listener.getsockname()[1], *(free_port() for _ in range(settings.gateways - 1))],
    }
    end_leftovers(folder.path)
    # From here on the first gateway listens there itself.
    listener.close()
    for kind, numbers in ports.items():
        for number, port in enumerate(numbers, start=1):
            service = Service(kind, number, port, folder.path, services.environments[kind])
            running.services.append(service)
            service.start()
    await _unless_one_dies(running, _until_served(running, kept.api_key, file, partitions))


async def _until_served(running: Cluster, key: str, file: AgentsFile, partitions: int) -> None:
    folder = running.folder
    log = await open_log("kafka", running.kafka.bootstrap, folder.path, partitions, "parley-seed")
    try:
        seeded = await seed(log, seed_commands(folder.secrets, file, system_clock(), random_uuid))
    finally:
        await log.close()
    until = asyncio.get_running_loop().time() + _READY_S
    for service in running.services:
        while not await is_ready(service.url):
            if asyncio.get_running_loop().time() > until:
                raise CommandError(f"{service.name} did not get ready within a minute; see {folder.logs}")
            await asyncio.sleep(0.05)
    agents = [spec.agent_id for spec in file.agents if spec.agent_id not in seeded.deleted]
    urls = [service.url for service in running.of("gateway")]
    let_in = await asyncio.gather(*(wait_until_served(url, key, agents) for url in urls))
    announce(urls, folder, (*file.notices, *seeded.notices), all(let_in))


async def _unless_one_dies(running: Cluster, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; a service that ends meanwhile cannot start, and will not by waiting."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_S)
            for service in running.services:
                if not service.alive:
                    raise CommandError(f"{service.name} does not start: {service.last_words()}")
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _death_of(part: Part) -> None:
    while part.alive:  # noqa: ASYNC110 - a process tells nobody
        await asyncio.sleep(_LOOK_S)


async def _keep(running: Cluster, kind: str, part: Part, ready: Ready, restart: bool) -> None:
    """Until the stop: say when a part dies, and start it again when asked to; what will not start is tried again."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        await _death_of(part)
        again = " and is started again" if restart else ""
        print(f"  {kind} (process {part.pid}) died{again}; see {running.folder.logs}", flush=True)
        if not restart:
            await asyncio.Event().wait()
        if loop.time() - began < _SHORT_LIFE_S:
            await asyncio.sleep(1.0)
        began = loop.time()
        before = part.pid
        starting = asyncio.create_task(asyncio.to_thread(part.start))
        # The new process is there long before it answers: READY names it at once.
        while not starting.done():
            await asyncio.wait({starting}, timeout=0.05)
            if part.alive and part.pid != before:
                before = part.pid
                running.write_ready(ready)
        try:
            starting.result()
        except PartError as error:
            print(f"  {kind} does not start: {error}", flush=True)
        else:
            running.write_ready(ready)

"""`parley cluster`: Parley as it runs in production, on one machine: Kafka, PostgreSQL, and every service a process.

In the foreground. A child that dies is reported and the others go on; with RESTART it is started again on its port,
the broker and PostgreSQL too, and READY names its new pid. The children are the workers themselves, no launchers.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.errors import EventsError
from parley_events.ids import random_uuid
from parley_events.log.kafka_topics import apply_topics
from parley_events.log.open import open_log
from parley_events.serve import set_up_logs
from parley_history.errors import HistoryError
from parley_history.migrate import migrate
from parley_history.settings import from_env as history_settings
from parley_standalone.addresses import service_environment
from parley_standalone.agents_file import AgentsFile, read_agents_file
from parley_standalone.client import wait_until_ready, wait_until_served
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.errors import PartError
from parley_standalone.parts.kafka import Kafka, install_jars
from parley_standalone.parts.postgres import Postgres
from parley_standalone.parts.process import end_leftover, free_port, spawn, stop
from parley_standalone.ready import Ready, banner
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings
from parley_standalone.up import listen

_READY_S = 60.0
_LOOK_S = 0.2
_GRACE_S = {"gateway": 4.0, "dispatcher": 6.0, "history": 4.0}


class Part(Protocol):
    """Something that runs as a process: a service, the broker, the database."""

    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Service:
    """A process of one of the three services, always on the same port."""

    def __init__(self, kind: str, number: int, port: int, folder: Folder, env: Mapping[str, str]) -> None:
        self.kind, self.port = kind, port
        self._name = f"{kind}-{number}"
        self._output = folder.logs / f"{self._name}.out"
        self._pid_file = folder.path / "pids" / self._name
        self._env = {
            **env,
            "PARLEY_PORT": str(port),
            "PARLEY_LOG_FILE": str(folder.logs / f"{self._name}.log"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self._pid_file.parent.mkdir(exist_ok=True)
        with suppress(OSError, ValueError):
            end_leftover(int(self._pid_file.read_text()), [f"parley_{self.kind}"], signal.SIGKILL)
        self._process = spawn([sys.executable, "-m", f"parley_{self.kind}"], self._output, self._env)
        self._pid_file.write_text(str(self.pid))

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, signal.SIGTERM, _GRACE_S[self.kind])
            self._pid_file.unlink(missing_ok=True)


@dataclass(slots=True)
class Cluster:
    """Every part by kind, in the order in which they are started."""

    settings: Settings
    folder: Folder
    kafka: Kafka
    postgres: Postgres
    services: list[Service] = field(default_factory=list)
    restarting: dict[str, asyncio.Task[None]] = field(default_factory=dict)

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

    async def stop(self) -> None:
        """Edge first, so that nothing new comes in; services of a kind at once; the broker and the database last."""
        for task in self.restarting.values():
            task.cancel()
        for kinds in (("gateway",), ("dispatcher",), ("history",)):
            await asyncio.gather(*(asyncio.to_thread(s.stop) for s in self.services if s.kind in kinds))
        await asyncio.gather(asyncio.to_thread(self.kafka.stop), asyncio.to_thread(self.postgres.stop))


async def cluster(settings: Settings) -> int:
    """Run until a signal; the exit status. Raises CommandError."""
    file = read_agents_file(settings.agents, TOOLS)
    listener = listen(settings.port)
    port = listener.getsockname()[1]
    folder: Folder | None = None
    try:
        folder = Folder.open(settings.data, "cluster")
        set_up_logs(settings.env.get("PARLEY_LOG_LEVEL", "INFO"), folder.logs / "cluster.log")
        await asyncio.to_thread(install_jars, settings.env)
        running = Cluster(
            settings,
            folder,
            Kafka(folder.path / "kafka", folder.logs / "kafka.log", settings.env),
            Postgres(
                folder.path / "postgres", folder.logs / "postgres.log", folder.secrets.postgres_owner, settings.env
            ),
        )
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        ready = Ready(folder, settings.ready)
        try:
            starting = asyncio.create_task(_start(running, file, port, ready, listener.close))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await _supervise(running, ready, stopping)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        finally:
            ready.remove()
            await running.stop()
        return 0
    except (PartError, EventsError, HistoryError) as error:
        raise CommandError(str(error)) from None
    finally:
        listener.close()
        if folder is not None:
            folder.close()


async def _start(running: Cluster, file: AgentsFile, port: int, ready: Ready, release_port: Callable[[], None]) -> None:
    settings, folder, kept = running.settings, running.folder, running.folder.secrets
    await asyncio.gather(asyncio.to_thread(running.kafka.start), asyncio.to_thread(running.postgres.start))
    common = service_environment(folder, running.postgres) | {
        "PARLEY_LOG": "kafka",
        "PARLEY_KAFKA": running.kafka.bootstrap,
    }
    partitions = int(settings.env.get("PARLEY_PARTITIONS", "8"))
    await apply_topics(running.kafka.bootstrap, partitions)
    await migrate(history_settings(settings.for_services(**common)))
    history_ports = [free_port() for _ in range(settings.histories)]
    common["PARLEY_HISTORY_URL"] = ",".join(f"http://127.0.0.1:{number}" for number in history_ports)
    env = settings.for_services(**common)
    running.services += [Service("history", n, p, folder, env) for n, p in enumerate(history_ports, start=1)]
    running.services += [Service("dispatcher", n, free_port(), folder, env) for n in range(1, settings.dispatchers + 1)]
    gateway_ports = [port, *(free_port() for _ in range(settings.gateways - 1))]
    running.services += [Service("gateway", n, p, folder, env) for n, p in enumerate(gateway_ports, start=1)]
    release_port()
    for service in running.services:
        service.start()
    log = await open_log("kafka", running.kafka.bootstrap, folder.path, partitions, "parley-seed")
    try:
        await seed(log, seed_commands(kept, file, system_clock(), random_uuid))
    finally:
        await log.close()
    answers = await asyncio.gather(*(wait_until_ready(service.url, _READY_S) for service in running.services))
    for service, answered in zip(running.services, answers, strict=True):
        if not answered:
            raise CommandError(f"a {service.kind} did not get ready within a minute; see {folder.logs}")
    agents = [spec.agent_id for spec in file.agents]
    await asyncio.gather(*(wait_until_served(s.url, kept.api_key, agents) for s in running.of("gateway")))
    running.write_ready(ready)
    for notice in file.notices:
        print(f"  note: {notice}", flush=True)
    others = [service.url for service in running.of("gateway")[1:]]
    print(banner(running.of("gateway")[0].url, folder), flush=True)
    if others:
        print(f"  more gateways: {', '.join(others)}\n", flush=True)


async def _supervise(running: Cluster, ready: Ready, stopping: asyncio.Event) -> None:
    """Until the stop: say who died, and start it again when asked to."""
    reported: set[int] = set()
    while not stopping.is_set():
        for kind, part in running.parts():
            if part.alive or part.pid in reported:
                continue
            reported.add(part.pid)
            again = " and is started again" if running.settings.restart else ""
            print(f"  {kind} (process {part.pid}) died{again}; see {running.folder.logs}", flush=True)
            if running.settings.restart:
                name = f"{kind}-{part.pid}"
                running.restarting[name] = asyncio.create_task(_restart(running, kind, part, ready))
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _LOOK_S)


async def _restart(running: Cluster, kind: str, part: Part, ready: Ready) -> None:
    """Start a part again; one that will not start is tried again each second."""
    while True:
        starting = asyncio.create_task(asyncio.to_thread(part.start))
        # The new process is there long before it answers: READY names it at once.
        before = part.pid
        while not starting.done():
            await asyncio.sleep(0.05)
            if part.pid != before and part.alive:
                before = part.pid
                running.write_ready(ready)
        try:
            starting.result()
        except PartError as error:
            print(f"  {kind} does not start: {error}", flush=True)
            await asyncio.sleep(1.0)
            continue
        running.write_ready(ready)
        return

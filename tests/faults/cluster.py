"""The system that is broken: real Kafka, real PostgreSQL, three dispatchers, two histories, two gateways, each a
process of its own that `process` has started, a tool server with a ledger, a proxy between dispatchers and broker.

    cluster     starts, kills, continues and stops all of it; leaves nothing behind
    control     the line to the services' processes
    proxy       the network of the dispatchers
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx2
import psutil

from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.ids import derived_uuid, random_uuid
from parley_events.log.kafka_topics import apply_topics
from parley_events.log.open import open_log
from parley_history.migrate import migrate
from parley_standalone.addresses import service_settings
from parley_standalone.agents_file import read_agents_file
from parley_standalone.folder import Folder
from parley_standalone.parts.kafka import Kafka
from parley_standalone.parts.postgres import Postgres
from parley_standalone.parts.process import free_port, spawn, stop, tail_of
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings
from tests.faults.control import Control
from tests.faults.proxy import Proxy

TOP = Path(__file__).parents[2]
PARTITIONS = 8
COUNTS = {"dispatcher": 3, "history": 2, "gateway": 2}
GROUP = "parley.dispatcher"
STRUCTURES = tuple(derived_uuid("structure", str(number)) for number in range(400))
"""A thread of `org_chat` is named by a structure and a role: one structure per thread that a run of the suite needs."""
READY_S = 90.0

_AGENTS = """\
structures: [{structures}]
mcp_servers:
  - name: ledger
    url: http://127.0.0.1:{port}/mcp
    timeout_s: 2
    tools:
      pay: unsafe
      book: idempotent
      reserve: {{effect: checkable, check: reserved}}
      reserved: read_only
      look: read_only
agents:
  - id: scripted
    name: Scripted
    model: scripted
    tools: ["*", "*/*"]
    limits: {{steps: 40, seconds: 300}}
"""

_PARKS = """\
    approvals:
      - publish
      - {tool: repeat, question: 'Again?', expires_s: 2}
    client_tools:
      - name: get_weather
        description: The weather, as the client knows it.
        input_schema: {type: object, properties: {location: {type: string}}}
      - {name: get_mood, description: Expires soon., input_schema: {type: object}, expires_s: 2}
"""
"""What makes runs of the agent wait, where they can."""

_SETTINGS = {
    "PARLEY_MODEL_BACKOFF_MS": "50",
    "PARLEY_MODEL_STALL_S": "1",
    "PARLEY_TOOL_TIMEOUT_S": "20",
    "PARLEY_DRAIN_S": "2",
    "ANTHROPIC_API_KEY": "",
    "ANTHROPIC_BASE_URL": "",
    "PARLEY_MODEL": "",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Beyond the defaults: quick pauses between attempts; everything that a takeover depends on is as it comes."""


_MOVES = """
CREATE SCHEMA faults;
CREATE TABLE faults.moves (
    id bigint GENERATED ALWAYS AS IDENTITY, partition int, from_offset bigint, to_offset bigint
);
CREATE FUNCTION faults.note_move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO faults.moves (partition, from_offset, to_offset)
    VALUES (NEW.partition, OLD.next_offset, NEW.next_offset);
    RETURN NULL;
END $$;
CREATE TRIGGER note_move AFTER UPDATE ON parley.positions FOR EACH ROW EXECUTE FUNCTION faults.note_move();
"""


class Process:
    """One process of a service, always on the same port."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        self.name, self.kind = name, name.partition("-")[0]
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self._output = folder / f"{name}.out"
        self.env = {**env, "PARLEY_PORT": str(self.port), "PARLEY_LOG_FILE": str(self.log), "FAULTS_NAME": name}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

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
        """Start it; it answers some time later."""
        words = [sys.executable, "-m", "tests.faults.process", self.kind]
        self._process = spawn(words, self._output, self.env, cwd=TOP)
        self.starts += 1

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, as a crash; also of one that is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def reap(self, limit_s: float = 10.0) -> None:
        """Wait for the end of one that was killed, or has killed itself; one that still lives is killed."""
        if self._process is not None:
            try:
                self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def end(self, limit_s: float = 15.0) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM, limit_s)

    @property
    def stopped(self) -> bool:
        """Whether it stands still (SIGSTOP)."""
        try:
            return self.alive and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def last_words(self) -> str:
        return tail_of(self._output, 15) + tail_of(self.log, 5)


@dataclass(slots=True)
class Cluster:
    """All of it, running. `guards_off`: the guards that are taken out in every process that has them."""

    folder: Path
    guards_off: tuple[str, ...] = ()
    processes: dict[str, Process] = field(default_factory=dict)
    api_key: str = ""
    workspace_id: str = ""
    _stack: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _data: Folder | None = None
    _stopped: bool = False
    kafka: Kafka = field(init=False)
    postgres: Postgres = field(init=False)
    control: Control = field(init=False)
    proxy: Proxy = field(init=False)

    def of(self, kind: str) -> list[Process]:
        return [process for process in self.processes.values() if process.kind == kind]

    @property
    def bootstrap(self) -> str:
        """Where Kafka is for everyone but the dispatchers."""
        return self.kafka.bootstrap

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def effects(self) -> Path:
        """Where `append_line` writes to."""
        return self.folder / "data" / "effects"

    def gateway(self, number: int) -> str:
        return self.of("gateway")[number % COUNTS["gateway"]].url

    def client(self, number: int, timeout_s: float = 20.0) -> httpx2.AsyncClient:
        """A client of a gateway, with the key."""
        return httpx2.AsyncClient(
            base_url=self.gateway(number),
            headers={"Authorization": f"Bearer {self.api_key}"},
            timeout=timeout_s,
            trust_env=False,
        )

    async def start(self) -> None:
        """Start everything, and wait until all of it is ready and seeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.kill)
        self.control = Control(self.folder)
        await self.control.start()
        proxied = free_port()
        logs, environment = self.folder / "logs", {**os.environ, **_SETTINGS}
        logs.mkdir(exist_ok=True)
        self.kafka = Kafka(self.folder / "kafka", logs / "kafka.log", environment, proxied=proxied)
        self.proxy = Proxy(proxied, lambda: self.kafka.proxied_port)
        await self.proxy.start()
        data = self._data = Folder.open(self.folder / "data")
        kept = data.secrets
        self.api_key, self.workspace_id = kept.api_key, kept.workspace_id
        self.postgres = Postgres(data.path / "postgres", logs / "postgres.log", kept.postgres_owner, environment)
        tools = asyncio.to_thread(self._start_tools)
        stores = asyncio.to_thread(self.kafka.start), asyncio.to_thread(self.postgres.start)
        port, *_ = await asyncio.gather(tools, *stores)
        agents = self.folder / "agents.yaml"
        parks = _PARKS if "publish" in TOOLS else ""
        agents.write_text(_AGENTS.format(port=port, structures=", ".join(STRUCTURES)) + parks)
        file = read_agents_file(agents, TOOLS)
        common = {
            "PARLEY_LOG": "kafka",
            "PARLEY_KAFKA": self.bootstrap,
            "FAULTS_SOCKET": str(self.control.path),
            "FAULTS_GUARDS_OFF": ",".join(self.guards_off),
        }
        given = Settings.from_env({**environment, "DATA": str(data.path)})
        services = service_settings(given, data, self.postgres, **common)
        services.environments["dispatcher"] = services.environments["dispatcher"] | {
            "PARLEY_KAFKA": f"127.0.0.1:{proxied}"
        }
        await asyncio.gather(apply_topics(self.bootstrap, PARTITIONS), migrate(services.history))
        await self._watch_positions()
        for kind, count in COUNTS.items():
            for number in range(1, count + 1):
                process = Process(f"{kind}-{number}", logs, services.environments[kind])
                self.processes[process.name] = process
        urls = ",".join(process.url for process in self.of("history"))
        for process in self.processes.values():
            process.env["PARLEY_HISTORY_URL"] = urls
            process.start()
        log = await open_log("kafka", self.bootstrap, self.folder, PARTITIONS, "parley-seed")
        try:
            await seed(log, seed_commands(kept, file, system_clock(), random_uuid))
        finally:
            await log.close()
        await self.ready()

    async def _watch_positions(self) -> None:
        """Have PostgreSQL write down every move of a position: what a look at the table now and then would miss."""
        connection = await self.connect()
        try:
            await connection.execute(_MOVES)
        finally:
            await connection.close()

    def _start_tools(self) -> int:
        port_file = self.folder / "tools-port"
        words: list[str | Path] = [sys.executable, "-m", "tests.faults.ledger_server", port_file, self.ledger]
        said = self.folder / "logs" / "tools.out"
        process = spawn(words, said, dict(os.environ), cwd=TOP)
        self._stack.append(process)
        until = time.monotonic() + 30
        while not port_file.exists() or not port_file.read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(
                    f"the tool server did not start: {tail_of(self.folder / 'logs' / 'tools.out', 20)}"
                )
            time.sleep(0.02)
        return int(port_file.read_text())

    async def ready(self, names: Iterable[str] | None = None, limit_s: float = READY_S) -> None:
        """Wait until the processes (all of them) answer that they are ready."""
        async with httpx2.AsyncClient(timeout=3.0, trust_env=False) as client:
            for name in self.processes if names is None else names:
                process, until = self.processes[name], time.monotonic() + limit_s
                said = "nothing"
                while True:
                    with suppress(httpx2.HTTPError):
                        answer = await client.get(f"{process.url}/readyz")
                        said = f"{answer.status_code} {answer.text[:200]}"
                        if answer.status_code == 200:
                            break
                    if not process.alive:
                        raise AssertionError(f"{name} ended by itself:\n{process.last_words()}")
                    if time.monotonic() > until:
                        raise AssertionError(
                            f"{name} is not ready after {limit_s:g} s ({said}):\n{process.last_words()}"
                        )
                    await asyncio.sleep(0.05)

    async def restart(self, process: Process) -> None:
        """Start a process that has ended again, and wait until it is on the line."""
        await asyncio.to_thread(process.reap)
        process.start()
        async with asyncio.timeout(READY_S):
            while not self.control.connected(process.name, process.pid):
                if not process.alive:
                    raise AssertionError(f"{process.name} ended by itself:\n{process.last_words()}")
                await asyncio.sleep(0.02)

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to PostgreSQL as the owner of everything."""
        return await asyncpg.connect(self.postgres.dsn())

    async def stop(self) -> None:
        """End everything, at once: what is worth keeping was gathered before."""
        await asyncio.to_thread(self.kill)
        await self.control.close()
        await self.proxy.close()

    def kill(self) -> None:
        """SIGKILL to whatever still runs."""
        if self._stopped:
            return
        self._stopped = True
        for process in self.processes.values():
            process.kill()
        for child in self._stack:
            child.kill()
            child.wait(10)
        if hasattr(self, "kafka"):
            self.kafka.kill()
        if hasattr(self, "postgres"):
            self.postgres.stop(5.0)
        if self._data is not None:
            self._data.close()
        atexit.unregister(self.kill)


def children() -> frozenset[int]:
    """The processes that this one has started."""
    return frozenset(child.pid for child in psutil.Process().children())


def left_behind(others: frozenset[int]) -> list[str]:
    """The command lines of what this process has started, and they in turn, that still run: there should be none beside
    `others`, which were there before (the systems of other tests)."""
    found: list[str] = []
    for child in psutil.Process().children():
        if child.pid in others:
            continue
        with suppress(psutil.Error):
            running = [p for p in (child, *child.children(recursive=True)) if p.status() != psutil.STATUS_ZOMBIE]
            found.extend(" ".join(process.cmdline())[:200] for process in running)
    return found

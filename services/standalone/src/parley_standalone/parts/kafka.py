"""One Apache Kafka broker (KRaft, broker and controller in one) as a local process, from its published jars.

The jars come from Maven once, into the environment's own folder, and are checked against `kafka_jars/SHA256SUMS`. A
class-data archive made at the first start halves the later ones. The broker listens on 127.0.0.1 alone, its data lies
below the folder given, and it comes back on the same port.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from parley_standalone.parts.errors import PartError
from parley_standalone.parts.java import find_java
from parley_standalone.parts.process import (
    end_leftover,
    free_port,
    reason_in,
    spawn,
    stop,
    wait_for_port,
    wait_until_free,
)

VERSION = "4.4.0"
JARS = Path(sys.prefix) / "share" / "parley" / f"kafka-{VERSION}"
_PINNED = Path(__file__).parent / "kafka_jars"
_START_S = 60.0
_MAVEN_S = 600.0


def _pins() -> dict[str, str]:
    lines = (_PINNED / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def jars_are_here() -> bool:
    """Whether every jar was installed and checked before, and still has the size that it had then."""
    try:
        sizes: dict[str, int] = json.loads((JARS / "checked").read_text())
        return sizes.keys() == _pins().keys() and all((JARS / n).stat().st_size == size for n, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def install_jars(env: Mapping[str, str]) -> None:
    """Fetch the jars with Maven, once. Raises PartError with one line when that cannot be done."""
    if jars_are_here():
        return
    maven = shutil.which("mvn", path=env.get("PATH"))
    if maven is None:
        raise PartError("Maven (mvn) is not on the path: it fetches Apache Kafka; install it and try again")
    java = find_java(env)
    # Maven finds a Java of the machine by itself; the wheel's has to be named.
    home = {} if shutil.which("java", path=env.get("PATH")) else {"JAVA_HOME": str(java.resolve().parent.parent)}
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=JARS.parent) as folder:
        shutil.copy(_PINNED / "pom.xml", folder)
        fetched = Path(folder) / "jars"
        words = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        failed = f"Maven could not fetch Apache Kafka {VERSION} (is there a network?)"
        try:
            done = subprocess.run(
                [*words, "-DincludeScope=runtime"],
                cwd=folder,
                env={**env, **home},
                capture_output=True,
                text=True,
                timeout=_MAVEN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PartError(f"{failed}: it was not done after {_MAVEN_S:g} s") from None
        except OSError as error:
            raise PartError(f"{maven} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            said = [*(line for line in done.stdout.splitlines() if "ERROR" in line), *done.stderr.splitlines()]
            reason = re.sub(r"\x1b\[[0-9;]*m", "", said[0])[:300] if said else "no reason given"
            raise PartError(f"{failed}: {reason}")
        for name, digest in _pins().items():
            jar = fetched / name
            if not jar.exists() or hashlib.sha256(jar.read_bytes()).hexdigest() != digest:
                raise PartError(f"{name} is not the file that Parley pins; nothing was installed")
        extra = {jar.name for jar in fetched.iterdir()} - _pins().keys()
        if extra:
            raise PartError(f"Maven brought jars that Parley does not pin: {', '.join(sorted(extra))}")
        (fetched / "checked").write_text(json.dumps({name: (fetched / name).stat().st_size for name in _pins()}))
        shutil.rmtree(JARS, ignore_errors=True)
        fetched.rename(JARS)


class Kafka:
    """A broker whose state lies in `folder`. `advertised`: the port clients are told instead of its own (a proxy's).
    `security`: how clients get in (`PLAINTEXT`, `SASL_PLAINTEXT` …); `more`: settings of the broker beyond ours.
    `proxied`: the port of a proxy for some clients alone: it connects to `proxied_port`, a listener that tells its
    clients to come back through the proxy."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        env: Mapping[str, str],
        advertised: int | None = None,
        security: str = "PLAINTEXT",
        more: Mapping[str, str] | None = None,
        proxied: int | None = None,
    ) -> None:
        self._folder, self._log, self._env, self._advertised = folder, log, env, advertised
        self._security, self._more, self._proxied = security, dict(more or {}), proxied
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self.proxied_port = 0

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._advertised or self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until it listens. Raises PartError."""
        install_jars(self._env)
        java = find_java(self._env)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._end_leftover()
        self._choose_ports()
        properties = self._folder / "server.properties"
        properties.write_text(self._settings())
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(java, properties)
        archive = JARS / f"classes-{java.resolve().stat().st_mtime_ns}.jsa"
        sharing = f"-XX:SharedArchiveFile={archive}" if archive.exists() else "-XX:+RecordDynamicDumpInfo"
        command: list[str | Path] = [
            java,
            *self._jvm(),
            sharing,
            "-cp",
            f"{JARS}/*",
            "kafka.Kafka",
            properties,
        ]
        self._process = spawn(command, self._log, self._env, cwd=self._folder)
        (self._folder / "pid").write_text(str(self._process.pid))
        if not wait_for_port(self.port, self._process, _START_S):
            self.kill()
            raise PartError(f"Kafka did not start: {reason_in(self._log)} ({self._log})")
        if not archive.exists():
            self._archive(archive)

    def stop(self, limit_s: float = 15.0) -> None:
        """A clean stop; a kill after the limit, which loses nothing but costs the next start a check of its files."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM, limit_s)
            (self._folder / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _jvm(self) -> list[str]:
        return [
            "-Xms256m",
            "-Xmx768m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xlog:disable",
            "-Dlog4j2.level=WARN",
            f"-Dlog4j2.configurationFile={_PINNED / 'log4j2.properties'}",
        ]

    def _archive(self, archive: Path) -> None:
        """Ask the running broker for a class-data archive, for quicker starts from now on; it may be refused."""
        jcmd = find_java(self._env).with_name("jcmd")
        if not jcmd.exists():
            return
        made = archive.with_suffix(f".{os.getpid()}")
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [jcmd, str(self.pid), "VM.cds", "dynamic_dump", str(made)],
                env=dict(self._env),
                capture_output=True,
                timeout=60,
                check=True,
            )
            made.rename(archive)

    def _end_leftover(self) -> None:
        pid_file = self._folder / "pid"
        with suppress(OSError, ValueError):
            end_leftover(int(pid_file.read_text()), ["kafka.Kafka", str(self._folder / "server.properties")])

    def _choose_ports(self) -> None:
        kept = self._folder / "ports.json"
        ports: dict[str, int] = {}
        with suppress(OSError, ValueError):
            ports = json.loads(kept.read_text())
        wanted = ("broker", "controller", *(("proxied",) if self._proxied else ()))
        if not ports.keys() >= set(wanted) or not all(wait_until_free(ports[name]) for name in wanted):
            ports = {name: free_port() for name in wanted}
            kept.write_text(json.dumps(ports))
        self.port, self._controller = ports["broker"], ports["controller"]
        self.proxied_port = ports.get("proxied", 0)

    def _settings(self) -> str:
        listeners = [f"CLIENTS://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller}"]
        advertised = [f"CLIENTS://127.0.0.1:{self._advertised or self.port}"]
        protocols = [f"CLIENTS:{self._security}", "CONTROLLER:PLAINTEXT"]
        if self._proxied:
            listeners.append(f"PROXIED://127.0.0.1:{self.proxied_port}")
            advertised.append(f"PROXIED://127.0.0.1:{self._proxied}")
            protocols.append(f"PROXIED:{self._security}")
        return "\n".join(
            (
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self._controller}",
                f"listeners={','.join(listeners)}",
                f"advertised.listeners={','.join(advertised)}",
                "inter.broker.listener.name=CLIENTS",
                "controller.listener.names=CONTROLLER",
                f"listener.security.protocol.map={','.join(protocols)}",
                # Seen from the folder that it runs in: a comma in a path would make it two.
                "log.dirs=data",
                "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "share.coordinator.state.topic.replication.factor=1",
                "share.coordinator.state.topic.min.isr=1",
                # Without this every first join of a group waits three seconds.
                "group.initial.rebalance.delay.ms=0",
                # A killed broker is let back in once its old registration has expired: two seconds, not nine.
                "broker.session.timeout.ms=2000",
                "broker.heartbeat.interval.ms=500",
                "message.max.bytes=9437184",
                "replica.fetch.max.bytes=9437184",
                *(f"{name}={value}" for name, value in self._more.items()),
                "",
            )
        )

    def _format(self, java: Path, properties: Path) -> None:
        cluster = "-"
        while cluster.startswith("-"):
            # One that begins with a dash would be read as an option; Kafka never makes such a one either.
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")  # noqa: TID251 - a new store's name
        done = subprocess.run(
            [
                java,
                *self._jvm(),
                "-cp",
                f"{JARS}/*",
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster,
                "-c",
                properties,
            ],
            env=dict(self._env),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
            raise PartError(f"Kafka's store could not be made: {said[0][:300]}")

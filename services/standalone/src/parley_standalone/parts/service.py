"""A process of one of the three services: `python -m parley_<kind>`, always on the same port.

Its pid is kept in a file, so that what a crash left behind is found and ended at the next start.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from parley_standalone.parts.process import spawn, stop, tail_of

_PIDS = "pids"


class Service:
    """One process. What it logs goes to `logs/<name>.log`, what it prints to `logs/<name>.out`, below the folder."""

    def __init__(self, kind: str, number: int, port: int, folder: Path, env: Mapping[str, str]) -> None:
        self.kind, self.name, self.port = kind, f"{kind}-{number}", port
        self._output = folder / "logs" / f"{self.name}.out"
        self._pid_file = folder / _PIDS / self.name
        log = folder / "logs" / f"{self.name}.log"
        self._env = {**env, "PARLEY_PORT": str(port), "PARLEY_LOG_FILE": str(log)}
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
        """Start it; it answers some time later."""
        self._process = spawn([sys.executable, "-m", f"parley_{self.kind}"], self._output, self._env)
        self._pid_file.parent.mkdir(exist_ok=True)
        self._pid_file.write_text(str(self.pid))

    def stop(self, limit_s: float) -> None:
        """Ask it to end; kill it after the limit."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM, limit_s)
            self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def last_words(self) -> str:
        """The last line that it printed."""
        return tail_of(self._output, 1) or f"it ended without a word; see {self._output.parent}"


def end_leftovers(folder: Path) -> None:
    """Kill the services of an earlier run on the folder that are still there, by their pid files."""
    for pid_file in (folder / _PIDS).glob("*"):
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(pid_file.read_text()))
            ours = process.environ().get("PARLEY_DATA") == str(folder)
            if ours and any(word.startswith("parley_") for word in process.cmdline()):
                process.kill()
                process.wait(5)
        pid_file.unlink(missing_ok=True)

"""A whole Parley for a benchmark: `parley cluster` or `parley up`, as users start it, in a folder of its own."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class System:
    """A running one: what its READY file says."""

    kind: str
    ready: dict[str, Any]

    @property
    def base_url(self) -> str:
        return str(self.ready["base_url"])

    @property
    def key(self) -> str:
        return str(self.ready["api_key"])

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of each kind."""
        return dict(self.ready["pids"])


@contextmanager
def running(kind: str, **environment: str) -> Iterator[System]:
    """Start `parley <kind>` (`up` or `cluster`), wait at most two minutes, stop it at the end."""
    with tempfile.TemporaryDirectory(prefix=f"parley-{kind}-") as folder:
        ready = Path(folder) / "ready.json"
        env = {
            **os.environ,
            "PORT": "0",
            "DATA": str(Path(folder) / "data"),
            "READY": str(ready),
            **environment,
        }
        parley = Path(sys.executable).with_name("parley")
        process = subprocess.Popen([parley, kind], env=env, stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 120
            while not ready.exists():
                if process.poll() is not None:
                    raise RuntimeError(f"parley {kind} ended with {process.returncode}")
                if time.monotonic() > until:
                    raise RuntimeError(f"parley {kind} was not ready within two minutes")
                time.sleep(0.1)
            yield System(kind, json.loads(ready.read_text()))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def conditions() -> str:
    """On what it was measured, and when."""
    return (
        f"{time.strftime('%Y-%m-%d')}, {psutil.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}; load on the machine at the end {psutil.getloadavg()[0]:.1f}"
    )

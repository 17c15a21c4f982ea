"""A child process: started in its own session, its output in a file, stopped by signal, never left behind.

On Linux the kernel ends a child when its parent dies (PR_SET_PDEATHSIG), so that a killed `parley` leaves nothing; what
still survives is found by its pid file and command line at the next start (`end_leftover`).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
# Looked up before any fork: what loads libraries holds locks that a child of many threads may never get.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PORTS = range(20_000, 32_000)
"""Below the range from which systems take the ports of outgoing connections: a port of ours that is free for a moment,
because its server is being started again, is not taken by a client that knocks at it."""


def _die_with_parent() -> None:
    """In the child, before exec: ask the kernel for SIGTERM when the parent dies."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a child whose output goes to the end of `log`. A Ctrl-C at the terminal does not reach it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], number: int, limit_s: float) -> None:
    """Ask a child to end; kill it after the limit."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now."""
    for _ in range(100):
        port = secrets.choice(_PORTS)
        if is_free(port, host):
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def wait_until_free(port: int, limit_s: float = 5.0) -> bool:
    """Whether the port is free, or becomes so within the limit: a killed server's may take a moment."""
    until = time.monotonic() + limit_s
    while not (free := is_free(port)) and time.monotonic() < until:
        time.sleep(0.05)
    return free


def wait_for_port(port: int, process: subprocess.Popen[bytes], limit_s: float, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens on the port within the limit, with the process still alive."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), 0.5):
            return True
        time.sleep(0.02)
    return False


def end_leftover(pid: int, marks: Sequence[str], number: int = signal.SIGTERM, limit_s: float = 10.0) -> bool:
    """End a process of an earlier run, if `pid` still is one: its command line has all of `marks`. Whether it was."""
    try:
        process = psutil.Process(pid)
        line = " ".join(process.cmdline())
        if pid == os.getpid() or not all(mark in line for mark in marks):
            return False
        process.send_signal(number)
        process.wait(limit_s)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)
    return True


def reason_in(log: Path) -> str:
    """The last line of a log that says something (no stack trace), for a message of one line."""
    said = [line for line in tail_of(log, 200).splitlines() if line.strip() and not line[0].isspace()]
    return said[-1][:300] if said else "nothing was logged"


def tail_of(log: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""

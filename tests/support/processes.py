"""Signals to processes of a running system: killed, stopped as a stalled machine stops them, and continued."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


def kill(pid: int) -> None:
    """SIGKILL, as a crash."""
    os.kill(pid, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """A process and all its children: PostgreSQL serves each connection from one of its own."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process and its children stand still within the block (they keep their connections), and go on after it."""
    stopped = []
    try:
        for member in family(pid):
            os.kill(member, signal.SIGSTOP)
            stopped.append(member)
        yield
    finally:
        for member in stopped:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGCONT)


def port_of(pid: int) -> int:
    """The port that a process listens on."""
    [port] = {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return int(port)

"""Figures: how a list of times is summed up, and CPU seconds of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Spread:
    """p50, p95, p99 and the largest, in seconds."""

    p50: float
    p95: float
    p99: float
    most: float
    count: int

    def ms(self) -> str:
        """`p50 / p95 / p99` in milliseconds."""
        return f"{self.p50 * 1000:.1f} / {self.p95 * 1000:.1f} / {self.p99 * 1000:.1f}"


def spread(times: Iterable[float]) -> Spread:
    """The spread of some times; at least one."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    return Spread(at(0.5), at(0.95), at(0.99), ordered[-1], len(ordered))


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds used so far by each process and its children (PostgreSQL works in children)."""
    used: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    used[process.pid] = times.user + times.system
            own = root.cpu_times()
            # What children that have ended used is counted by their parent.
            used[pid] = own.user + own.system + own.children_user + own.children_system
    return used


def fine_cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """The same by thread, to the nanosecond where the system counts so finely (Linux): for work that is over soon. What
    threads used that have ended is not in it."""
    used: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                for task in Path(f"/proc/{process.pid}/task").glob("*"):
                    with contextlib.suppress(OSError):
                        used[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return used or cpu_seconds(pids)


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU seconds used between two looks; processes that came in between count whole."""
    return sum(max(used - before.get(pid, 0.0), 0.0) for pid, used in after.items())

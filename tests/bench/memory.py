"""Memory of every process of a running Parley over time, and what a soak says of it.

PostgreSQL's processes share their buffers, which fill up to a limit that is set: they are a line of their own, and the
other line is what those processes have for themselves, without the workers that come for a vacuum and go again.
Everything else is RSS as the system tells it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import psutil

Sample = Mapping[str, float]
"""MB by the name of a process."""
_MB = 1024 * 1024
_AROUND_S = 15.0
_PASSING = "autovacuum worker"
LIMIT = 1.05


def look(pids: Mapping[str, Sequence[int]]) -> Sample:
    """What each process has now. One that is gone is left out."""
    found: dict[str, float] = {}
    for kind, of_kind in pids.items():
        for number, pid in enumerate(of_kind, start=1):
            name = kind if len(of_kind) == 1 else f"{kind} {number}"
            with contextlib.suppress(psutil.NoSuchProcess):
                if kind == "postgres":
                    found |= _postgres(pid)
                else:
                    found[name] = psutil.Process(pid).memory_info().rss / _MB
    return found


def _postgres(pid: int) -> Sample:
    root = psutil.Process(pid)
    own, shared = 0.0, 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(_PASSING in word for word in process.cmdline()):
                continue
            memory = process.memory_info()
            common = getattr(memory, "shared", 0)
            own += (memory.rss - common) / _MB
            shared = max(shared, common / _MB)
    return {"postgres, its processes' own": own, "postgres, shared": shared}


@dataclass(frozen=True, slots=True)
class Kept:
    """A process over a soak, in MB: at the time that counts as filled, and over the last third."""

    name: str
    filled: float
    middle: float
    most: float

    @property
    def ratio(self) -> float:
        """The most of the last third by what it was when it was filled."""
        return self.most / self.filled


def judged(samples: Sequence[tuple[float, Sample]], filled_s: float, last_s: float) -> list[Kept]:
    """What became of each process: at `filled_s` (the median of the samples around it), and from `last_s` on."""
    kept = []
    for name in dict.fromkeys(name for _, sample in samples for name in sample):
        then = [sample[name] for at, sample in samples if abs(at - filled_s) <= _AROUND_S and name in sample]
        last = [sample[name] for at, sample in samples if at >= last_s and name in sample]
        if then and last:
            kept.append(Kept(name, median(then), median(last), max(last)))
    return kept

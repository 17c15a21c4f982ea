"""First delta, whole streams, age and CPU: many clients at once, each with streams of its own, on one running system.

Used by `make bench` (`delivery`) and by whoever measures streams. Every stream is checked to be whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tests.bench.client import Streamed, ages_once, stream_once
from tests.bench.figures import Spread, cpu_between, cpu_seconds, spread
from tests.bench.system import System

DELTAS = 200
SPREAD_S = 4.0
Found = TypeVar("Found")


@dataclass(slots=True)
class Case:
    """So many clients at such a pace: what was seen in one round or more."""

    clients: int
    pace_ms: int
    streams: list[Streamed] = field(default_factory=list)
    took_s: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def first(self) -> Spread:
        return spread(stream.first_delta_s for stream in self.streams)

    @property
    def streams_per_s(self) -> float:
        return len(self.streams) / self.took_s

    @property
    def cpu_per_1000(self) -> dict[str, float]:
        """CPU seconds per 1,000 model deltas whose text reached the client, by kind of process."""
        deltas = sum(stream.deltas for stream in self.streams)
        return {kind: used / deltas * 1000 for kind, used in self.cpu.items()}


def rounds_of(clients: int, pace_ms: int) -> int:
    """How many streams each client takes one after the other."""
    if pace_ms:
        return {1: 3, 16: 3, 64: 2}.get(clients, 1)
    return {1: 20, 16: 8, 64: 3}.get(clients, 1)


async def run_case(system: System, clients: int, pace_ms: int, into: Case | None = None) -> Case:
    """`clients` connections at once; their starts are spread over four seconds where the deltas are paced."""
    case = into or Case(clients, pace_ms)
    loop = asyncio.get_running_loop()
    before, began = _cpu(system), loop.time()
    case.streams += await _all(clients, pace_ms, lambda: stream_once(system.base_url, system.key, DELTAS, pace_ms))
    after = _cpu(system)
    case.took_s += loop.time() - began
    for kind, used in after.items():
        case.cpu[kind] = case.cpu.get(kind, 0.0) + cpu_between(before[kind], used)
    return case


async def run_ages(system: System, clients: int, pace_ms: int) -> list[float]:
    """The age of every delta at its client, in seconds; otherwise as `run_case`."""
    found = await _all(clients, pace_ms, lambda: ages_once(system.base_url, system.key, DELTAS, pace_ms))
    return [age for ages in found for age in ages]


async def warm(system: System) -> None:
    """A few streams, so that nothing that is measured is the first of its kind."""
    await asyncio.gather(*(stream_once(system.base_url, system.key, 50, 0) for _ in range(8)))


async def _all(clients: int, pace_ms: int, once: Callable[[], Awaitable[Found]]) -> list[Found]:
    rounds = rounds_of(clients, pace_ms)

    async def client(number: int) -> list[Found]:
        if pace_ms:
            await asyncio.sleep(SPREAD_S * number / clients)
        return [await once() for _ in range(rounds)]

    return [one for done in await asyncio.gather(*(client(n) for n in range(clients))) for one in done]


def _cpu(system: System) -> dict[str, dict[int, float]]:
    return {kind: cpu_seconds(pids) for kind, pids in system.pids.items()}


def table(kind: str, cases: list[Case], raw: dict[int, Spread]) -> str:
    """The Markdown table of one system."""
    lines = [
        f"### `make {kind}`",
        "",
        "| clients | pace | first delta p50 / p95 / p99, ms | × raw two hops | streams/s | CPU s per 1,000 deltas "
        "| of it |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        first, cpu = case.first, case.cpu_per_1000
        times = f"{first.p50 / raw[case.clients].p50:.2f}" if case.clients in raw else "–"
        lines.append(
            f"| {case.clients} | {case.pace_ms} ms | {first.ms()} | {times} | {case.streams_per_s:.1f} "
            f"| {sum(cpu.values()):.3f} | {', '.join(f'{kind} {used:.3f}' for kind, used in cpu.items())} |"
        )
    return "\n".join(lines)

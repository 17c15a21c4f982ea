"""`make bench`: first delta, whole streams and CPU through `make cluster` and `make up`, beside the raw round trip.

Bounded: each case runs a fixed number of streams and ends by itself. Prints Markdown; `RESULTS.md` keeps what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
from dataclasses import dataclass

import psutil
import uvloop

from tests.bench.client import Streamed, stream_once
from tests.bench.figures import Spread, cpu_between, cpu_seconds, spread
from tests.bench.raw import measure
from tests.bench.system import System, running

DELTAS = 200
CLIENTS = (1, 16, 64, 256)
PACES = (0, 20)
SPREAD_S = 4.0


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    clients: int
    pace_ms: int
    first: Spread
    streams_per_s: float
    cpu_per_1000: dict[str, float]
    """CPU seconds per 1,000 model deltas whose text reached the client, by kind of process."""


def _rounds(clients: int, pace_ms: int) -> int:
    """How many streams each client takes one after the other."""
    if pace_ms:
        return {1: 3, 16: 3, 64: 2}.get(clients, 1)
    return {1: 20, 16: 8, 64: 3}.get(clients, 1)


async def run_case(system: System, clients: int, pace_ms: int) -> Case:
    """`clients` connections at once; their starts are spread over four seconds where the deltas are paced."""
    rounds = _rounds(clients, pace_ms)
    loop = asyncio.get_running_loop()

    async def client(number: int) -> list[Streamed]:
        if pace_ms:
            await asyncio.sleep(SPREAD_S * number / clients)
        return [await stream_once(system.base_url, system.key, DELTAS, pace_ms) for _ in range(rounds)]

    before, began = _cpu(system), loop.time()
    streams = [stream for done in await asyncio.gather(*(client(n) for n in range(clients))) for stream in done]
    took, after = loop.time() - began, _cpu(system)
    deltas = sum(stream.deltas for stream in streams)
    return Case(
        clients=clients,
        pace_ms=pace_ms,
        first=spread(stream.first_delta_s for stream in streams),
        streams_per_s=len(streams) / took,
        cpu_per_1000={kind: cpu_between(before[kind], after[kind]) / deltas * 1000 for kind in after},
    )


def _cpu(system: System) -> dict[str, dict[int, float]]:
    return {kind: cpu_seconds(pids) for kind, pids in system.pids.items()}


async def run_system(system: System, clients: tuple[int, ...]) -> list[Case]:
    """Every case on one running system, after a warm-up."""
    await asyncio.gather(*(stream_once(system.base_url, system.key, 50, 0) for _ in range(8)))
    cases = []
    for pace_ms in PACES:
        for number in clients:
            cases.append(await run_case(system, number, pace_ms))
            print(f"  {system.kind}: {number} clients at {pace_ms} ms done", flush=True)
    return cases


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
        times = f"{case.first.p50 / raw[case.clients].p50:.2f}" if kind == "cluster" else "–"
        lines.append(
            f"| {case.clients} | {case.pace_ms} ms | {case.first.ms()} | {times} | {case.streams_per_s:.1f} "
            f"| {sum(case.cpu_per_1000.values()):.3f} "
            f"| {', '.join(f'{kind} {used:.3f}' for kind, used in case.cpu_per_1000.items())} |"
        )
    return "\n".join(lines)


async def main(clients: tuple[int, ...], kinds: tuple[str, ...]) -> None:
    print(f"{psutil.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}", flush=True)
    raw: dict[int, Spread] = {}
    reports = []
    if "cluster" in kinds:
        with running("cluster") as system:
            for number in clients:
                raw[number] = await measure(str(system.ready["kafka"]), number, max(2000 // number, 20))
            reports.append(table("cluster", await run_system(system, clients), raw))
    if "up" in kinds:
        with running("up") as system:
            reports.append(table("up", await run_system(system, clients), raw))
    if raw:
        print("\n### Raw two-hop round trip (plain aiokafka, same broker)\n")
        print("| in flight | p50 / p95 / p99, ms |\n|---|---|")
        for number, figures in raw.items():
            print(f"| {number} | {figures.ms()} |")
    for report in reports:
        print(f"\n{report}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--kinds", nargs="+", default=["cluster", "up"], choices=["cluster", "up"])
    chosen = parser.parse_args()
    uvloop.run(main(tuple(chosen.clients), tuple(chosen.kinds)))

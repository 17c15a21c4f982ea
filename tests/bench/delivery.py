"""`make bench`, parts `streams` and `up`: first delta, age, CPU and saturation through `make cluster`, beside the raw
round trip on the same broker; and the same table for `make up`.

What is compared is measured in turns: each round takes the raw trip and every case once, because the machine's speed
drifts. `python -m tests.bench.delivery [--clients 16 256] [--paces 20 0] [--kinds cluster up]` prints the table of the
cases that one asks for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import uvloop

from tests.bench.figures import Spread, spread
from tests.bench.raw import measure
from tests.bench.report import Report, Row
from tests.bench.streams import Case, run_ages, run_case, table, warm
from tests.bench.system import running

FEW, MANY = 16, 256
PACE_MS = 20
ROUNDS = 2


async def through_cluster() -> Report:
    """The figures of real Kafka."""
    with running("cluster") as system:
        await warm(system)
        # The broker's Java gets ready for the load during its first seconds, at a third more CPU.
        await run_case(system, MANY, PACE_MS)
        cases = {(clients, pace): Case(clients, pace) for clients in (FEW, MANY) for pace in (PACE_MS, 0)}
        raw: dict[int, list[float]] = {FEW: [], MANY: []}
        ages: dict[int, list[float]] = {FEW: [], MANY: []}
        for _ in range(ROUNDS):
            for clients in (FEW, MANY):
                raw[clients] += await measure(str(system.ready["kafka"]), clients, max(2000 // clients, 20))
                await run_case(system, clients, PACE_MS, cases[clients, PACE_MS])
                ages[clients] += await run_ages(system, clients, PACE_MS)
            for clients in (FEW, MANY):
                await run_case(system, clients, 0, cases[clients, 0])
    trips = {clients: spread(times) for clients, times in raw.items()}
    return Report(
        _rows(cases, trips, {clients: spread(found) for clients, found in ages.items()}),
        "\n\n".join([table("cluster", list(cases.values()), trips), _raw_table(trips)]),
    )


async def through_up() -> Report:
    """The same streams through one process."""
    with running("up") as system:
        await warm(system)
        cases = [await run_case(system, clients, pace) for pace in (PACE_MS, 0) for clients in (FEW, MANY)]
    return Report(details=table("up", cases, {}))


def _rows(cases: dict[tuple[int, int], Case], trips: dict[int, Spread], ages: dict[int, Spread]) -> tuple[Row, ...]:
    few, many = cases[FEW, PACE_MS].first, cases[MANY, PACE_MS].first
    times = few.p50 / trips[FEW].p50
    paced, flat_out = (sum(cases[MANY, pace].cpu_per_1000.values()) for pace in (PACE_MS, 0))
    fastest = max(cases[clients, 0].streams_per_s for clients in (FEW, MANY))
    of_age = [
        Row(
            f"a model delta's age at the client ({PACE_MS} ms per delta), {clients} clients",
            "p50 ≤ 35 ms, p99 ≤ 100 ms",
            f"{age.p50 * 1000:.0f} ms, {age.p99 * 1000:.0f} ms",
            age.p50 <= 0.035 and age.p99 <= 0.1,
        )
        for clients, age in ages.items()
    ]
    return (
        Row(
            f"first delta, real Kafka, {FEW} clients",
            "p50 ≤ 10 ms, and ≤ 1.5 × the raw two hops",
            f"{few.p50 * 1000:.1f} ms, {times:.2f} × {trips[FEW].p50 * 1000:.1f} ms",
            few.p50 <= 0.010 and times <= 1.5,
        ),
        Row(f"first delta, {MANY} paced clients", "p99 ≤ 100 ms", f"{many.p99 * 1000:.0f} ms", many.p99 <= 0.1),
        *of_age,
        Row(
            f"CPU per 1,000 model deltas that reached the client, all processes, {MANY} clients, {PACE_MS} ms / 0 ms",
            "≤ 0.10 s / ≤ 0.05 s",
            f"{paced:.3f} s / {flat_out:.3f} s",
            paced <= 0.10 and flat_out <= 0.05,
        ),
        Row("whole streams per second at saturation", "≥ 60", f"{fastest:.0f}", fastest >= 60),
    )


def _raw_table(trips: dict[int, Spread]) -> str:
    lines = ["Raw two-hop round trip (plain aiokafka, same broker, in turns with the streams):", ""]
    lines += ["| in flight | p50 / p95 / p99, ms |", "|---|---|"]
    return "\n".join([*lines, *(f"| {number} | {figures.ms()} |" for number, figures in trips.items())])


async def main(clients: Sequence[int], paces: Sequence[int], kinds: Sequence[str]) -> None:
    """Each case once, on each kind of system."""
    for kind in kinds:
        with running(kind) as system:
            await warm(system)
            trips = {}
            if kind == "cluster":
                kafka = str(system.ready["kafka"])
                trips = {number: spread(await measure(kafka, number, max(2000 // number, 20))) for number in clients}
            cases = [await run_case(system, number, pace) for pace in paces for number in clients]
        print("\n\n".join([table(kind, cases, trips), *([_raw_table(trips)] if trips else [])]) + "\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[FEW, MANY])
    parser.add_argument("--paces", type=int, nargs="+", default=[PACE_MS, 0])
    parser.add_argument("--kinds", nargs="+", default=["cluster", "up"], choices=["cluster", "up"])
    chosen = parser.parse_args()
    uvloop.run(main(chosen.clients, chosen.paces, chosen.kinds))

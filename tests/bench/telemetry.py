"""What telemetry costs: `python -m tests.bench.telemetry`, about five minutes. Not part of `make bench`.

The same paced streams through `make cluster`, without and with an OTLP endpoint, in turns, because the machine's speed
drifts. Prints CPU seconds of all processes per 1,000 model deltas; the receiver's own are not counted. `--variant
name=PYTHONPATH` adds another source tree, to compare with an earlier state of the code.
"""

from __future__ import annotations

import argparse
from statistics import median

import uvloop

from tests.bench.streams import Case, run_case, warm
from tests.bench.system import running
from tests.support.otlp import receiver

CLIENTS = 64
PACE_MS = 20
OURS = ("gateway", "dispatcher", "history")


async def measure(environment: dict[str, str]) -> Case:
    """One turn, on a system of its own."""
    with running("cluster", **environment) as system:
        await warm(system)
        return await run_case(system, CLIENTS, PACE_MS)


async def main(turns: int, variants: dict[str, str]) -> None:
    cases: dict[str, list[Case]] = {name: [] for name in (*variants, "off", "on")}
    with receiver() as got:
        # The exporter's own pace, as in production.
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": got.url, "NO_PROXY": "127.0.0.1"}
        for turn in range(turns):
            for name, path in variants.items():
                cases[name].append(await measure({"PYTHONPATH": path}))
            cases["off"].append(await measure({}))
            cases["on"].append(await measure(on))
            print(f"turn {turn + 1} of {turns} done", flush=True)
        spans = len(got.spans)
    print(f"\n{CLIENTS} clients, {PACE_MS} ms per delta; {spans} spans were received\n")
    print("| telemetry | CPU s per 1,000 deltas, each turn | median | of it the services | first delta p50, ms |")
    print("|---|---|---|---|---|")
    for name, found in cases.items():
        whole = [sum(case.cpu_per_1000.values()) for case in found]
        ours = [sum(case.cpu_per_1000[kind] for kind in OURS) for case in found]
        first = median(case.first.p50 for case in found) * 1000
        each = " ".join(f"{one:.3f}" for one in whole)
        print(f"| {name} | {each} | {median(whole):.3f} | {median(ours):.3f} | {first:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=PYTHONPATH")
    chosen = parser.parse_args()
    uvloop.run(main(chosen.turns, dict(one.split("=", 1) for one in chosen.variant)))

"""`make faults`: every scenario, on three clusters side by side; a table of faults and promises, and the numbers. Exit
1 when a promise was not kept. Nothing is written into the tree unless RESULTS=1.

SEED= makes the same choices again; ONLY= names scenarios (with commas, `*` stands for any characters); KEEP= is a
folder for the evidence of those that went wrong (`python -m tests.faults.check <file>` looks at it again).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

from tests.faults.check.figures import Figures, figures
from tests.faults.check.report import details, table
from tests.faults.scenarios import SCENARIOS
from tests.faults.suite import Outcome, nothing_left, run_side_by_side

LIMIT_S = 900.0
_LAST_S = 75.0
"""No scenario begins so shortly before the end."""
LANES = 3
"""Clusters at work side by side."""
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """The exit status."""
    began = time.monotonic()
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    wanted = (os.environ.get("ONLY") or "*").split(",")
    names = [name for name in SCENARIOS if any(fnmatchcase(name, pattern.strip()) for pattern in wanted)]
    if not names:
        print(f"ONLY={','.join(wanted)} names no scenario; there are: {', '.join(SCENARIOS)}")
        return 2
    kept = Path(os.environ.get("KEEP") or tempfile.mkdtemp(prefix="parley-faults-"))
    print(f"SEED={seed}; {len(names)} scenarios; the evidence of what goes wrong is kept in {kept}", flush=True)
    lanes = [names[lane::LANES] for lane in range(LANES) if names[lane::LANES]]
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as folder:
        outcomes = asyncio.run(
            run_side_by_side(
                lanes,
                Path(folder),
                seed,
                say=lambda line: print(line, flush=True),
                until=began + LIMIT_S - _LAST_S,
                keep=kept,
            )
        )
    nothing_left(outcomes[0])
    told = report(names, outcomes, time.monotonic() - began)
    print(f"\n{told}")
    if os.environ.get("RESULTS") == "1":
        write_results(told)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def report(names: Sequence[str], outcomes: Sequence[Outcome], took_s: float) -> str:
    """The table, the numbers, and what was found."""
    places = {name: place for place, name in enumerate(names)}
    results = [(result.name, result.violations) for outcome in outcomes for result in outcome.results]
    results.sort(key=lambda result: places.get(result[0], len(places)))
    seen = [figures(outcome.evidence) for outcome in outcomes if outcome.evidence is not None]
    lines = [table(results), "", *told(seen)]
    violations = sum(len(outcome.violations) for outcome in outcomes)
    lines.append(f"{violations} violations; seed {outcomes[0].seed}; {took_s:.0f} s")
    found = details(results)
    return "\n".join(lines + ([found] if found else []))


def told(seen: Sequence[Figures]) -> list[str]:
    """The numbers of all lanes together."""
    took = sorted(ms / 1000 for one in seen for ms in one.takeovers_ms)
    lines = [
        f"{sum(one.runs for one in seen)} runs, {sum(one.commands for one in seen)} commands, "
        f"{sum(one.facts for one in seen)} facts, {sum(one.faults for one in seen)} faults struck"
    ]
    if took:
        lines.append(f"time to take over: p50 {median(took):.1f} s, max {took[-1]:.1f} s, {len(took)} measured")
    return lines


def write_results(told: str, at: Callable[[], Path] = lambda: RESULTS) -> None:
    """Put the newest table into RESULTS.md, between its marks."""
    page = at().read_text()
    start, end = "<!-- newest -->\n", "<!-- /newest -->"
    head, _, rest = page.partition(start)
    _, _, tail = rest.partition(end)
    at().write_text(f"{head}{start}\n{told}\n\n{end}{tail}")


if __name__ == "__main__":
    sys.exit(main())

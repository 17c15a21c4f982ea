"""`make faults`: every scenario on one cluster; a table of faults and promises, and the numbers. Exit 1 when a promise
was not kept. Nothing is written into the tree unless RESULTS=1.

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
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from tests.faults.check.report import details, table
from tests.faults.figures import figures
from tests.faults.scenarios import SCENARIOS
from tests.faults.suite import Outcome, run

LIMIT_S = 900.0
_LAST_S = 60.0
"""No scenario begins in the last minute."""
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
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as folder:
        outcome = asyncio.run(
            run(
                names,
                Path(folder),
                seed,
                say=lambda line: print(line, flush=True),
                until=began + LIMIT_S - _LAST_S,
                keep=kept,
            )
        )
    told = report(outcome, time.monotonic() - began)
    print(f"\n{told}")
    if os.environ.get("RESULTS") == "1":
        write_results(told)
    return 1 if outcome.violations else 0


def report(outcome: Outcome, took_s: float) -> str:
    """The table, the numbers, and what was found."""
    results = [(result.name, result.violations) for result in outcome.results]
    lines = [table(results), ""]
    if outcome.evidence is not None:
        lines += figures(outcome.evidence).lines()
    lines.append(f"{len(outcome.violations)} violations; seed {outcome.seed}; {took_s:.0f} s")
    found = details(results)
    return "\n".join(lines + ([found] if found else []))


def write_results(told: str, at: Callable[[], Path] = lambda: RESULTS) -> None:
    """Put the newest table into RESULTS.md, between its marks."""
    page = at().read_text()
    start, end = "<!-- newest -->\n", "<!-- /newest -->"
    head, _, rest = page.partition(start)
    _, _, tail = rest.partition(end)
    at().write_text(f"{head}{start}\n{told}\n\n{end}{tail}")


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: everything of the table of targets in one run, one part after the other; about nine minutes.

Each part starts systems of its own, is bounded, and ends by itself; one that fails says so in the table, and the others
go on. Prints Markdown. Where all parts ran it writes the measured section of `RESULTS.md`, and `docs/growth.svg`.

`python -m tests.bench --only streams watch` runs some of them and writes nothing, unless `--write` asks for it. Apart
from it are the soak (`make soak`), `tests.bench.takeover` and `tests.bench.telemetry`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

import uvloop

from tests.bench.delivery import through_cluster, through_up
from tests.bench.folds import folds
from tests.bench.growth import grow
from tests.bench.idle import idle
from tests.bench.report import Report, Row, page, written
from tests.bench.system import conditions
from tests.bench.watch import watched

Part = Callable[[], Awaitable[Report]]
PARTS: Mapping[str, Part] = {
    "streams": through_cluster,
    "up": through_up,
    "watch": watched,
    "idle": idle,
    "fold": folds,
    "growth": grow,
}
LIMIT_S = 600.0
"""For one part: several times what it needs."""


async def run(parts: Mapping[str, Part], limit_s: float = LIMIT_S) -> list[Report]:
    """One after the other. A part that fails, or takes too long, is a row that says so."""
    reports = []
    for name, part in parts.items():
        began = monotonic()
        try:
            async with asyncio.timeout(limit_s):
                reports.append(await part())
        except Exception as error:
            traceback.print_exc()
            words = f"{type(error).__name__}: {error}".replace("|", "/").partition("\n")[0][:200].rstrip(": ")
            reports.append(Report((Row(f"the part `{name}`", "measured", f"failed: {words}", False),)))
        print(f"{name}: {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return reports


def main(only: Sequence[str], write: bool) -> int:
    """Measure, print, write; 1 where a part failed."""
    chosen: dict[str, Part] = {name: part for name, part in PARTS.items() if name in (only or PARTS)}
    if write and "growth" in chosen:
        chosen["growth"] = lambda: grow(write=True)
    reports = uvloop.run(run(chosen))
    measured = page(conditions(), reports)
    print(measured)
    if write:
        written("bench", measured)
    return any(row.what.startswith("the part `") for report in reports for row in report.rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--write", action="store_true", help="write RESULTS.md although some parts alone were run")
    asked = parser.parse_args()
    sys.exit(main(asked.only, asked.write or not asked.only))

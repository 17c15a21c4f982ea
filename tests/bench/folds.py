"""`make bench`, part `fold`: what `tests.bench.rebuild` prints, read as rows of the table.

It runs as a process of its own: what it measures is its own CPU, beside nothing else.
"""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass

from tests.bench.report import Report, Row

FACTS = 100_000
_LIMIT_S = 240.0
_LINE = re.compile(
    r"^(?P<what>[A-Za-z0-9 ,]+?) +(?P<rate>\d+) facts/s;.*: (?P<core>\d+) facts/s per core", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Rate:
    """Facts by wall time, and by CPU seconds of all processes."""

    per_s: int
    per_core: int


async def folds() -> Report:
    """The live fold and a rebuild, beside PostgreSQL alone."""
    command = (sys.executable, "-m", "tests.bench.rebuild", str(FACTS))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"tests.bench.rebuild ended with {process.returncode}")
    text = printed.decode()
    return Report(rows(read(text)), f"`python -m tests.bench.rebuild {FACTS}`:\n\n```\n{text.strip()}\n```")


def read(printed: str) -> dict[str, Rate]:
    """The rates that were printed, by their names."""
    return {found["what"]: Rate(int(found["rate"]), int(found["core"])) for found in _LINE.finditer(printed)}


def rows(rates: dict[str, Rate]) -> tuple[Row, ...]:
    """The rows of the table; a rate that was not printed is a row without a verdict."""
    return (
        _row("live fold", rates.get("live fold"), 25_000, "raw UNNEST", rates.get("raw UNNEST")),
        _row("rebuild", rates.get("rebuild", rates.get("rebuild, load")), 50_000, "raw COPY", rates.get("raw COPY")),
    )


def _row(what: str, rate: Rate | None, least: int, beside: str, raw: Rate | None) -> Row:
    target = f"≥ {least:,} facts/s per core, and ≥ 50 % of {beside}"
    if rate is None or raw is None:
        missing = what if rate is None else beside
        return Row(what, target, f"{missing} was not measured", None)
    share = rate.per_core / raw.per_core
    reached = f"{rate.per_core:,} per core, {share:.0%} of {raw.per_core:,} ({rate.per_s / raw.per_s:.0%} by wall time)"
    return Row(what, target, reached, rate.per_core >= least and share >= 0.5)

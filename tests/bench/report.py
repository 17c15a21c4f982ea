"""What a part of the benchmark reports: rows of the table of targets, and what else it saw as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True, slots=True)
class Row:
    """One target. `met` None: it was not measured, and `reached` says why."""

    what: str
    target: str
    reached: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a part."""

    rows: tuple[Row, ...] = ()
    details: str = ""


def table(rows: Iterable[Row]) -> str:
    """The table of targets."""
    words = {True: "yes", False: "**no**", None: "–"}
    lines = ["| what | target | reached | met |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.target} | {row.reached} | {words[row.met]} |" for row in rows]
    return "\n".join(lines)


def page(conditions: str, reports: Iterable[Report]) -> str:
    """The measured part of the page: under which conditions, the table, and the details of each part."""
    found = list(reports)
    parts = [conditions, table(row for report in found for row in report.rows)]
    parts += [report.details for report in found if report.details]
    return "\n\n".join(part.strip("\n") for part in parts)


def markers(name: str) -> tuple[str, str]:
    """What stands before and behind the measured part of that name."""
    return f"<!-- {name}: measured, written by `make {name}` -->", f"<!-- {name}: to here -->"


def rewritten(text: str, name: str, measured: str) -> str:
    """The page with a measured part exchanged; what stands around it stays. Raises ValueError where the markers are
    not there once each, in order."""
    first, last = markers(name)
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in before + after:
        raise ValueError(f"the page must have {first!r} and, below it, {last!r}, once each")
    return f"{before}{first}\n\n{measured.strip()}\n\n{last}{after}"


def written(name: str, measured: str) -> None:
    """Exchange a measured part of `RESULTS.md`."""
    RESULTS.write_text(rewritten(RESULTS.read_text(), name, measured))

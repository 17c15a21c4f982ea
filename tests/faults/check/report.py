"""The suite's result for people: a table of faults and promises, and below it what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults.check.violation import PROMISES, Violation

MOST = 10


def table(results: Sequence[tuple[str, Sequence[Violation]]]) -> str:
    """Scenarios by promises: `ok`, or the number of violations. The last row counts scenarios that are all right."""
    heads = ["fault", *(f"{number} {name}" for number, name in PROMISES.items())]
    rows = []
    for scenario, violations in results:
        counts = Counter(violation.promise for violation in violations)
        rows.append([scenario, *(str(counts[number]) if counts[number] else "ok" for number in PROMISES)])
    sound = [sum(not any(v.promise == number for v in violations) for _, violations in results) for number in PROMISES]
    rows.append([f"{len(results)} faults", *(f"{count}/{len(results)}" for count in sound)])
    return _markdown(heads, rows)


def details(results: Iterable[tuple[str, Sequence[Violation]]]) -> str:
    """The violations of each scenario, the first few of each promise; empty when there are none."""
    lines = []
    for scenario, violations in results:
        if violations:
            lines.append(f"{scenario}: {len(violations)} violations")
            told: Counter[int] = Counter()
            for violation in violations:
                told[violation.promise] += 1
                if told[violation.promise] <= MOST:
                    lines.append(f"  {violation}")
            lines += [f"  {n} … and {count - MOST} more" for n, count in told.items() if count > MOST]
    return "\n".join(lines)


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(heads), rule, *(line(row) for row in rows)])

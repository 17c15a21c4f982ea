"""`python -m tests.faults.check <file> …`: look again at evidence that was kept; exit 1 when a promise was not kept."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.check import check
from tests.faults.check.report import details, table
from tests.faults.evidence import load


def main(files: list[str]) -> int:
    """Print the table and the violations of the evidence in the files."""
    if not files:
        print("usage: python -m tests.faults.check <evidence.json> …", file=sys.stderr)
        return 2
    results = []
    for name in files:
        evidence = load(Path(name))
        results.append((f"{evidence.scenario} (seed {evidence.seed})", check(evidence)))
    print(table(results))
    print(details(results))
    return 1 if any(violations for _, violations in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

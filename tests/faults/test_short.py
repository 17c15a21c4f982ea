"""The short set of the fault suite: one cluster, several faults after one another, every promise checked after each.

`make faults` runs all of them, `make guards` takes out each guard once.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

import pytest

from tests.faults.cluster import children
from tests.faults.scenarios import SHORT
from tests.faults.suite import nothing_left, run

pytestmark = pytest.mark.breaks


@pytest.mark.timeout(400)
async def test_every_promise_holds_while_parts_die_and_stall(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    others = children()
    # A short path: the control's socket has to fit into 100 characters.
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as folder:
        outcome = await run(SHORT, Path(folder), seed, keep=tmp_path)
    nothing_left(outcome, others)
    found = [f"{result.name}: {violation}" for result in outcome.results for violation in result.violations]
    assert not found, f"SEED={seed}, evidence in {tmp_path}:\n" + "\n".join(found[:30])

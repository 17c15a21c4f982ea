"""Runs scenarios on one cluster, and says what the checker says of each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.check import check
from tests.faults.check.violation import Violation
from tests.faults.cluster import Cluster, left_behind
from tests.faults.evidence import Evidence, dump
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import END_S, Stage


@dataclass(slots=True)
class Result:
    """What came of a scenario. `violations` are those that were not there before it."""

    name: str
    violations: list[Violation]
    took_s: float


@dataclass(slots=True)
class Outcome:
    """What came of a whole run: results in order, and the evidence of it all."""

    seed: int
    results: list[Result] = field(default_factory=list)
    evidence: Evidence | None = None

    @property
    def violations(self) -> list[Violation]:
        return [violation for result in self.results for violation in result.violations]


async def run(
    names: Iterable[str],
    folder: Path,
    seed: int,
    *,
    guards_off: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
    until: float | None = None,
    keep: Path | None = None,
    end_s: float = END_S,
) -> Outcome:
    """Run scenarios one after the other. `until`: begin none after that time (monotonic). `keep`: where the evidence of
    a scenario that went wrong is kept. `end_s`: how long a round's work may take to come to its end."""
    # What the harness's own clients say of an outage is of no use here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    outcome = Outcome(seed)
    known: set[str] = set()
    cluster = Cluster(folder, guards_off)
    async with Stage(cluster, seed) as stage:
        for name in names:
            if until is not None and time.monotonic() > until:
                outcome.results.append(Result(name, [Violation(0, "there was no time left for it")], 0.0))
                continue
            began = time.monotonic()
            wrong = await stage.round(name, SCENARIOS[name].act, end_s)
            outcome.evidence = await stage.evidence(name)
            found = [Violation(0, line) for line in wrong] + await asyncio.to_thread(check, outcome.evidence)
            fresh = [violation for violation in found if str(violation) not in known]
            known |= {str(violation) for violation in found}
            outcome.results.append(Result(name, fresh, time.monotonic() - began))
            say(f"{name}: {len(fresh)} violations, {outcome.results[-1].took_s:.1f} s")
            for violation in fresh[:8]:
                say(f"  {violation}")
            if fresh and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                dump(outcome.evidence, keep / f"{name.replace(' ', '-')}.json")
    return outcome


async def run_side_by_side(lanes: Sequence[Sequence[str]], folder: Path, seed: int, **options: Any) -> list[Outcome]:
    """Run several lists of scenarios at once, each on a cluster of its own: most of a takeover is waiting."""
    return await asyncio.gather(
        *(run(names, folder / str(number), seed, **options) for number, names in enumerate(lanes))
    )


def nothing_left(outcome: Outcome, others: frozenset[int] = frozenset()) -> None:
    """Note what still runs, now that nothing should but `others`."""
    for line in left_behind(others):
        outcome.results.append(Result("the suite itself", [Violation(0, f"left behind: {line}")], 0.0))

"""`make guards`: each guard is taken out of all processes once, and the scenario that needs it is run: the suite must
go red, by the promise that the guard is for. First all of these scenarios with every guard in place: green.

Exit 1 when a guard's absence stays unseen. ONLY= names guards.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.suite import Outcome, run
from tests.faults.unguarded import GUARDS

SEED = 5


@dataclass(frozen=True, slots=True)
class Needed:
    """The scenario in which a guard is needed for sure, the promise that is broken without it, and why."""

    scenario: str
    promise: int
    why: str


NEEDED: dict[str, Needed] = {
    "epoch": Needed(
        "late batch", 4, "a fact under an old epoch, with the next seq, comes on the log: it would be folded"
    ),
    "compare_and_set": Needed(
        "two projectors", 4, "one is stopped with a batch in hand until the other has gone further: it would go back"
    ),
    "read_back": Needed(
        "unread intent",
        3,
        "an owner is stopped right after it appended an intent: awake again, it would run the tool, "
        "which its successor has run",
    ),
    "dedupe": Needed("gateway", 1, "a gateway dies before it answers, and the client asks again with the same key"),
    "intent": Needed("after the effect", 3, "the owner is killed between a tool's effect and its result on record"),
    "seq": Needed("answers lost", 4, "responses to produce requests are lost until all facts are sent a second time"),
}
"""Every guard of `unguarded.GUARDS`."""


async def _run(names: list[str], guards_off: tuple[str, ...]) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as folder:
        return await run(names, Path(folder), SEED, guards_off=guards_off, say=lambda line: None, end_s=30.0)


def main() -> int:
    """The exit status."""
    assert NEEDED.keys() == GUARDS.keys()
    asked = os.environ.get("ONLY")
    names = [name for name in NEEDED if not asked or name in asked.split(",")]
    began = time.monotonic()
    wrong = 0
    whole = asyncio.run(_run(list(dict.fromkeys(NEEDED[name].scenario for name in names)), ()))
    told = "green" if not whole.violations else "RED, though every guard is in place"
    wrong += bool(whole.violations)
    print(f"{'(all in place)':16} {told}", flush=True)
    for violation in whole.violations[:10]:
        print(f"    {violation}")
    for name in names:
        need = NEEDED[name]
        outcome = asyncio.run(_run([need.scenario], (name,)))
        of_promise = [violation for violation in outcome.violations if violation.promise == need.promise]
        seen = "red" if of_promise else "GREEN: its absence is not seen"
        wrong += not of_promise
        print(f"{name:16} {seen}   [{need.scenario}] {need.why}", flush=True)
        for violation in (of_promise or outcome.violations)[:2]:
            print(f"    {violation}")
    print(f"{len(names)} guards, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

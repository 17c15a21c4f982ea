"""What the fuzzer does beside its own: real ids in the place of the documents' examples, and a count of what was
answered. It runs in schemathesis' process; `test_fuzz` hands it what it needs in the environment."""

from __future__ import annotations

import atexit
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

REAL: dict[str, str] = json.loads(os.environ["PARLEY_FUZZ_REAL"])
"""Example → what is there; and `<method> <path>` → what that operation has for its own, at the end of its path."""
KEPT: set[str] = set(json.loads(os.environ["PARLEY_FUZZ_KEPT"]))
"""Ids of what nobody may take away: the keys that are asked with, the agent that is talked to."""
TALLY = Path(os.environ["PARLEY_FUZZ_TALLY"])

answers: Counter[str] = Counter()
asked: Counter[str] = Counter()


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: object) -> None:
    """Name what is there where the example of an id stands; but delete nothing that others are tried on."""
    if isinstance(case.query, dict) and "as_of" in case.query:
        # What was made a moment ago was nowhere at nearly all seqs and times: every other one asks for how it is now.
        asked[case.path] += 1
        if asked[case.path] % 2:
            del case.query["as_of"]
    last = re.findall(r"{(\w+)}", case.path)[-1:]
    own = REAL.get(f"{case.method} {case.path}")
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name, value in part.items():
                if not isinstance(value, str) or value not in REAL:
                    continue
                if part is case.path_parameters and [name] == last and own is not None:
                    part[name] = own
                elif case.method != "DELETE":
                    part[name] = REAL[value]
    taken = re.search(r"{(\w+)}(/rotate)?$", case.path)
    if taken is not None and (case.method == "DELETE" or taken[2]) and case.path_parameters.get(taken[1]) in KEPT:
        case.path_parameters[taken[1]] = "another"


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], response: Any) -> None:
    """Count the answer."""
    answers[f"{case.method} {case.path} {response.status_code}"] += 1


@atexit.register
def _told() -> None:
    TALLY.write_text(json.dumps(answers))

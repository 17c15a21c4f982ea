"""Every fact is thought of: it is folded, or stored alone, or outside every story. Every statement is used."""

from __future__ import annotations

import re
from pathlib import Path

import parley_history
from parley_events.facts import FACTS, UNNUMBERED
from parley_events.past import KEPT
from parley_history import writes
from parley_history.projections import FOLDS, STORED_ONLY
from parley_history.projections.forks import PAST
from parley_history.reads.answers import SQL
from parley_history.sql import migrations


def test_each_fact_is_in_exactly_one_place() -> None:
    places = [set(FOLDS), set(STORED_ONLY), set(UNNUMBERED)]
    assert set().union(*places) == set(FACTS)
    assert sum(map(len, places)) == len(FACTS)


def test_a_past_is_folded_as_the_facts_themselves_are() -> None:
    """All of it but approvals, which stay the source's."""
    asked = {kind for kind in KEPT if kind.startswith("approval.")}
    assert {kind: FOLDS[kind] for kind in KEPT - asked - STORED_ONLY} == PAST


def test_every_named_statement_is_used() -> None:
    source = "".join(file.read_text() for file in Path(parley_history.__file__).parent.rglob("*.py"))
    for name in (*SQL, *writes.SQL):
        assert re.search(rf'"{name}"', source), name


def test_migrations_say_whether_they_go_before_or_after_the_code() -> None:
    assert all(re.fullmatch(r"(pre|post)_[a-z_0-9]+", migration.name) for migration in migrations())

"""Every fact is thought of: it is folded, or stored alone, or outside every story. Every statement is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import parley_history
from parley_events.facts import FACTS, UNNUMBERED
from parley_events.past import KEPT
from parley_history import writes
from parley_history.projections import FOLDS, STORED_ONLY
from parley_history.projections.forks import PAST
from parley_history.projections.rows import FactRow, MessageRow, ThreadRow
from parley_history.reads.answers import SQL
from parley_history.rebuild.load import columns_of
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


@pytest.mark.parametrize(
    ("kind", "statement", "columns"),
    [(ThreadRow, "put_threads", writes.thread_columns), (MessageRow, "put_messages", writes.message_columns)],
)
def test_columns_that_are_written_out_are_those_of_the_row_in_the_order_of_their_statement(
    kind: Any, statement: str, columns: Callable[[Any], tuple[Any, ...]]
) -> None:
    def value(name: str, declared: str) -> object:
        return {name: "\x00"} if "Json" in declared else [name] if "list" in declared else f"{name}\x00"

    assert [field.name for field in fields(kind)] == columns_of(statement)[1]
    row = kind(**{field.name: value(field.name, str(field.type)) for field in fields(kind)})
    uncleaned = {"id", "thread_id", "workspace_id", "role", "tool_status"}
    found = zip(columns(row), writes.plain([row])[0], columns_of(statement)[1], strict=True)
    for one, other, name in found:
        assert one == other or (one == f"{name}\x00" and (name in uncleaned or not _text(kind, name)))
    empty = kind(**{field.name: [] if "list" in str(field.type) else {} for field in fields(kind)})
    assert list(map(str, columns(empty))) == list(map(str, writes.plain([empty])[0]))


def _text(kind: Any, name: str) -> bool:
    return next("str" in str(field.type) for field in fields(kind) if field.name == name)


def test_a_facts_row_is_in_the_order_of_its_columns() -> None:
    assert list(FactRow._fields) == columns_of("put_facts")[1]


def test_migrations_say_whether_they_go_before_or_after_the_code() -> None:
    assert all(re.fullmatch(r"(pre|post)_[a-z_0-9]+", migration.name) for migration in migrations())

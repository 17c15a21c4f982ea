"""Whether two schemas say the same: a checksum per table over all its rows, and for a table that differs an example.

Both are read in one snapshot, taken while both stood at the same positions, so that the answer is exact while facts go
on being folded. A checksum is the number of rows and two sums of hashes of whole rows, which the order of rows does not
matter to. An example names the row and the columns that differ, never what stands in them: that is what people wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parley_history.db import Connection
from parley_history.rebuild.schemas import SQL

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is compared."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A table in which the new schema says otherwise than the live one."""

    table: str
    live: int
    new: int
    example: str

    def __str__(self) -> str:
        return f"{self.table}: {self.live} rows in the live view, {self.new} rebuilt; {self.example}"


async def differences(
    connection: Connection, live: str, other: str, tell: Callable[[int, int], None] = lambda done, total: None
) -> list[Difference]:
    """What differs, table by table; call it within a snapshot. `tell`: how many tables were compared, of how many."""
    tables, ours = await _tables(connection, live), await _tables(connection, other)
    found = [
        Difference(name, 0, 0, "the table is in one of them only, or has other columns there")
        for name in sorted(tables.keys() | ours.keys())
        if tables.get(name) != ours.get(name)
    ]
    both = [table for name, table in tables.items() if ours.get(name) == table]
    for done, table in enumerate(both):
        tell(done, len(both))
        before, after = await _sums(connection, live, table), await _sums(connection, other, table)
        if before != after:
            example = await _example(connection, live, other, table)
            found.append(Difference(table.name, before[0], after[0], example))
    tell(len(both), len(both))
    return found


async def _tables(connection: Connection, schema: str) -> dict[str, Table]:
    rows = await connection.fetch(SQL["tables"], schema)
    return {row["name"]: Table(row["name"], tuple(row["columns"]), tuple(row["key"])) for row in rows}


async def _sums(connection: Connection, schema: str, table: Table) -> tuple[int, str, str]:
    whole = f"ROW({', '.join(map(_name, table.columns))})::text"
    sums = ", ".join(f"sum(hashtextextended(whole, {seed}))::text AS sum{seed}" for seed in (1, 2))
    rows = f"SELECT {whole} AS whole FROM {schema}.{_name(table.name)}"  # noqa: S608 - names of the catalogue
    row = await connection.row(f"SELECT count(*) AS rows, {sums} FROM ({rows}) AS t")  # noqa: S608
    assert row is not None
    return row["rows"], row["sum1"], row["sum2"]


async def _example(connection: Connection, live: str, other: str, table: Table) -> str:
    """The first row, by its key, that is not the same in both."""
    l_texts, n_texts = ([f"{side}.{_name(column)}::text" for column in table.columns] for side in "ln")
    key, first = [_name(column) for column in table.key], _name(table.key[0])
    differ = ", ".join(
        f"CASE WHEN {one} IS DISTINCT FROM {two} THEN '{column}' END"
        for column, one, two in zip(table.columns, l_texts, n_texts, strict=True)
    )
    asked = (
        f"ARRAY[{', '.join(f'{column}::text' for column in key)}] AS key, l.{first} IS NULL AS new, "
        f"n.{first} IS NULL AS gone, array_remove(ARRAY[{differ}], NULL) AS columns"
    )
    both = f"{live}.{_name(table.name)} l FULL JOIN {other}.{_name(table.name)} n USING ({', '.join(key)})"
    unlike = f"ROW({', '.join(l_texts)}) IS DISTINCT FROM ROW({', '.join(n_texts)})"
    row = await connection.row(
        f"SELECT {asked} FROM {both} WHERE {unlike} ORDER BY {', '.join(key)} LIMIT 1"  # noqa: S608
    )
    if row is None:
        return "no single row was found"
    return _said(dict(zip(table.key, row["key"], strict=True)), row["new"], row["gone"], row["columns"])


def _said(key: dict[str, Any], new: bool, gone: bool, columns: Sequence[str]) -> str:
    # As JSON, which spells out what a terminal would act on.
    named = json.dumps(key)[:_SHOWN]
    if new or gone:
        return f"for example {named} is only in {'the rebuilt one' if new else 'the live view'}"
    return f"for example {named} differs in {', '.join(columns)}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

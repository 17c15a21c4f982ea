"""Rows handed to PostgreSQL as one array per column."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from parley_history.db import Connection, connect
from parley_history.errors import BadData
from parley_history.settings import Settings

_PUT = "INSERT INTO kept SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])"
_ROWS = [("a", 1, b"\x00"), (None, None, None), ("é\n{},", -(2**63), b"")]


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    assert settings.postgres is not None
    connection = await connect(settings.postgres, schema=settings.schema, timeout_s=5)
    await connection.run("CREATE TABLE kept (word text, number bigint, data bytea)")
    yield connection
    await connection.close()


async def kept(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch("SELECT word, number, data FROM kept")]


async def test_rows_come_in_as_they_are(connection: Connection) -> None:
    await connection.put(_PUT, _ROWS)
    assert await kept(connection) == _ROWS


async def test_a_statement_that_is_made_anew_is_given_them_all_again(connection: Connection) -> None:
    returning = f"{_PUT} RETURNING *"
    await connection.put(returning, _ROWS)
    # What it returns is another thing now: the statement that was kept is refused, and a new one tried.
    await connection.run("ALTER TABLE kept ADD COLUMN more text")
    await connection.put(returning, _ROWS)
    assert await kept(connection) == _ROWS * 2


@pytest.mark.parametrize("row", [(["a"], 1, b""), ("a", "1", b""), ("a", 2**63, b""), ("a\x00", 1, b"")])
async def test_a_value_that_its_column_cannot_hold_is_bad_data(connection: Connection, row: tuple[object, ...]) -> None:
    with pytest.raises(BadData):
        await connection.put(_PUT, [row])
    assert await kept(connection) == []


async def test_no_value_is_looked_into_for_an_array(connection: Connection) -> None:
    looks = []

    class Word(str):
        __slots__ = ()

        @property  # type: ignore[misc]
        def __class__(self) -> type[str]:  # type: ignore[override]
            looks.append(self)
            return str

    await connection.run("SELECT unnest($1::text[])", [Word("a")])
    assert looks
    looks.clear()
    await connection.put(_PUT, [(Word("a"), 1, b"")])
    assert not looks
    assert await kept(connection) == [("a", 1, b"")]

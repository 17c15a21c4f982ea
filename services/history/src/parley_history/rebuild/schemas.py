"""Schemas of the view: one is made beside the live one, and made ready to be it. Run as the owner of the tables.

The live schema has the name that was set (`parley`); the new one is `parley_next`, and the one kept for going back
`parley_before`.
"""

from __future__ import annotations

from collections.abc import Iterable

from parley_history.db import Connection, connect
from parley_history.migrate import build_schema
from parley_history.settings import Settings, SettingsError
from parley_history.sql import blocks, migrations

SQL = blocks("rebuild.sql")
LONG_S = 3600.0
"""The longest that one statement of a rebuild may take: an index, the checksum of a table."""
BULK = ("facts", "messages", "files", "threads", "runs")
"""Tables that are filled by COPY; their indexes beside the primary keys are made afterwards."""
UNSEEN = ("facts",)
"""Those of them that nothing looks into meanwhile: their primary keys are made afterwards, too."""
TAKEN_OVER = ("skips",)
"""Tables that no fact says: their rows are copied from the live schema."""


def next_of(schema: str) -> str:
    """The name of the schema that is being built."""
    return f"{schema}_next"


def before_of(schema: str) -> str:
    """The name of the schema that is kept for going back."""
    return f"{schema}_before"


def owner_dsn(settings: Settings) -> str:
    """Raises SettingsError when it is not set."""
    if settings.postgres is None:
        raise SettingsError("PARLEY_POSTGRES is not set: a rebuild logs in as the owner of the tables")
    return settings.postgres


async def exists(connection: Connection, schema: str) -> bool:
    """Whether there is such a schema."""
    return bool(await connection.value("SELECT to_regnamespace($1) IS NOT NULL", schema))


async def drop(connection: Connection, schema: str) -> None:
    """Drop a schema with all that is in it, if it is there."""
    await connection.run(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def make(settings: Settings, schema: str) -> list[str]:
    """A fresh schema, open to COPY by its owner; the statements that make the indexes and keys it lacks for now."""
    connection = await connect(owner_dsn(settings), schema=schema, timeout_s=LONG_S)
    try:
        await drop(connection, schema)
        await build_schema(connection, schema, migrations())
        for name in await secured(connection, schema):
            # The owner is held to the policies by FORCE alone. Nobody else reads here yet.
            await connection.run(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
        indexes = await connection.fetch(SQL["indexes"], schema, list(BULK))
        for row in indexes:
            await connection.run(f"DROP INDEX {row['name']}")
        keys = await connection.fetch(SQL["keys"], schema, list(UNSEEN))
        for row in keys:
            await connection.run(f"ALTER TABLE {row['table']} DROP CONSTRAINT {row['name']}")
        return [
            *(f"ALTER TABLE {row['table']} ADD CONSTRAINT {row['name']} {row['made_by']}" for row in keys),
            *(row["made_by"] for row in indexes),
        ]
    finally:
        await connection.close()


async def make_ready(settings: Settings, schema: str, indexes: Iterable[str]) -> None:
    """Indexes and keys, row policies for its owner too, and what the planner must know of the tables."""
    connection = await connect(owner_dsn(settings), schema=schema, timeout_s=LONG_S)
    try:
        for statement in indexes:
            await connection.run(statement)
        for name in await secured(connection, schema):
            await connection.run(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
            await connection.run(f"ANALYZE {name}")
    finally:
        await connection.close()


async def secured(connection: Connection, schema: str) -> list[str]:
    """The tables of a schema that have row policies."""
    return [row["name"] for row in await connection.fetch(SQL["secured"], schema)]


async def take_over(connection: Connection, live: str, other: str) -> None:
    """Bring rows that no fact says from the live schema into the other one, as far as it lacks them."""
    for name in TAKEN_OVER:
        if await connection.value("SELECT to_regclass($1) IS NOT NULL", f"{live}.{name}"):
            sql = f"INSERT INTO {other}.{name} SELECT * FROM {live}.{name} ON CONFLICT DO NOTHING"  # noqa: S608
            await connection.run(sql)

"""Migrations: numbered files under an advisory lock, each in a transaction of its own, their checksums kept.

`await migrate(settings)` brings the schema to this code's version and makes the two service roles; running it twice,
or from several processes at once, is the same as once. `await check_schema(connection)` is what a service asks first.
"""

from __future__ import annotations

import asyncio
import logging

from parley_history.db import Connection, can_log_in, connect
from parley_history.errors import BadData, MigrationChanged, SchemaNotReady, SchemaTooNew, Unavailable
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE, Settings, SettingsError, dsn_login
from parley_history.sql import Migration, migrations

logger = logging.getLogger(__name__)

_LOCK = 0x7061726C6579
"""The advisory lock that migrations of one database take."""
_WAIT_S = 60.0


async def migrate(settings: Settings, *, wait_s: float = _WAIT_S) -> int:
    """Make roles, schema and tables, as far as they are not there; the schema's version.

    Waits at most `wait_s` for another migration that is running. Raises SchemaTooNew, MigrationChanged, Unavailable,
    SettingsError.
    """
    if settings.postgres is None:
        raise SettingsError("PARLEY_POSTGRES is not set: migrations log in as the owner of the tables")
    connection = await connect(settings.postgres, schema=settings.schema, timeout_s=wait_s)
    try:
        await connection.run("SELECT pg_advisory_lock($1)", _LOCK)
        await _roles(connection, settings)
        return await build_schema(connection, settings.schema, migrations())
    finally:
        await connection.close()


async def check_schema(connection: Connection) -> None:
    """SchemaNotReady or SchemaTooNew unless the schema is of this code's version."""
    if await connection.value("SELECT to_regclass('migrations') IS NULL"):
        raise SchemaNotReady("the schema is not there yet: run `python -m parley_history migrate`")
    have = int(await connection.value("SELECT coalesce(max(number), 0) FROM migrations"))
    _compare(have, len(migrations()))
    if have < len(migrations()):
        raise SchemaNotReady(
            f"the schema is at migration {have}, this code needs {len(migrations())}: "
            "run `python -m parley_history migrate`"
        )


async def build_schema(connection: Connection, schema: str, known: tuple[Migration, ...]) -> int:
    """Make the schema that the connection's search_path names, or bring it to these migrations; its version."""
    await connection.run(
        f"CREATE SCHEMA IF NOT EXISTS {schema};"
        f"GRANT USAGE ON SCHEMA {schema} TO {PROJECTOR_ROLE}, {READER_ROLE};"
        "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
        f"GRANT SELECT ON migrations TO {PROJECTOR_ROLE}, {READER_ROLE}"
    )
    applied = {row["number"]: row for row in await connection.fetch("SELECT number, name, checksum FROM migrations")}
    _compare(max(applied, default=0), len(known))
    for migration in known:
        row = applied.get(migration.number)
        if row is not None:
            if row["checksum"] != migration.checksum:
                raise MigrationChanged(
                    f"migration {migration.number} ({row['name']}) was applied with other content than its file has "
                    "now: restore the file, and write what is to change as a new migration"
                )
            continue
        logger.info("migration %d (%s)", migration.number, migration.name)
        await connection.run("BEGIN")
        await connection.run(migration.text)
        await connection.run(
            "INSERT INTO migrations (number, name, checksum) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.checksum,
        )
        await connection.run("COMMIT")
    return len(known)


def _compare(have: int, known: int) -> None:
    if have > known:
        raise SchemaTooNew(
            f"the schema is at migration {have}, this code knows {known}: start the newer version of Parley"
        )


async def _roles(connection: Connection, settings: Settings) -> None:
    """Roles belong to the cluster, and other databases may be making them at this moment: look, make, look again."""
    for role, dsn in ((PROJECTOR_ROLE, settings.postgres_projector), (READER_ROLE, settings.postgres_reader)):
        for attempt in range(5):
            row = await connection.row("SELECT rolsuper OR rolbypassrls AS bad FROM pg_roles WHERE rolname = $1", role)
            if row is not None and row["bad"]:
                raise SettingsError(f"the role {role} is a superuser or may bypass row security: take that away")
            if row is not None and await can_log_in(dsn):
                break
            change = "CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS" if row is None else "ALTER ROLE %I LOGIN"
            sql = await connection.value(
                f"SELECT format('{change} PASSWORD %L', $1::text, $2::text)",
                role,
                dsn_login(dsn)[1] or "",
            )
            try:
                await connection.run(sql)
            except (BadData, Unavailable) as error:
                # Another database's migration made it first.
                if attempt == 4:
                    raise
                logger.info("role %s: %s; looking again", role, type(error).__name__)
                await asyncio.sleep(0.1 * (attempt + 1))

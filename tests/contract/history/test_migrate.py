"""Migrations: once is enough, twice changes nothing, newer schemas and changed files are refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from parley_history import migrate as migrate_module
from parley_history.errors import MigrationChanged, SchemaTooNew
from parley_history.migrate import migrate
from parley_history.settings import Settings, SettingsError
from parley_history.sql import Migration, migrations
from tests.contract.history.conftest import running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.test_projector import until
from tests.support.postgres import NewServer, Server


async def _tables(settings: Settings) -> list[tuple[str, ...]]:
    assert settings.postgres is not None
    owner = await asyncpg.connect(settings.postgres)
    try:
        rows = await owner.fetch(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = $1 ORDER BY 1, 2",
            settings.schema,
        )
        return [tuple(row) for row in rows]
    finally:
        await owner.close()


async def test_running_it_again_changes_nothing(settings: Settings) -> None:
    before = await _tables(settings)
    assert await migrate(settings) == len(migrations())
    assert await _tables(settings) == before


async def test_several_databases_and_processes_at_once(new_postgres: NewServer) -> None:
    """Roles are the cluster's: databases being migrated together meet there."""
    server = new_postgres()
    every = [await settings_for(server) for _ in range(3)]
    done = await asyncio.gather(*(migrate(settings) for settings in every * 3))
    assert set(done) == {len(migrations())}


async def test_a_schema_that_is_newer_than_the_code_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    newer = (*known, Migration(len(known) + 1, "pre_tomorrow", "CREATE TABLE tomorrow (a int)"))
    monkeypatch.setattr(migrate_module, "migrations", lambda: newer)
    assert await migrate(settings) == len(newer)
    monkeypatch.undo()
    with pytest.raises(SchemaTooNew, match="newer version"):
        await migrate(settings)
    async with running(settings, ListLog(4)) as client:

        async def refused() -> bool:
            return "newer version" in client.history.health.reason

        await until(refused)
        assert (await client.http.get("/readyz")).status_code == 503


async def test_a_migration_that_fails_leaves_nothing_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await _tables(settings)
    known = migrations()
    bad = (*known, Migration(len(known) + 1, "pre_bad", "CREATE TABLE half (a int); SELECT 1/0"))
    monkeypatch.setattr(migrate_module, "migrations", lambda: bad)
    with pytest.raises(Exception, match="division"):
        await migrate(settings)
    monkeypatch.undo()
    assert await _tables(settings) == before
    assert await migrate(settings) == len(known)


async def test_an_applied_migration_must_not_be_edited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = migrations()
    edited = (replace(first, text=first.text + "\n-- a thought"), *rest)
    monkeypatch.setattr(migrate_module, "migrations", lambda: edited)
    with pytest.raises(MigrationChanged, match="new migration"):
        await migrate(settings)


async def test_a_schema_that_is_not_there_yet_is_waited_for(postgres: Server) -> None:
    settings = await settings_for(postgres)
    log = ListLog(4)
    async with running(settings, log) as client:

        async def waits() -> bool:
            return "parley_history migrate" in client.history.health.reason

        await until(waits)
        assert (await client.http.get("/readyz")).status_code == 503
        await migrate(settings)
        await until(client.ready)


async def test_the_roles_passwords_follow_the_settings(settings: Settings) -> None:
    changed = replace(settings, postgres_reader=settings.postgres_reader.replace("a-password", "another"))
    await migrate(changed)
    connection = await asyncpg.connect(changed.postgres_reader)
    await connection.close()
    await migrate(settings)


async def test_a_role_that_bypasses_row_security_is_refused(settings: Settings) -> None:
    assert settings.postgres is not None
    owner = await asyncpg.connect(settings.postgres)
    try:
        await owner.execute("ALTER ROLE parley_reader BYPASSRLS")
        with pytest.raises(SettingsError, match="bypass"):
            await migrate(settings)
    finally:
        await owner.execute("ALTER ROLE parley_reader NOBYPASSRLS")
        await owner.close()

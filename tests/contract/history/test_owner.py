"""`deploy/postgres/owner.sh`: the owner that it makes can do all that migrations need, and nothing beyond."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import asyncpg
import pytest

from parley_events.objects import open_objects
from parley_history.migrate import migrate
from parley_history.rebuild.run import back, rebuild
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE, Settings
from parley_history.sql import migrations
from parley_standalone.parts.postgres import OWNER, binaries
from tests.contract.history.conftest import TOKEN, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import random_story, thread, workspace
from tests.support.postgres import PASSWORD, NewServer

SCRIPT = Path(__file__).parents[3] / "deploy" / "postgres" / "owner.sh"


async def test_migrations_and_rebuilds_run_as_an_owner_that_is_no_superuser(
    new_postgres: NewServer, tmp_path: Path
) -> None:
    server = new_postgres()
    # The superuser of test servers has the role's name, so here the role has another.
    script = tmp_path / "owner.sh"
    script.write_text(SCRIPT.read_text().replace("parley_owner", "tables_owner"))
    env = {
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": PASSWORD,
        "POSTGRES_USER": OWNER,
        "PARLEY_OWNER_PASSWORD": 'it\'s "a" password',
    }
    done = subprocess.run(["sh", str(script)], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    settings = Settings(
        postgres=server.dsn("tables_owner", env["PARLEY_OWNER_PASSWORD"], "parley"),
        postgres_projector=server.dsn(PROJECTOR_ROLE, "a-password", "parley"),
        postgres_reader=server.dsn(READER_ROLE, "a-password", "parley"),
        internal_token=TOKEN,
    )
    for _ in range(2):
        assert await migrate(settings) == len(migrations())
    log, memory = ListLog(4), open_objects("memory:")
    writer = random_story(3, log, 120)
    async with running(settings, log) as client:
        await client.caught_up(log)
        # A read that began earlier is seen, and waited for, though its session is another role's.
        async with client.history.scoped.transaction(workspace=workspace(1), snapshot=True) as con:
            await con.value("SELECT count(*) FROM facts")
            switching = asyncio.create_task(rebuild(settings, log, memory))
            await asyncio.wait({switching}, timeout=4.0)
            assert not switching.done()
        outcome = await asyncio.wait_for(switching, 60)
        assert (outcome.differences, outcome.switched) == ([], True)
        writer.post(thread(70), workspace(0))
        await client.caught_up(log)
        assert (await back(settings, log, memory)).switched
        page = await client.get(f"/streams/{thread(70)}/facts")
        assert page["last_seq"] == 1
    assert settings.postgres is not None
    owner = await asyncpg.connect(settings.postgres)
    try:
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await owner.copy_records_to_table("facts", schema_name="parley", records=[])
        roles = await owner.fetch(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcreatedb OR rolreplication AS much FROM pg_roles "
            "WHERE rolname IN ('tables_owner', 'parley_projector', 'parley_reader')"
        )
        assert {row["rolname"]: row["much"] for row in roles} == {
            "tables_owner": False,
            "parley_projector": False,
            "parley_reader": False,
        }
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.execute("ALTER ROLE tables_owner BYPASSRLS")
    finally:
        await owner.close()

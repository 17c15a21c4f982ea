"""Promise 8: one workspace never sees another's rows, even when a query forgets to say whose it wants."""

from __future__ import annotations

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_history.db import Pool
from parley_history.errors import Unavailable
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE, Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import random_story, thread, workspace

_TABLES = """
SELECT c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
       pg_get_userbyid(c.relowner) AS owner,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id') AS scoped
FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
"""


async def test_every_table_with_rows_of_a_workspace_forces_its_policies(settings: Settings) -> None:
    async with running(settings, ListLog(4)) as client:
        tables = await client.rows(_TABLES)
        unscoped = {table["name"] for table in tables if not table["scoped"]}
        assert unscoped == {"positions", "migrations"}
        for table in tables:
            assert table["owner"] not in (PROJECTOR_ROLE, READER_ROLE)
            if table["scoped"]:
                assert table["enabled"] and table["forced"], table["name"]
        roles = await client.rows(
            "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = ANY($1)",
            [PROJECTOR_ROLE, READER_ROLE],
        )
        assert len(roles) == 2
        assert not any(role["rolsuper"] or role["rolbypassrls"] for role in roles)


async def test_a_query_without_a_where_sees_one_workspace(settings: Settings) -> None:
    log = ListLog(4)
    random_story(3, log, 400)
    async with running(settings, log) as client:
        await client.caught_up(log)
        tables = [table["name"] for table in await client.rows(_TABLES) if table["scoped"]]
        for table in tables:
            whole = await client.rows(f"SELECT DISTINCT workspace_id::text AS ws FROM {table}")
            for number in (0, 1, 7):
                ws = workspace(number)
                async with client.history.scoped.transaction(workspace=ws, snapshot=True) as con:
                    seen = {row["ws"] for row in await con.fetch(f"SELECT workspace_id::text AS ws FROM {table}")}
                assert seen == {ws} & {row["ws"] for row in whole}, table
        assert len({row["ws"] for row in await client.rows("SELECT DISTINCT workspace_id::text AS ws FROM runs")}) == 2


async def test_without_a_workspace_the_reader_sees_nothing(settings: Settings) -> None:
    log = ListLog(4)
    random_story(3, log, 100)
    async with running(settings, log) as client:
        await client.caught_up(log)
        one = Pool(settings.postgres_reader, schema=settings.schema, size=1, timeout_s=5)
        await one.open()
        try:
            async with one.transaction() as con:
                assert await con.value("SELECT count(*) FROM facts") == 0
            async with one.transaction(workspace=workspace(1)) as con:
                assert await con.value("SELECT count(*) FROM facts") > 0
            # The same connection, one transaction later.
            async with one.transaction() as con:
                assert await con.value("SELECT count(*) FROM facts") == 0
            with pytest.raises(Unavailable, match="permission"):
                async with one.transaction(workspace=workspace(1)) as con:
                    await con.run("DELETE FROM facts")
        finally:
            await one.close()


async def test_the_read_api_keeps_to_the_workspace_in_the_path(settings: Settings) -> None:
    log = ListLog(4)
    writer = random_story(11, log, 0)
    mine, theirs = workspace(1), workspace(2)
    run = writer.post(thread(1), mine)
    key = f.KeyCreated(key_id="k", key_hash="a" * 64, user_id="ada", scopes=("*",))
    writer.write(ids.workspace_stream(mine), mine, f.WorkspaceCreated(workspace_id=mine, name="mine"))
    writer.write(ids.workspace_stream(mine), mine, key)
    document = f.KnowledgeAdded(knowledge_id="d", title="secret", text="a secret")
    writer.write(ids.workspace_stream(mine), mine, document)
    async with running(settings, log) as client:
        await client.caught_up(log)
        for path in (
            f"/threads/{thread(1)}",
            f"/threads/{thread(1)}/messages",
            f"/runs/{run}",
            f"/keys/by-hash/{'a' * 64}",
            "/knowledge/d",
            "",
        ):
            await client.get(f"/workspaces/{mine}{path}")
            await client.get(f"/workspaces/{theirs}{path}", status=404)
        assert (await client.get(f"/workspaces/{theirs}/threads"))["total"] == 0
        assert (await client.get(f"/workspaces/{theirs}/keys"))["items"] == []
        for ws, count in ((mine, 1), (theirs, 0)):
            for query in ("secret", "ecre"):
                assert len((await client.get(f"/workspaces/{ws}/passages", query=query))["items"]) == count
            assert (await client.get(f"/workspaces/{ws}/knowledge", id=["d"]))["total"] == count

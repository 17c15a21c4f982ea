"""Promise 8: one workspace never sees another's rows, even when a query forgets to say whose it wants."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_history.db import Pool
from parley_history.errors import Unavailable
from parley_history.http import ROUTES
from parley_history.migrate import migrate
from parley_history.reads import answers
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE, Settings
from tests.contract.history.conftest import running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import random_story, thread, workspace
from tests.support.postgres import Server

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
        assert unscoped == {"positions", "migrations", "stops", "skips"}
        for table in tables:
            assert table["owner"] not in (PROJECTOR_ROLE, READER_ROLE)
            if table["scoped"] or table["name"] in ("stops", "skips"):
                assert table["enabled"] and table["forced"], table["name"]
        roles = await client.rows(
            "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = ANY($1)",
            [PROJECTOR_ROLE, READER_ROLE],
        )
        assert len(roles) == 2
        assert not any(role["rolsuper"] or role["rolbypassrls"] for role in roles)


async def test_a_query_without_a_where_sees_one_workspace(postgres: Server) -> None:
    """Every table, with rows of two workspaces in it: as many made-up stories as that takes."""
    untried: set[str] | None = None
    for seed in range(3, 40):
        settings = await settings_for(postgres)
        await migrate(settings)
        log = ListLog(4)
        random_story(seed, log, 400)
        async with running(settings, log) as client:
            await client.caught_up(log)
            tables = {table["name"] for table in await client.rows(_TABLES) if table["scoped"]}
            untried = set(tables) if untried is None else untried
            for table in tables:
                rows = await client.rows(f"SELECT DISTINCT workspace_id::text AS ws FROM {table}")
                whole = {row["ws"] for row in rows}
                for number in (0, 1, 7):
                    ws = workspace(number)
                    async with client.history.scoped.transaction(workspace=ws, snapshot=True) as con:
                        seen = {row["ws"] for row in await con.fetch(f"SELECT workspace_id::text AS ws FROM {table}")}
                    assert seen == {ws} & whole, table
                if len(whole) == 2:
                    untried.discard(table)
        if not untried:
            return
    assert not untried, "no story has rows of two workspaces in these: nothing was tried with them"


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


ASKED = ("/workspaces/{w}/facts", "/workspaces/{w}/owners")
"""What is told by parameters alone."""


async def test_every_read_is_as_it_was_when_its_query_forgets_the_workspace(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every read of the internal API, with every id that either workspace has: once as it is, and once with the
    condition on the workspace taken out of every query. The row policies alone give the same answers."""
    log = ListLog(4)
    random_story(3, log, 400)
    async with running(settings, log) as client:
        await client.caught_up(log)
        names = {
            "id": "SELECT DISTINCT id AS name FROM threads",
            "run_id": "SELECT DISTINCT id AS name FROM runs",
            "agent_id": "SELECT DISTINCT id AS name FROM agents UNION SELECT uuid FROM agents",
            "team_id": "SELECT DISTINCT id AS name FROM teams UNION SELECT uuid FROM teams",
            "hash": "SELECT DISTINCT key_hash AS name FROM keys",
            "slug": "SELECT DISTINCT slug AS name FROM skills",
            "approvals": "SELECT DISTINCT id AS name FROM approvals",
            "knowledge": "SELECT DISTINCT id AS name FROM knowledge",
        }
        found = {field: [row["name"] for row in await client.rows(sql)] for field, sql in names.items()}
        asked: list[tuple[str, dict[str, Any]]] = []
        for ws in (workspace(0), workspace(1)):
            for path in ROUTES:
                fields = [field for field in re.findall(r"{(\w+)}", path) if field != "w"]
                if "{w}" in path and path not in ASKED:
                    kind = next(
                        (kind for kind in ("approvals", "knowledge") if f"/{kind}/" in path), *fields[:1] or [""]
                    )
                    for name in found[kind] if fields else [""]:
                        filled = path.replace("{w}", ws)
                        asked.append((filled.replace(f"{{{fields[0]}}}", quote(name)) if fields else filled, {}))
            streams = [*found["id"], ids.workspace_stream(workspace(0)), ids.workspace_stream(workspace(1))]
            asked += [(f"/streams/{stream}/facts", {"workspace_id": ws}) for stream in streams]
            places: dict[str, Any] = {"from": 0, "below": 10_000, "limit": 1000}
            for more in ({}, {"thread": found["id"]}, {"user_id": "ada"}):
                asked += [(f"/workspaces/{ws}/facts", {**places, "partition": p, **more}) for p in range(4)]
            asked.append((f"/workspaces/{ws}/owners", {"at": [f"{name}@10000" for name in found["id"]]}))

        async def asked_all() -> list[tuple[int, bytes]]:
            got = [await client.http.get(f"/internal{path}", params=params) for path, params in asked]
            return [(answer.status_code, answer.content) for answer in got]

        before = await asked_all()
        forgetful = {name: _forgetting(sql) for name, sql in answers.SQL.items()}
        assert sum(sql != answers.SQL[name] for name, sql in forgetful.items()) >= 15
        for name, sql in forgetful.items():
            monkeypatch.setitem(answers.SQL, name, sql)
        assert await asked_all() == before
        statuses = Counter(status for status, _ in before)
        assert set(statuses) == {200, 404} and min(statuses.values()) > 20, statuses


def _forgetting(sql: str) -> str:
    """A query without its conditions on the workspace. (The argument is still named, or PostgreSQL would refuse it.)"""
    return re.sub(r"(\w+\.)?workspace_id = \$(\d+)", r"$\2::uuid IS NOT NULL", sql)

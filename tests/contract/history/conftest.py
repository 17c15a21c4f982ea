"""History on a real PostgreSQL: a database of its own per test, the app around a log of lists."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from parley_history.app import History, build
from parley_history.migrate import migrate
from parley_history.settings import Settings
from tests.contract.history.listlog import ListLog
from tests.contract.history.server import Server

TOKEN = "a-token-of-tests"
_names = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests that leave it alone."""
    server = Server()
    server.start()
    yield server
    server.remove()


def settings_for(server: Server, database: str) -> Settings:
    return Settings(
        postgres=server.dsn(database),
        postgres_projector=server.dsn(database, "parley_projector"),
        postgres_reader=server.dsn(database, "parley_reader"),
        internal_token=TOKEN,
    )


@pytest.fixture
async def settings(server: Server) -> Settings:
    """A fresh database, migrated."""
    name = f"t{next(_names)}"
    await server.database(name)
    settings = settings_for(server, name)
    await migrate(settings)
    return settings


@dataclass
class Client:
    """A running history, asked over its HTTP API."""

    http: httpx2.AsyncClient
    history: History

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        """The answer's body; fails unless it has this status."""
        answer = await self.http.get(f"/internal{path}", params=params)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.json()

    async def caught_up(self, log: ListLog, wait_ms: int = 10_000) -> None:
        """Wait until the view has all that the log has."""
        ends = await log.ends("parley.events")
        await self.get("/positions", min_position=[f"{p}.{end}" for p, end in ends.items()], wait_ms=wait_ms)

    async def ready(self) -> bool:
        """Whether it says that it is ready."""
        return (await self.http.get("/readyz")).status_code == 200

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """Rows as the projector sees them."""
        async with self.history.internal.connection() as con:
            return [dict(row) for row in await con.fetch(sql, *args)]


@asynccontextmanager
async def running(settings: Settings, log: ListLog, **changes: Any) -> AsyncIterator[Client]:
    """A history around a log, started and stopped."""
    app = build(replace(settings, **changes), log=log)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx2.ASGITransport(app)
        http = httpx2.AsyncClient(
            transport=transport,
            base_url="http://history",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        await stack.enter_async_context(http)
        yield Client(http, app.state.history)

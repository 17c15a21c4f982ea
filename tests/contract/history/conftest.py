"""History on a real PostgreSQL: a database of its own per test, the app around a log of lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from parley_events.clock import Clock, system_clock
from parley_events.log import Log
from parley_events.objects import Objects, open_objects
from parley_history.app import History, build
from parley_history.migrate import migrate
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE, Settings
from tests.support.postgres import Server

TOKEN = "a-token-of-tests"


async def settings_for(server: Server) -> Settings:
    """Settings for a fresh, empty database."""
    dsn = await server.fresh_database()
    database = dsn.rpartition("/")[2]
    return Settings(
        postgres=dsn,
        postgres_projector=server.dsn(PROJECTOR_ROLE, "a-password", database),
        postgres_reader=server.dsn(READER_ROLE, "a-password", database),
        internal_token=TOKEN,
    )


@pytest.fixture
async def settings(postgres: Server) -> Settings:
    """A fresh database, migrated."""
    settings = await settings_for(postgres)
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

    async def caught_up(self, log: Log, wait_ms: int = 10_000) -> None:
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
async def running(
    settings: Settings, log: Log, objects: Objects | None = None, clock: Clock = system_clock, **changes: Any
) -> AsyncIterator[Client]:
    """A history around a log, started and stopped."""
    app = build(replace(settings, **changes), log=log, objects=objects or open_objects("memory:"), clock=clock)
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

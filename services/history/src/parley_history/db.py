"""PostgreSQL: the only importer of asyncpg. Pools, transactions, and what their errors mean.

A pool connects when it is first used and again after an outage; while PostgreSQL is away, every call raises
`Unavailable` within its time limit. Nothing of a session outlives a transaction (settings are transaction-local),
so a connection goes back to its pool without a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from parley_events.ids import is_uuid
from parley_history.errors import BadData, Unavailable

CONNECT_TIMEOUT_S = 3.0
IDLE_IN_TRANSACTION_S = 10
"""A process that is stopped within a transaction loses it after this time, and with it its row locks."""

# What every session is started with.
_SESSION = {
    "application_name": "parley-history",
    "jit": "off",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_S * 1000),
    # A host that vanishes is noticed, and its locks are free, within seconds.
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}


class Connection:
    """One connection within its time limits; every failure of PostgreSQL is `Unavailable` or `BadData`."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """The rows of a query."""
        with _Errors():
            rows: list[Any] = await self._raw.fetch(sql, *args)
            return rows

    async def row(self, sql: str, *args: Any) -> Any | None:
        """The first row of a query, or None."""
        with _Errors():
            return await self._raw.fetchrow(sql, *args)

    async def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        with _Errors():
            return await self._raw.fetchval(sql, *args)

    async def run(self, sql: str, *args: Any) -> int:
        """Run a statement; the number of rows it touched (0 where it says none)."""
        with _Errors():
            status: str = await self._raw.execute(sql, *args)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def put(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement that takes one array per column of the rows."""
        with _Errors():
            await self._raw.execute(sql, *map(_Column, zip(*rows, strict=True)))

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Put new rows into a table by COPY, which PostgreSQL refuses to whom the table's row policies apply."""
        with _Errors():
            await self._raw.copy_records_to_table(table, columns=columns, records=rows)

    async def close(self) -> None:
        """Close it; never hangs."""
        try:
            await self._raw.close(timeout=2.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._raw.terminate()


class Pool:
    """Connections of one role to one schema (by search_path)."""

    def __init__(self, dsn: str, *, schema: str, size: int, timeout_s: float) -> None:
        self._dsn, self._schema, self._size, self._timeout_s = dsn, schema, size, timeout_s
        self._raw: Any = None

    async def open(self) -> None:
        """Make the pool; connects nowhere yet."""
        self._raw = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=self._timeout_s,
            reset=_keep,
            server_settings=_server_settings(self._schema, self._timeout_s),
        )

    async def close(self) -> None:
        """Close all connections within 3 s, those in use too."""
        if self._raw is None:
            return
        try:
            await asyncio.wait_for(self._raw.close(), 3.0)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._raw.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction; `Unavailable` when there is none within the time limit."""
        if self._raw is None:
            raise Unavailable("the pool is not open")
        with _Errors():
            raw = await self._raw.acquire(timeout=self._timeout_s)
        try:
            yield Connection(raw)
        finally:
            with _Errors():
                await self._raw.release(raw, timeout=2.0)

    @asynccontextmanager
    async def transaction(self, *, workspace: str | None = None, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A transaction: committed at the end of the block, rolled back when it raises.

        `workspace`: the rows of that workspace are all that the reader role sees. `snapshot`: read-only, and all its
        statements see one state.
        """
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN"
        if workspace is not None:
            if not is_uuid(workspace):
                raise ValueError("a workspace is named by a UUID")
            begin += f"; SET LOCAL parley.workspace = '{workspace}'"
        async with self.connection() as connection:
            await connection.run(begin)
            try:
                yield connection
            except BaseException:
                await _rollback(connection)
                raise
            await connection.run("COMMIT")


class _Column:
    """A column of values none of which is an array, for a parameter that is one.

    asyncpg goes through an array twice: at first to look for arrays in it, which costs five times what the rest does,
    since each value is held against abstract classes. That first look finds nothing here.
    """

    __slots__ = ("_looked_into", "_values")

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values, self._looked_into = values, False

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        if not self._looked_into:
            self._looked_into = True
            return iter(())
        return iter(self._values)


async def connect(dsn: str, *, schema: str, timeout_s: float) -> Connection:
    """A connection of its own, outside the pools: for migrations and for session locks."""
    with _Errors():
        return Connection(
            await asyncpg.connect(
                dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=timeout_s,
                server_settings=_server_settings(schema, timeout_s),
            )
        )


async def can_log_in(dsn: str) -> bool:
    """Whether the server takes this login; Unavailable when it is not there to ask."""
    try:
        raw = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    except asyncpg.InvalidAuthorizationSpecificationError:
        return False
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(_brief(error)) from error
    await raw.close(timeout=2.0)
    return True


def _server_settings(schema: str, timeout_s: float) -> dict[str, str]:
    return {**_SESSION, "search_path": schema, "statement_timeout": str(int(timeout_s * 1000))}


async def _keep(_: Any) -> None:
    """Nothing to reset."""


async def _rollback(connection: Connection) -> None:
    # A rollback that fails leaves a broken connection, which its pool throws away.
    try:
        await asyncio.wait_for(connection.run("ROLLBACK"), 2.0)
    except (Unavailable, BadData, TimeoutError):
        return


class _Errors:
    """Turns what asyncpg raises into this package's words; anything else passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.PostgresError):
            # Classes 22 and 23: the data themselves. Everything else has been seen to pass: failover, a full disk, a
            # table that a migration was just changing.
            state = getattr(error, "sqlstate", None) or ""
            raise (BadData if state[:2] in ("22", "23") else Unavailable)(_brief(error)) from error
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
            # Its text quotes the value, which may be what somebody wrote.
            raise BadData("an argument that its column's type cannot hold") from None
        if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError):
            raise Unavailable(_brief(error)) from error


def _brief(error: BaseException) -> str:
    """The error's kind and its first line: no values of rows, no DSN."""
    lines: Sequence[str] = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"

"""Real PostgreSQL servers for tests: one for the whole session, and more for tests that break theirs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from parley_standalone.parts.postgres import Postgres

PASSWORD = "a-password-of-tests"


class Server(Postgres):
    """A server that makes databases. `safe` False: quicker, but a kill may lose what was just committed."""

    def __init__(self, folder: Path, *, safe: bool = True) -> None:
        super().__init__(folder, folder.parent / f"{folder.name}.log", PASSWORD, os.environ, safe)
        self._numbers = itertools.count(1)

    async def fresh_database(self) -> str:
        """The owner's DSN of a new, empty database."""
        name = f"test{next(self._numbers)}"
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.dsn(database=name)


NewServer = Callable[[], Server]
"""Starts a server that the test may `kill`, `stop` and `start` again (same port, same data); ended after the test."""


@contextmanager
def servers(folder: Path, *, safe: bool) -> Iterator[NewServer]:
    """Servers with their state below `folder`; whatever still runs at the end is stopped."""
    made: list[Server] = []

    def start() -> Server:
        place = folder / f"postgres{len(made)}"
        place.mkdir(parents=True)
        server = Server(place / "store", safe=safe)
        made.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in made:
            server.stop()

"""The embedded log as another process reads it, beside the one that has it open: no lock, nothing is ever written.

SQLite's write-ahead log lets readers in at any time; each read sees what was committed when it began. See `embedded`.

Reads are short and on the event loop's own thread: another one would be given the interpreter anew for each row, for
which it waits 5 ms while the loop is at work.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from parley_events.errors import LogUnavailable, RetentionGap, TopicMismatch
from parley_events.log.embedded import SCHEMA_VERSION
from parley_events.log.embedded_headers import unpack
from parley_events.log.port import Incoming

_LOOK_S = 0.05
"""How often the file is looked into for more: nobody tells another process of it."""
_READ_BYTES = 1024 * 1024
_READ_ROWS = 2000
"""What is read at once, about."""


class EmbeddedReader:
    """See `port.Reading`. Opened with `open`."""

    def __init__(self, file: Path, partitions: int) -> None:
        self._file, self._partitions = file, partitions
        self._db: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, folder: Path) -> EmbeddedReader:
        """The log in `folder`. Raises LogUnavailable when there is none, TopicMismatch when it is of a newer Parley."""
        file = folder / "log.sqlite"
        if not file.exists():
            raise LogUnavailable(f"there is no log in {folder}")
        reader = cls(file, 0)
        version = reader.number("PRAGMA user_version")
        if version != SCHEMA_VERSION:
            await reader.close()
            raise TopicMismatch(f"{folder} has version {version}, this Parley knows {SCHEMA_VERSION}")
        reader._partitions = reader.number("SELECT value FROM facts_of_the_log WHERE name = 'partitions'")
        return reader

    @property
    def partitions(self) -> int:
        return self._partitions

    async def begins(self, topic: str) -> dict[int, int]:
        return await self._edge(topic, "SELECT min(offset) FROM records WHERE topic = ? AND partition = ?")

    async def ends(self, topic: str) -> dict[int, int]:
        return await self._edge(topic, "SELECT max(offset) + 1 FROM records WHERE topic = ? AND partition = ?")

    async def tail(self, topic: str, starts: Mapping[int, int]) -> EmbeddedReaderTail:
        tail = EmbeddedReaderTail(self, topic)
        for partition, offset in starts.items():
            tail.add(partition, offset)
        return tail

    async def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def number(self, sql: str, *values: object) -> int:
        """The number that a query gives, 0 for none. Raises LogUnavailable."""
        try:
            return int(self._open().execute(sql, values).fetchone()[0] or 0)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Incoming]:
        """Records of a partition from `offset` on: at most `limit`, and about as many as are read at once."""
        found: list[Incoming] = []
        size = 0
        try:
            rows = self._open().execute(
                "SELECT offset, time_ms, key, value, headers FROM records"
                " WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
                (topic, partition, offset, min(limit, _READ_ROWS)),
            )
            for at, time_ms, key, value, headers in rows:
                found.append(Incoming(topic, partition, at, time_ms, key, value, unpack(headers)))
                size += len(value or b"")
                if size >= _READ_BYTES:
                    break
            rows.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if found and found[0].offset > offset:
            raise RetentionGap(topic, partition, offset, found[0].offset)
        return found

    async def _edge(self, topic: str, sql: str) -> dict[int, int]:
        return {partition: self.number(sql, topic, partition) for partition in range(self._partitions)}

    def _failed(self, error: sqlite3.Error) -> LogUnavailable:
        self._close()
        return LogUnavailable(f"{self._file} cannot be read: {error}")

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._file, timeout=5.0)
            self._db.execute("PRAGMA query_only = ON")
        return self._db


class EmbeddedReaderTail:
    """See `port.Tail`."""

    def __init__(self, log: EmbeddedReader, topic: str) -> None:
        self._log, self._topic = log, topic
        self._positions: dict[int, int] = {}

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s
        while True:
            await asyncio.sleep(0)
            found = self._take(limit)
            if found or clock() >= until:
                return found
            await asyncio.sleep(min(_LOOK_S, max(0.0, until - clock())))

    def _take(self, limit: int) -> list[Incoming]:
        """From the first partition that has any; it is the last one then, so that none holds up the rest."""
        for partition, offset in self._positions.items():
            records = self._log.read(self._topic, partition, offset, limit)
            if records:
                del self._positions[partition]
                self._positions[partition] = records[-1].offset + 1
                return records
        return []

    def add(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset

    def remove(self, partition: int) -> None:
        self._positions.pop(partition, None)

    def position(self, partition: int) -> int:
        return self._positions[partition]

    async def close(self) -> None:
        self._positions.clear()

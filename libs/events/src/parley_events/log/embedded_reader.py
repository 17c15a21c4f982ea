"""The embedded log as another process reads it, beside the one that has it open: no lock, nothing is ever written.

SQLite's write-ahead log lets readers in at any time; each read sees what was committed when it began. See `embedded`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from parley_events.errors import LogUnavailable, RetentionGap, TopicMismatch
from parley_events.log.embedded import SCHEMA_VERSION, unpack
from parley_events.log.port import Incoming

_LOOK_S = 0.05
"""How often the file is looked into for more: nobody tells another process of it."""
_READ_BYTES = 8 * 1024 * 1024


class EmbeddedReader:
    """See `port.Reading`. Opened with `open`."""

    def __init__(self, file: Path, partitions: int) -> None:
        self._file, self._partitions = file, partitions

    @classmethod
    async def open(cls, folder: Path) -> EmbeddedReader:
        """The log in `folder`. Raises LogUnavailable when there is none, TopicMismatch when it is of a newer Parley."""
        file = folder / "log.sqlite"
        if not file.exists():
            raise LogUnavailable(f"there is no log in {folder}")
        reader = cls(file, 0)
        version = await reader.number("PRAGMA user_version")
        if version != SCHEMA_VERSION:
            raise TopicMismatch(f"{folder} has version {version}, this Parley knows {SCHEMA_VERSION}")
        reader._partitions = await reader.number("SELECT value FROM facts_of_the_log WHERE name = 'partitions'")
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
        return None

    async def number(self, sql: str, *values: object) -> int:
        """The number that a query gives, 0 for none; asked on another thread. Raises LogUnavailable."""
        return await asyncio.to_thread(self._number, sql, values)

    async def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Incoming]:
        """Records of a partition from `offset` on: at most `limit`, and about as many bytes as are read at once."""
        return await asyncio.to_thread(self._read, topic, partition, offset, limit)

    async def _edge(self, topic: str, sql: str) -> dict[int, int]:
        found = dict.fromkeys(range(self._partitions), 0)
        for partition in found:
            found[partition] = await self.number(sql, topic, partition)
        return found

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, timeout=5.0)
        db.execute("PRAGMA query_only = ON")
        return db

    def _number(self, sql: str, values: tuple[object, ...]) -> int:
        try:
            db = self._connect()
            try:
                return int(db.execute(sql, values).fetchone()[0] or 0)
            finally:
                db.close()
        except sqlite3.Error as error:
            raise LogUnavailable(f"{self._file} cannot be read: {error}") from error

    def _read(self, topic: str, partition: int, offset: int, limit: int) -> list[Incoming]:
        found: list[Incoming] = []
        size = 0
        try:
            db = self._connect()
            try:
                for o, t, k, v, h in db.execute(
                    "SELECT offset, time_ms, key, value, headers FROM records"
                    " WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
                    (topic, partition, offset, limit),
                ):
                    found.append(Incoming(topic, partition, o, t, k, v, unpack(h)))
                    size += len(v or b"")
                    if size >= _READ_BYTES:
                        break
            finally:
                db.close()
        except sqlite3.Error as error:
            raise LogUnavailable(f"{self._file} cannot be read: {error}") from error
        if found and found[0].offset > offset:
            raise RetentionGap(topic, partition, offset, found[0].offset)
        return found


class EmbeddedReaderTail:
    """See `port.Tail`."""

    def __init__(self, log: EmbeddedReader, topic: str) -> None:
        self._log, self._topic = log, topic
        self._positions: dict[int, int] = {}

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s
        while True:
            found = await self._take(limit)
            if found or clock() >= until:
                return found
            await asyncio.sleep(min(_LOOK_S, max(0.0, until - clock())))

    async def _take(self, limit: int) -> list[Incoming]:
        """From one partition after the other, so that none holds up the rest."""
        found: list[Incoming] = []
        for partition, offset in list(self._positions.items()):
            records = await self._log.read(self._topic, partition, offset, limit - len(found))
            if records and self._positions.get(partition) == offset:
                del self._positions[partition]
                self._positions[partition] = records[-1].offset + 1
                found += records
                if len(found) >= limit:
                    break
        return found

    def add(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset

    def remove(self, partition: int) -> None:
        self._positions.pop(partition, None)

    def position(self, partition: int) -> int:
        return self._positions[partition]

    async def close(self) -> None:
        self._positions.clear()

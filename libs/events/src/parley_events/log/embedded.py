"""The embedded log: a real, durable log for a single process, in SQLite; in memory for tests.

One thread of its own does all the writing, with group commit: whatever is queued while a transaction runs goes into
the next one, so that many writers share one flush to disk. A record exists once its transaction has committed
(`synchronous=FULL`: it survives a power cut), and only then do tails see it and futures resolve. Readers are woken in
the process and served from a ring of recent records; older ones come from SQLite.

`parley.deltas` and `parley.counts` are kept in memory alone, bounded: both are hints, and a restart does without.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from parley_events.clock import Clock, system_clock
from parley_events.errors import (
    LogError,
    LogInUse,
    LogUnavailable,
    RecordTooLarge,
    RetentionGap,
    TopicMismatch,
)
from parley_events.log.embedded_group import EmbeddedGroup, Members
from parley_events.log.embedded_headers import pack, unpack
from parley_events.log.embedded_producer import EmbeddedProducer
from parley_events.log.embedded_tail import EmbeddedTail
from parley_events.log.port import Incoming, OnAssigned, OnRevoked, OnWanted, Outgoing
from parley_events.topics import MAX_RECORD_BYTES, TOPICS

SCHEMA_VERSION = 1
_RING_BYTES = 8 * 1024 * 1024
_FALLBACK_ROWS = 2000
_RETENTION_S = 600.0
_CLOSE_S = 10.0
_CLOSE = object()
_TABLES = (
    """CREATE TABLE records (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB NOT NULL,
    PRIMARY KEY (topic, partition, offset)) WITHOUT ROWID""",
    """CREATE TABLE group_offsets (
    group_id TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (group_id, topic, partition)) WITHOUT ROWID""",
    "CREATE TABLE facts_of_the_log (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)


@dataclass(slots=True)
class _Partition:
    """One partition: what is in memory of it. `first` is the offset of the oldest record kept anywhere."""

    first: int = 0
    next: int = 0
    ring: deque[Incoming] = field(default_factory=deque)
    ring_bytes: int = 0
    last_ms: int = 0

    def keep(self, record: Incoming, limit: float, only_here: bool) -> None:
        """Remember a record, and at most `limit` bytes in all; `only_here`: what is let go of is gone for good."""
        self.ring.append(record)
        self.ring_bytes += _weight(record)
        while self.ring_bytes > limit and len(self.ring) > 1:
            self.ring_bytes -= _weight(self.ring.popleft())
        if only_here:
            self.first = self.ring_first

    @property
    def ring_first(self) -> int:
        return self.ring[0].offset if self.ring else self.next


def _weight(record: Incoming) -> int:
    return len(record.value or b"") + 600


class EmbeddedLog:
    """See `port.Log`. Opened with `open`; everything but the writing thread lives on one event loop."""

    def __init__(self, folder: Path | None, partitions: int, clock: Clock) -> None:
        self._folder, self._partitions, self._clock = folder, partitions, clock
        self._parts: dict[tuple[str, int], _Partition] = {
            (topic, p): _Partition() for topic in TOPICS for p in range(partitions)
        }
        self._readers: dict[str, set[asyncio.Event]] = {topic: set() for topic in TOPICS}
        self._groups: dict[tuple[str, str], Members] = {}
        self._offsets: dict[tuple[str, str, int], int] = {}
        self._jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._lock: int | None = None
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._cleaning: asyncio.Task[None] | None = None
        self.fail_next_commit = False
        """For tests: the next commit fails as a full disk would, and its outcome is unknown to the writers."""

    @classmethod
    async def open(cls, folder: Path | None, partitions: int, clock: Clock = system_clock) -> EmbeddedLog:
        """Open or make the log in `folder` (None: memory). Raises LogInUse, TopicMismatch, LogUnavailable."""
        if not 1 <= partitions <= 256:
            raise TopicMismatch(f"{partitions} partitions: there must be 1 to 256")
        log = cls(folder, partitions, clock)
        if folder is not None:
            log._take_lock(folder)
        try:
            await asyncio.to_thread(log._prepare)
        except BaseException as error:
            if log._db is not None:
                log._db.close()
            log._drop_lock()
            if isinstance(error, sqlite3.Error):
                raise LogUnavailable(f"the log in {folder} cannot be read: {error}") from error
            raise
        log._thread = threading.Thread(target=log._write_loop, name="parley-log", daemon=True)
        log._thread.start()
        log._cleaning = log._loop.create_task(log._retire_regularly())
        return log

    # ---- the port

    @property
    def partitions(self) -> int:
        return self._partitions

    async def producer(self) -> EmbeddedProducer:
        self._check_open()
        return EmbeddedProducer(self)

    async def tail(self, topic: str, starts: Mapping[int, int]) -> EmbeddedTail:
        self._check_open()
        tail = EmbeddedTail(self, topic)
        for partition, offset in starts.items():
            tail.add(partition, offset)
        return tail

    async def group(
        self,
        topic: str,
        group_id: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        on_wanted: OnWanted | None = None,
    ) -> EmbeddedGroup:
        """All members are in one process: partitions move at once, and none is ever asked for."""
        self._check_open()
        state = self._groups.setdefault((topic, group_id), Members())
        member = EmbeddedGroup(self, topic, group_id, on_assigned, on_revoked)
        await state.change(self._partitions, add=member)
        return member

    async def begins(self, topic: str) -> dict[int, int]:
        self._check_open()
        return {p: self._parts[(topic, p)].first for p in range(self._partitions)}

    async def ends(self, topic: str) -> dict[int, int]:
        self._check_open()
        return {p: self._parts[(topic, p)].next for p in range(self._partitions)}

    async def committed(self, topic: str, group_id: str) -> dict[int, int]:
        self._check_open()
        return {p: self.offset_of(group_id, topic, p) for p in range(self._partitions)}

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        self._check_open()
        found: dict[int, int] = {}
        for p in range(self._partitions):
            part = self._parts[(topic, p)]
            # Times never run backwards: only when all of the ring is young enough, an older one may be, too.
            if part.first < part.ring_first and (not part.ring or part.ring[0].time_ms >= time_ms):
                older = await asyncio.to_thread(self._first_at, topic, p, time_ms)
                if older is not None:
                    found[p] = older
                    continue
            found[p] = next((r.offset for r in part.ring if r.time_ms >= time_ms), part.next)
        return found

    async def close(self) -> None:
        """Write what was handed over, then let go of the folder."""
        if self._closed:
            return
        self._closed = True
        if self._cleaning is not None:
            self._cleaning.cancel()
        self._jobs.put(_CLOSE)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_S)
        for events in self._readers.values():
            for event in events:
                event.set()
        if self._thread is None or not self._thread.is_alive():  # while it still writes, nobody else may
            self._drop_lock()

    # ---- writing

    def publish(self, record: Outgoing, writer: EmbeddedProducer) -> Future[int]:
        """Queue a record; its future gives the offset once it is committed."""
        if (record.topic, record.partition) not in self._parts:
            raise LogError(f"there is no {record.topic}[{record.partition}]")
        size = len(record.value or b"") + len(record.key or b"") + sum(len(k) + len(v) for k, v in record.headers)
        if size > MAX_RECORD_BYTES:
            raise RecordTooLarge(f"a record of {size} bytes; {MAX_RECORD_BYTES} fit")
        future: Future[int] = self._loop.create_future()
        if self._closed:
            future.set_exception(LogUnavailable("the log is closed"))
            return future
        if self._folder is None or not TOPICS[record.topic].durable:
            self._admit([(record, future)], self._clock())
        else:
            self._jobs.put((record, writer, future))
        return future

    def commit_offsets(self, group_id: str, topic: str, offsets: Mapping[int, int]) -> Future[int]:
        """Keep a group's offsets; resolved once they are on disk."""
        future: Future[int] = self._loop.create_future()
        if not self._closed:
            self._offsets.update({(group_id, topic, partition): offset for partition, offset in offsets.items()})
        if self._closed:
            future.set_exception(LogUnavailable("the log is closed"))
        elif self._folder is None:
            future.set_result(0)
        else:
            self._jobs.put((group_id, topic, dict(offsets), future))
        return future

    def _admit(self, written: list[tuple[Outgoing, Future[int]]], now: int) -> None:
        """On the loop: the records are in the log; number and date them as the writer did, show them, resolve their
        futures."""
        topics: set[str] = set()
        for record, future in written:
            part = self._parts[(record.topic, record.partition)]
            offset, part.next = part.next, part.next + 1
            part.last_ms = max(part.last_ms, now)
            durable = TOPICS[record.topic].durable
            part.keep(
                Incoming(
                    record.topic, record.partition, offset, part.last_ms, record.key, record.value, record.headers
                ),
                float("inf") if durable and self._folder is None else _RING_BYTES,
                only_here=self._folder is None or not durable,
            )
            topics.add(record.topic)
            if not future.done():
                future.set_result(offset)
        for topic in topics:
            for event in self._readers[topic]:
                event.set()

    def _write_loop(self) -> None:
        """The writing thread: everything that is queued goes into one transaction."""
        db = self._db
        nexts = {key: part.next for key, part in self._parts.items()}
        times = {key: part.last_ms for key, part in self._parts.items()}
        closing = False
        while not closing:
            jobs = [self._jobs.get()]
            with suppress(queue.Empty):
                while len(jobs) < 5000:
                    jobs.append(self._jobs.get_nowait())
            if _CLOSE in jobs:
                jobs = [job for job in jobs if job is not _CLOSE]
                closing = True
            self._write(db, jobs, nexts, times)
        if db is not None:
            db.close()

    def _write(
        self,
        db: sqlite3.Connection | None,
        jobs: list[object],
        nexts: dict[tuple[str, int], int],
        times: dict[tuple[str, int], int],
    ) -> None:
        if db is None or not jobs:
            return
        written: list[tuple[Outgoing, Future[int]]] = []
        resolved: list[Future[int]] = []
        refused: list[Future[int]] = []
        rows = []
        now = self._clock()
        ahead = dict[tuple[str, int], int]()
        try:
            if self.fail_next_commit:
                self.fail_next_commit = False
                raise sqlite3.OperationalError("a commit failed on purpose")
            for job in jobs:
                if callable(job):
                    job(db)
                elif isinstance(job, tuple) and isinstance(job[0], Outgoing):
                    record: Outgoing = job[0]
                    if job[1].failed:  # what was sent before it is not there: it must not be, either
                        refused.append(job[2])
                        continue
                    key = (record.topic, record.partition)
                    offset = ahead.get(key, nexts[key])
                    ahead[key] = offset + 1
                    times[key] = max(times[key], now)
                    rows.append((*key, offset, times[key], record.key, record.value, pack(record.headers)))
                    written.append((record, job[2]))
                elif isinstance(job, tuple):
                    group_id, topic, offsets, future = job
                    db.executemany(
                        "INSERT OR REPLACE INTO group_offsets VALUES (?, ?, ?, ?)",
                        [(group_id, topic, p, o) for p, o in offsets.items()],
                    )
                    resolved.append(future)
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.commit()
        except Exception as error:
            with suppress(sqlite3.Error):
                db.rollback()
            for job in jobs:
                if isinstance(job, tuple) and isinstance(job[0], Outgoing):
                    job[1].failed = True
            self._call(self._fail, _futures(jobs), str(error))
            return
        nexts.update(ahead)
        if refused:
            self._call(self._fail, refused, "an earlier write of the same producer failed")
        self._call(self._committed, written, resolved, now)

    def _committed(self, written: list[tuple[Outgoing, Future[int]]], resolved: list[Future[int]], now: int) -> None:
        self._admit(written, now)
        for future in resolved:
            if not future.done():
                future.set_result(0)

    def _fail(self, futures: list[Future[int]], why: str) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(LogUnavailable(f"the embedded log could not write: {why}"))

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    # ---- reading

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Sequence[Incoming] | None:
        """What memory has from `offset` on; None when it must come from SQLite. Raises RetentionGap."""
        part = self._parts[(topic, partition)]
        if offset < part.first:
            raise RetentionGap(topic, partition, offset, part.first)
        if offset >= part.next:
            return ()
        skip = offset - part.ring_first
        if skip < 0:
            return None
        end = min(skip + limit, len(part.ring))
        if end - skip < 100:
            # Readers are mostly near the end, which a deque reaches without walking through what lies before it.
            return [part.ring[place] for place in range(skip, end)]
        return list(islice(part.ring, skip, end))

    def read_older(self, topic: str, partition: int, offset: int, limit: int) -> list[Incoming]:
        """On another thread: records from SQLite, at most about as many bytes as a ring holds."""
        records: list[Incoming] = []
        size = 0
        db = self._connect(readonly=True)
        try:
            for o, t, k, v, h in db.execute(
                "SELECT offset, time_ms, key, value, headers FROM records WHERE topic = ? AND partition = ?"
                " AND offset >= ? ORDER BY offset LIMIT ?",
                (topic, partition, offset, min(limit, _FALLBACK_ROWS)),
            ):
                records.append(Incoming(topic, partition, o, t, k, v, unpack(h)))
                size += _weight(records[-1])
                if size >= _RING_BYTES:
                    break
        finally:
            db.close()
        return records

    def _first_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        db = self._connect(readonly=True)
        try:
            row = db.execute(
                "SELECT min(offset) FROM records WHERE topic = ? AND partition = ? AND time_ms >= ?",
                (topic, partition, time_ms),
            ).fetchone()
        finally:
            db.close()
        return None if row is None or row[0] is None else int(row[0])

    def subscribe(self, topic: str) -> asyncio.Event:
        """An event that is set whenever the topic has grown."""
        event = asyncio.Event()
        self._readers[topic].add(event)
        return event

    def unsubscribe(self, topic: str, event: asyncio.Event) -> None:
        self._readers[topic].discard(event)

    def offset_of(self, group_id: str, topic: str, partition: int) -> int:
        """The group's offset; the oldest record where there is none."""
        first = self._parts[(topic, partition)].first
        return max(self._offsets.get((group_id, topic, partition), first), first)

    async def leave(self, topic: str, group_id: str, member: EmbeddedGroup) -> None:
        await self._groups[(topic, group_id)].change(self._partitions, remove=member)

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")

    # ---- the folder

    def _take_lock(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            raise LogInUse(str(folder), int(text) if text.isdigit() else None) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._lock = handle

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _connect(self, readonly: bool = False) -> sqlite3.Connection:
        assert self._folder is not None
        db = sqlite3.connect(self._folder / "log.sqlite", check_same_thread=False, timeout=5.0)
        if readonly:
            db.execute("PRAGMA query_only = ON")
        return db

    def _prepare(self) -> None:
        """Make or check the tables, and learn where each partition stands."""
        if self._folder is None:
            return
        db = self._db = self._connect()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise TopicMismatch(
                f"{self._folder} was written by a newer Parley (version {version}, this one knows {SCHEMA_VERSION})"
            )
        if version == 0:
            db.execute("BEGIN")  # all or nothing, also when the process dies in between
            for table in _TABLES:
                db.execute(table)
            db.execute("INSERT INTO facts_of_the_log VALUES ('partitions', ?)", (self._partitions,))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.commit()
        kept = int(db.execute("SELECT value FROM facts_of_the_log WHERE name = 'partitions'").fetchone()[0])
        if kept != self._partitions:
            raise TopicMismatch(f"{self._folder} has {kept} partitions, {self._partitions} were asked for")
        for (topic, p), part in self._parts.items():
            first, last, time_ms = db.execute(
                "SELECT min(offset), max(offset), max(time_ms) FROM records WHERE topic = ? AND partition = ?",
                (topic, p),
            ).fetchone()
            if last is not None:
                part.first, part.next, part.last_ms = first, last + 1, time_ms
        for group_id, topic, p, offset in db.execute("SELECT * FROM group_offsets"):
            self._offsets[(group_id, topic, p)] = offset

    async def _retire_regularly(self) -> None:
        while True:
            await asyncio.sleep(_RETENTION_S)
            self.retire()

    def retire(self) -> None:
        """Let go of records that are older than their topic keeps; the newest of a partition always stays."""
        for (topic, p), part in self._parts.items():
            keep_ms = TOPICS[topic].retention_ms
            if keep_ms is None:
                continue
            oldest = self._clock() - keep_ms
            while len(part.ring) > 1 and part.ring[0].time_ms < oldest:
                part.ring_bytes -= _weight(part.ring.popleft())
                if self._folder is None or not TOPICS[topic].durable:
                    part.first = part.ring_first
            if self._folder is not None and TOPICS[topic].durable:
                self._jobs.put(self._deleter(topic, p, oldest))

    def _deleter(self, topic: str, partition: int, oldest_ms: int) -> Callable[[sqlite3.Connection], None]:
        def delete(db: sqlite3.Connection) -> None:
            row = db.execute(
                "SELECT max(offset) FROM records WHERE topic = ? AND partition = ? AND time_ms < ? AND offset <"
                " (SELECT max(offset) FROM records WHERE topic = ? AND partition = ?)",
                (topic, partition, oldest_ms, topic, partition),
            ).fetchone()
            if row[0] is not None:
                db.execute(
                    "DELETE FROM records WHERE topic = ? AND partition = ? AND offset <= ?", (topic, partition, row[0])
                )
                self._call(self._retired, topic, partition, row[0] + 1)

        return delete

    def _retired(self, topic: str, partition: int, first: int) -> None:
        part = self._parts[(topic, partition)]
        part.first = max(part.first, first)


def _futures(jobs: list[object]) -> list[Future[int]]:
    return [job[-1] for job in jobs if isinstance(job, tuple)]

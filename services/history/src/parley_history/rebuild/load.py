"""The fold of one partition into tables that begin empty: the same pure folds as the projector's, other ways to store.

Facts, messages and files only ever come, so they go out by COPY, batch by batch, before the statements that change
earlier ones. Threads, runs and the heads of streams change for long, so they are held in memory (`held`), and come into
their tables once, at the end; when there are more than fit, those that were touched longest ago are stored, and fetched
again when a fact needs them. Whatever is rare is stored by the projector's own statements.

A record that cannot be folded ends the load of its partition: from there on `follow` decides, as the projector does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from parley_events.contents import Contents
from parley_events.errors import ObjectError
from parley_events.log.port import Incoming
from parley_history.batch import Batch, Position, chunks, new_facts, read, whole_size
from parley_history.db import Connection, Pool
from parley_history.errors import Poison, RebuildRefused
from parley_history.projections import fold, needs
from parley_history.projections.rows import Needs, RunRow, ThreadRow, View
from parley_history.reads.answers import PROJECTION
from parley_history.rebuild.held import Held
from parley_history.whole import made_whole
from parley_history.writes import SQL, load, run_columns, store, thread_columns, upsert

CHUNK = 2000
"""Facts folded together: enough for COPY to pay, few enough for folds that look through what a batch has made."""
_WHOLE_BYTES = 16 * 1024 * 1024
"""How much there may be of records folded together that have large contents."""
_OBJECTS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The pauses before each try to fetch the objects of a record."""
_OBJECT_S = 30.0
_CLAIMS = 100
_INTO = re.compile(r"INSERT INTO (\w+)(?: AS \w+)? \(([^)]*)\)")

R = TypeVar("R")


def columns_of(name: str) -> tuple[str, list[str]]:
    """The table of a statement of `writes.sql` that inserts, and its columns."""
    into = _INTO.match(SQL[name])
    assert into is not None, name
    return into[1], [column.strip().strip('"') for column in into[2].split(",")]


async def copy(connection: Connection, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Rows in the columns of a statement of `writes.sql`, by COPY into its table."""
    if rows:
        table, columns = columns_of(name)
        await connection.copy(table, columns, rows)


class Load:
    """One partition. `room`: how many rows of each table it may hold; `end`: the offset at which it ends."""

    def __init__(self, partition: int, end: int, pool: Pool, contents: Contents, room: int) -> None:
        self._partition, self._pool, self._contents, self._room = partition, pool, contents, room
        self._threads: Held[ThreadRow] = Held()
        self._runs: Held[RunRow] = Held()
        self._streams: Held[tuple[str, int, str, int]] = Held()
        self._claims: list[int] = []
        self.position = Position()
        self.end = end
        self.ended = end == 0

    async def take(self, records: Sequence[Incoming]) -> None:
        """Fold the next records, as far as they lie before the end."""
        for start in range(0, len(records), CHUNK):
            chunk = [record for record in records[start : start + CHUNK] if record.offset < self.end]
            batch = read(self.position, self._partition, chunk)
            if not batch.lacking:
                await self._take(batch, chunk)
            else:
                for part in chunks(chunk, CHUNK, _WHOLE_BYTES, whole_size):
                    whole = await made_whole(self.position, part, self._fetched)
                    await self._take(read(self.position, self._partition, whole, fetched=True), whole)
                    if self.ended:
                        break
            if self.ended:
                return

    async def _take(self, batch: Batch, records: Sequence[Incoming]) -> None:
        try:
            await self._store(batch)
        except Poison as hole:
            before = [record for record in records if record.offset < hole.offset]
            batch = read(self.position, self._partition, before, fetched=True)
            batch.poison = hole
            await self._store(batch)
        self.ended = batch.poison is not None or self.position.next_offset >= self.end

    async def finish(self) -> None:
        """Store what is held, and where the partition stands."""
        async with self._pool.transaction() as con:
            await self._spill(con, 0)
            await con.run(
                SQL["place"],
                PROJECTION,
                self._partition,
                self.position.next_offset,
                self.position.epoch,
                self.position.last_number,
                self._claims,
            )

    async def _store(self, batch: Batch) -> None:
        facts = batch.facts
        if facts:
            async with self._pool.transaction() as con:
                await self._fold(con, batch)
        self._claims = (self._claims + batch.claims)[-_CLAIMS:]
        self.position = batch.end

    async def _fold(self, con: Connection, batch: Batch) -> None:
        streams = {fact.stream for fact, _ in batch.facts}
        if missing := self._streams.missing(streams):
            rows = await con.fetch(SQL["load_heads"], missing)
            self._streams.fetched(
                {row["key"]: (row["key"], self._partition, row["workspace_id"], row["seq"]) for row in rows}
            )
        held = self._streams.rows
        fresh, heads = new_facts(batch, {key: held[key][3] for key in streams if key in held})
        facts = [fact for fact, _ in fresh]
        wanted = needs(facts)
        lacking = Needs(
            threads=set(self._threads.missing(wanted.threads)),
            runs=set(self._runs.missing(wanted.runs)),
            keys=wanted.keys,
            workspaces=wanted.workspaces,
            approvals=wanted.approvals,
        )
        loaded = await load(con, lacking)
        self._threads.fetched({row.id: row for row in loaded.threads.all()})
        self._runs.fetched({row.id: row for row in loaded.runs.all()})
        view = View(
            self._threads.of(wanted.threads),
            self._runs.of(wanted.runs),
            loaded.keys.all(),
            loaded.workspaces.all(),
            loaded.approvals.all(),
        )
        fold(view, self._partition, facts)
        view.facts = [row for _, row in fresh]
        self._threads.take(view.threads.changed)
        self._runs.take(view.runs.changed)
        self._streams.take({key: (key, self._partition, *head) for key, head in heads.items()})
        view.threads.changed.clear()
        view.runs.changed.clear()
        await store(con, view, {}, copy)
        if max(len(self._threads.rows), len(self._runs.rows), len(self._streams.rows)) > self._room:
            await self._spill(con, self._room // 2)

    async def _spill(self, con: Connection, keep: int) -> None:
        """Bring what is held into the tables, and let go of all but `keep` rows of each."""
        await _out(con, "put_threads", self._threads, lambda threads: [thread_columns(thread) for thread in threads])
        await _out(con, "put_runs", self._runs, lambda runs: [run_columns(run) for run in runs])
        await _out(con, "put_streams", self._streams, list)
        for held in (self._threads, self._runs, self._streams):
            held.forget(keep)

    async def _fetched(self, record: Incoming) -> Incoming:
        """The record with its large contents. Raises RebuildRefused."""
        said = ""
        for pause_s in _OBJECTS_S:
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(_OBJECT_S):
                    return await self._contents.whole(record)
            except (ObjectError, TimeoutError) as error:
                said = str(error) or "the object store does not answer in time"
        raise RebuildRefused(
            f"the contents of offset {record.offset} of partition {self._partition} cannot be had: {said}"
        )


async def _out(con: Connection, name: str, held: Held[R], shape: Callable[[list[R]], list[Sequence[Any]]]) -> None:
    new, changed = held.spill()
    # Once rows are in the table alone, one of them might come anew.
    await (upsert if held.gone else copy)(con, name, shape(new))
    await upsert(con, name, shape(changed))

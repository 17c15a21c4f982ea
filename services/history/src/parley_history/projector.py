"""The projector: from `parley.events` to PostgreSQL, one transaction per batch: the positions, then the rows.

Every replica runs one. Partitions are spread by session advisory locks: who holds a partition's lock tails it, the
others try again each second, so when a replica dies its connection's locks are free and another goes on within about a
second. The locks only save work: what makes two projectors on one partition harmless is the compare-and-set of the
position within the transaction. Large contents are fetched first; a partition whose objects cannot be had stands still
and is tried again, the others go on. A replica may also take over without the lock, when the holder has not moved for
`STALLED_S` though there is more to read (a stopped process keeps its connection).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parley_events.clock import Clock, system_clock
from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.errors import LogError, LogUnavailable, ObjectError, RetentionGap
from parley_events.log.port import Incoming, Reading, Tail
from parley_history import stops
from parley_history.batch import Batch, OffsetGap, Position, body_size, chunks, new_facts, read, whole_size
from parley_history.db import Connection, Pool, connect
from parley_history.errors import BadData, HistoryError, Moved, Poison, Unavailable
from parley_history.migrate import check_schema
from parley_history.positions import Watch
from parley_history.projections import fold, needs
from parley_history.reads.answers import PROJECTION
from parley_history.stops import Stop
from parley_history.telemetry import Instruments
from parley_history.whole import made_whole
from parley_history.writes import SQL, load, store

logger = logging.getLogger(__name__)

BATCH_BYTES = 16 * 1024 * 1024
TICK_S = 1.0
"""How often locks are tried, and the longest wait for records."""
STALLED_S = 5.0
GATHER_S = 0.1
"""The pause after a batch in which the next one gathers, unless a reader waits for the view."""
_OBJECTS_S = 3.0
"""How long the objects of a chunk may take at first; twice as long with each try, up to `_MOST_OBJECTS_S`."""
_MOST_OBJECTS_S = 30.0
_SLICE = 128
"""Records decoded before other tasks get a turn."""
_STEADY_S = 10.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Health:
    """What readiness says of the projector. `stopped`: partitions that need a person, and why; `waiting`: those whose
    objects cannot be had for now."""

    started: bool = False
    reason: str = "starting"
    stopped: dict[int, str] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    folded: int = 0
    fenced: int = 0
    polled_at: float = 0.0
    """When the log was last asked for records (by the loop's clock), or something away was waited for."""


def lock_class(schema: str) -> int:
    """The first half of the key of a partition's advisory lock; the partition is the other."""
    return zlib.crc32(f"parley.history/{schema}".encode()) - 2**31


@dataclass(slots=True)
class _Wait:
    """A partition whose objects cannot be had: how often it was tried, and when it is tried again."""

    tries: int
    until: float


class Projector:
    """Folds the partitions that it holds. `dsn` is the projector role's, for the connection that holds locks."""

    def __init__(
        self,
        pool: Pool,
        dsn: str,
        log: Reading,
        watch: Watch,
        contents: Contents,
        *,
        schema: str,
        batch: int = 1000,
        instruments: Instruments | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._pool, self._dsn, self._log, self._watch, self._schema = pool, dsn, log, watch, schema
        self._contents, self._instruments = contents, instruments or Instruments()
        self._clock = clock
        self._waits: dict[int, _Wait] = {}
        self._limit = batch
        self._lock_class = lock_class(schema)
        self._positions: dict[int, Position] = {}
        self._held: set[int] = set()
        self._stalled: dict[int, tuple[int, float]] = {}
        self._stops: dict[int, Stop] = {}
        self._unnoted: set[int] = set()
        """Partitions whose stop is not on record yet."""
        self._skips: dict[int, frozenset[int]] = {}
        """Offsets that are skipped, as they were when positions were last asked for."""
        self.health = Health()

    @property
    def stands(self) -> dict[int, int]:
        """The next offset of each partition that is folded here."""
        return {partition: position.next_offset for partition, position in self._positions.items()}

    async def run(self) -> None:
        """Fold until cancelled. PostgreSQL or the log away: wait, and go on."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            began = clock()
            try:
                await self._session()
            except (HistoryError, LogError) as error:
                if clock() - began > _STEADY_S:
                    failures = 0
                self.health.reason = str(error)
                if failures % 20 == 0:
                    logger.warning("the projector waits: %s", error)
            self.health.polled_at = clock()
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    async def _session(self) -> None:
        """Fold until something is away."""
        partitions = self._log.partitions
        await self._start(partitions)
        locks = await connect(self._dsn, schema=self._schema, timeout_s=5.0)
        try:
            tail = await self._log.tail(EVENTS_TOPIC, {})
            try:
                self._positions.clear()
                self._held.clear()
                self._stalled.clear()
                self._waits.clear()
                self.health.waiting.clear()
                self.health.started, self.health.reason = True, ""
                await self._fold_on(locks, tail, partitions)
            finally:
                await tail.close()
        finally:
            await locks.close()

    async def _start(self, partitions: int) -> None:
        async with self._pool.transaction() as con:
            await check_schema(con)
            await con.run(SQL["start_positions"], PROJECTION, partitions)
            rows = await con.fetch(SQL["positions"], PROJECTION)
        if len(rows) != partitions:
            raise HistoryError(
                f"the view has {len(rows)} partitions, the log {partitions}: the number of partitions must not change"
            )
        self._watch.learn({row["partition"]: row["next_offset"] for row in rows}, {})

    async def _fold_on(self, locks: Connection, tail: Tail, partitions: int) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time()
        while True:
            self.health.polled_at = loop.time()
            if loop.time() >= next_tick:
                await self._tick(locks, tail, partitions)
                next_tick = loop.time() + TICK_S
            try:
                records = await tail.batch(timeout_s=max(0.01, next_tick - loop.time()), limit=self._limit)
            except RetentionGap as gap:
                self._stop(tail, gap.partition, f"records were deleted before they were read: {gap}")
                continue
            if records:
                await self._apply_all(tail, records)
                if len(records) < self._limit:
                    await self._watch.wanted(GATHER_S)

    async def _tick(self, locks: Connection, tail: Tail, partitions: int) -> None:
        """Try for what is not held; raises Unavailable when the connection with the locks is gone."""
        missing = [p for p in range(partitions) if p not in self._held]
        rows = await locks.fetch(SQL["lock_partitions"], self._lock_class, missing)
        taken = {row["partition"] for row in rows}
        self._held |= taken
        if len(taken) < len(missing):
            # What is folded elsewhere is known here, too, at most a tick late: answers say how far the view is.
            others = await self._stands()
            self._watch.learn({p: others[p].next_offset for p in missing}, {})
        if self._stops:
            await self._go_on_beyond(tail)
        now = asyncio.get_running_loop().time()
        again = [p for p, wait in self._waits.items() if p not in self._positions and wait.until <= now]
        idle = [
            p for p in missing if p not in self._positions and p not in self.health.stopped and p not in self._waits
        ]
        if again:
            stands = await self._stands()
            for p in again:
                self._take(tail, p, stands[p])
        if not idle:
            return
        stands = await self._stands()
        adopted = await self._frozen([p for p in idle if p not in taken], stands) if len(taken) < len(idle) else set()
        for p in idle:
            if p in taken or p in adopted:
                self._take(tail, p, stands[p])

    async def _frozen(self, others: Sequence[int], stands: dict[int, Position]) -> set[int]:
        """Partitions held elsewhere, with more to read, whose position has not moved for a while."""
        now = asyncio.get_running_loop().time()
        try:
            ends = await self._log.ends(EVENTS_TOPIC)
        except LogUnavailable:
            return set()
        found = set()
        for p in others:
            offset = stands[p].next_offset
            before, since = self._stalled.get(p, (-1, now))
            if offset >= ends[p] or offset != before:
                self._stalled[p] = (offset, now)
            elif now - since >= STALLED_S:
                logger.warning("partition %d stands still elsewhere at %d of %d: folding it here", p, offset, ends[p])
                found.add(p)
                del self._stalled[p]
        return found

    async def _stands(self) -> dict[int, Position]:
        async with self._pool.connection() as con:
            rows = await con.fetch(SQL["positions"], PROJECTION)
            self._skips = await stops.skipped_offsets(con)
        return {row["partition"]: Position(row["next_offset"], row["epoch"], row["last_number"]) for row in rows}

    def _take(self, tail: Tail, partition: int, position: Position) -> None:
        self._positions[partition] = position
        tail.add(partition, position.next_offset)

    def _stop(self, tail: Tail, partition: int, fault: str, record: Incoming | None = None) -> None:
        """Let a partition stand still until somebody sees to it; `record`: what cannot be folded."""
        tail.remove(partition)
        position = self._positions.pop(partition, Position())
        self._stops[partition] = Stop(position.next_offset if record is None else record.offset, fault, record)
        self._unnoted.add(partition)
        self.health.stopped[partition] = fault
        logger.error("partition %d of the view is stopped, the others go on: %s", partition, fault)

    async def _go_on_beyond(self, tail: Tail) -> None:
        """Put stops on record, and fold on where the record was skipped, or another replica is beyond it."""
        async with self._pool.connection() as con:
            for partition in list(self._unnoted):
                try:
                    await stops.note(con, partition, self._stops[partition], self._clock())
                except BadData as error:
                    logger.error("the stop of partition %d cannot be put on record: %s", partition, error)
                self._unnoted.discard(partition)
        stands = await self._stands()
        for partition, stop in list(self._stops.items()):
            position = stands[partition]
            if position.next_offset == stop.offset and stop.offset not in self._skips.get(partition, ()):
                continue
            logger.warning("partition %d of the view goes on from %d", partition, position.next_offset)
            del self._stops[partition], self.health.stopped[partition]
            if partition in self._held:
                self._take(tail, partition, position)

    async def _apply_all(self, tail: Tail, records: Sequence[Incoming]) -> None:
        by_partition: dict[int, list[Incoming]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        if len(by_partition) > 1 and await self._fold_together(by_partition):
            return
        async with asyncio.TaskGroup() as group:
            for partition, own in by_partition.items():
                group.create_task(self._apply(tail, partition, own))

    async def _fold_together(self, by_partition: Mapping[int, Sequence[Incoming]]) -> bool:
        """Fold what came of several partitions in one transaction, which costs little more than that of one alone.

        False: nothing was folded, because it is too much for one, or something is wrong with a part of it: each
        partition by itself then finds out what, and the others go on.
        """
        if sum(body_size(record) for records in by_partition.values() for record in records) > BATCH_BYTES:
            return False
        batches: dict[int, Batch] = {}
        try:
            for partition, records in by_partition.items():
                position = self._positions.get(partition)
                if position is None:
                    continue
                batch = batches[partition] = await self._read(partition, position, records)
                if batch.poison is not None or batch.lacking:
                    return False
            await self._commit(batches)
        except (HistoryError, OffsetGap):
            return False
        except Exception:
            logger.exception("folding %d partitions together failed", len(by_partition))
            return False
        self.health.reason = ""
        return True

    async def _apply(self, tail: Tail, partition: int, records: Sequence[Incoming]) -> None:
        """Fold the records of one partition, however long PostgreSQL is away."""
        todo = deque(chunks(records, self._limit, BATCH_BYTES))
        while todo:
            chunk = todo.popleft()
            failures = 0
            while True:
                position = self._positions.get(partition)
                if position is None:
                    return
                try:
                    poison = await self._fold(partition, position, chunk)
                    if poison is not None:
                        record = next(record for record in chunk if record.offset == poison.offset)
                        self._stop(tail, partition, f"a record cannot be folded: {poison}", record)
                        return
                    self.health.reason = ""
                    reached = self._positions[partition].next_offset
                    if chunk[-1].offset >= reached:
                        todo.appendleft([record for record in chunk if record.offset >= reached])
                    break
                except Moved:
                    # Another projector was first, or our own commit came through before the connection broke.
                    try:
                        stands = await self._stands()
                    except Unavailable:
                        continue
                    logger.info("partition %d was moved to %d", partition, stands[partition].next_offset)
                    if partition in self._held:
                        self._take(tail, partition, stands[partition])
                    else:
                        # It was taken over from a holder that stood still, and goes on now: it is the holder's again.
                        tail.remove(partition)
                        del self._positions[partition]
                    return
                except OffsetGap as gap:
                    self._stop(tail, partition, str(gap))
                    return
                except BadData as error:
                    if len(chunk) > 1:
                        todo.extendleft([record] for record in reversed(chunk))
                        break
                    fault = f"PostgreSQL refuses a row of offset {chunk[0].offset}: {error}"
                    self._stop(tail, partition, fault, chunk[0])
                    return
                except (ObjectError, TimeoutError) as error:
                    self._wait(tail, partition, position, error)
                    return
                except Unavailable as error:
                    self.health.reason = str(error)
                    if failures % 20 == 0:
                        logger.warning("partition %d waits: %s", partition, error)
                    await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                    failures += 1
                except Exception as error:
                    # A bug in a projection: it would come again with every try, and must not hold up the others. One by
                    # one, what comes before the fact is folded, and the fact can be named.
                    if len(chunk) > 1:
                        todo.extendleft([record] for record in reversed(chunk))
                        break
                    logger.exception("folding partition %d at %d failed", partition, chunk[0].offset)
                    fault = f"the fact of offset {chunk[0].offset} fails: {type(error).__name__}"
                    self._stop(tail, partition, fault, chunk[0])
                    return

    async def _whole(self, partition: int, position: Position, records: Sequence[Incoming]) -> Sequence[Incoming]:
        """The records with their large contents, as far as they will be believed."""
        wait = self._waits.get(partition)
        async with asyncio.timeout(min(_OBJECTS_S * 2 ** (wait.tries if wait else 0), _MOST_OBJECTS_S)):
            return await made_whole(position, records, self._contents.whole, self._skips.get(partition, ()))

    def _go_on(self, partition: int) -> None:
        """The partition does not wait for objects any more."""
        if self._waits.pop(partition, None) is not None:
            self.health.waiting.pop(partition, None)

    def _wait(self, tail: Tail, partition: int, position: Position, error: Exception) -> None:
        """Let a partition stand still for a while: its objects cannot be had. The others go on."""
        tries = self._waits[partition].tries + 1 if partition in self._waits else 1
        pause_s = min(TICK_S * 2 ** (tries - 1), _MOST_OBJECTS_S)
        self._waits[partition] = _Wait(tries, asyncio.get_running_loop().time() + pause_s)
        tail.remove(partition)
        self._positions.pop(partition, None)
        reason = str(error) or "the object store does not answer in time"
        self.health.waiting[partition] = f"partition {partition} stands still at {position.next_offset}: {reason}"
        logger.warning("%s; trying again in %g s", self.health.waiting[partition], pause_s)

    async def _fold(self, partition: int, position: Position, records: Sequence[Incoming]) -> Poison | None:
        """One transaction. Poison when a record cannot be folded; what lies before it is in the view then. Of records
        with contents elsewhere only as many are folded as are not too much with those."""
        batch = await self._read(partition, position, records)
        if batch.lacking:
            records = next(iter(chunks(records, self._limit, BATCH_BYTES, whole_size)))
            records = await self._whole(partition, position, records)
            batch = await self._read(partition, position, records, fetched=True)
        self._go_on(partition)
        while True:
            try:
                await self._commit({partition: batch})
                return batch.poison
            except Poison as hole:
                before = [record for record in records if record.offset < hole.offset]
                batch = await self._read(partition, position, before, fetched=True)
                batch.poison = hole

    async def _commit(self, batches: Mapping[int, Batch]) -> None:
        """One transaction: every position from where its batch starts to where it ends, and the rows in between.

        Raises Moved when one of the positions is not there any more, Poison for a hole in a stream.
        """
        moves = {p: batch for p, batch in batches.items() if batch.end.next_offset > batch.start.next_offset}
        if not moves:
            return
        with self._instruments.folding(moves):
            await self._store(moves)

    async def _store(self, moves: Mapping[int, Batch]) -> None:
        heads: dict[str, tuple[int, str, int]] = {}
        async with self._pool.transaction() as con:
            moved = await con.run(
                SQL["move"],
                PROJECTION,
                list(moves),
                [batch.start.next_offset for batch in moves.values()],
                [batch.start.epoch for batch in moves.values()],
                [batch.end.next_offset for batch in moves.values()],
                [batch.end.epoch for batch in moves.values()],
                [batch.end.last_number for batch in moves.values()],
                [_array(batch.claims) for batch in moves.values()],
            )
            if moved != len(moves):
                raise Moved
            streams = list({fact.stream for batch in moves.values() for fact, _ in batch.facts})
            if streams:
                seqs = {row["key"]: row["seq"] for row in await con.fetch(SQL["load_streams"], streams)}
                fresh = {}
                for partition, batch in moves.items():
                    fresh[partition], ends = new_facts(batch, seqs)
                    heads.update((stream, (partition, *head)) for stream, head in ends.items())
                view = await load(con, needs(fact for facts in fresh.values() for fact, _ in facts))
                for partition, facts in fresh.items():
                    view.facts.extend(row for _, row in facts)
                    fold(view, partition, [fact for fact, _ in facts])
                await store(con, view, heads)
        for partition, batch in moves.items():
            self._positions[partition] = batch.end
            self.health.folded += len(batch.facts)
            self.health.fenced += batch.fenced
        ends_at = {partition: batch.end.next_offset for partition, batch in moves.items()}
        self._watch.learn(ends_at, {stream: seq for stream, (_, _, seq) in heads.items()})

    async def _read(
        self, partition: int, position: Position, records: Sequence[Incoming], fetched: bool = False
    ) -> Batch:
        """`batch.read`, a slice at a time."""
        skips = self._skips.get(partition, frozenset())
        whole = read(position, partition, records[:_SLICE], skips, fetched)
        for start in range(_SLICE, len(records), _SLICE):
            if whole.poison is not None or whole.lacking:
                break
            await asyncio.sleep(0)
            more = read(whole.end, partition, records[start : start + _SLICE], skips, fetched)
            whole.facts.extend(more.facts)
            whole.claims.extend(more.claims)
            whole.fenced += more.fenced
            whole.end, whole.poison, whole.lacking = more.end, more.poison, more.lacking
        return whole


def _array(numbers: Sequence[int]) -> str:
    """An array of PostgreSQL as text, since arrays of arrays cannot be unnested; "" for an empty one."""
    return f"{{{','.join(map(str, numbers))}}}" if numbers else ""


async def stopped(task: asyncio.Task[None], grace_s: float = 3.0) -> None:
    """Cancel the task and wait until it has ended, at most `grace_s`."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.gather(task, return_exceptions=True)), grace_s)

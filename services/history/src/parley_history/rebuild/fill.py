"""The fold of several partitions into a schema that is empty: read side by side, each loaded (`load`) in its order.

`run` calls it for all partitions, or has `spread` call it for some of them in each of several processes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.errors import RetentionGap
from parley_events.garbage import seldom_collected
from parley_events.log.port import Incoming, Reading
from parley_history.db import Pool
from parley_history.errors import RebuildRefused
from parley_history.rebuild.load import Load
from parley_history.rebuild.schemas import owner_dsn
from parley_history.settings import Settings

ROOM = 50_000
"""How many threads, how many runs and how many streams are held in memory, over all partitions."""
_CONNECTIONS = 4
_FETCH = 2000
_IN_FLIGHT = 3
_SILENCE_S = 60.0
_IN_HAND = 200_000
"""More objects than the records in flight come to: they are looked through only when rows that stay have come."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is: `stage` is load, indexes, compare or switch; records, or tables."""

    stage: str
    done: int = 0
    total: int = 0


Tell = Callable[[Progress], None]


def room_of(ends: Collection[int]) -> int:
    """How many rows of each table a partition may hold in memory, where these are all partitions."""
    return max(2, ROOM // max(1, len(ends)))


async def fill(
    settings: Settings, log: Reading, contents: Contents, schema: str, ends: Mapping[int, int], room: int, tell: Tell
) -> None:
    """Fold the partitions that `ends` names from their beginning to there. Raises RebuildRefused, and what PostgreSQL
    or the log being away raise."""
    pool = Pool(owner_dsn(settings), schema=schema, size=_CONNECTIONS, timeout_s=600.0)
    await pool.open()
    try:
        loads = {p: Load(p, end, pool, contents, room) for p, end in ends.items()}
        with seldom_collected(_IN_HAND):
            await _fold_all(log, loads, sum(ends.values()), tell)
        async with asyncio.TaskGroup() as group:
            for load in loads.values():
                group.create_task(load.finish())
    except BaseExceptionGroup as several:
        # One partition's failure ends the others' work; one reason is enough.
        raise first_of(several) from None
    finally:
        await pool.close()


async def _fold_all(log: Reading, loads: Mapping[int, Load], total: int, tell: Tell) -> None:
    """Read all partitions at once, each in its order; while one batch is being stored the next ones are decoded."""
    clock = asyncio.get_running_loop().time
    heard = clock()
    last: dict[int, asyncio.Task[None]] = {}
    flights: deque[list[asyncio.Task[None]]] = deque()
    tail = await log.tail(EVENTS_TOPIC, {p: 0 for p, load in loads.items() if not load.ended})
    reading = {p for p, load in loads.items() if not load.ended}
    try:
        async with asyncio.TaskGroup() as group:
            while reading:
                try:
                    records = await tail.batch(timeout_s=1.0, limit=_FETCH)
                except RetentionGap as gap:
                    raise RebuildRefused(f"records were deleted before they were read: {gap}") from None
                if records:
                    heard = clock()
                elif clock() - heard > _SILENCE_S:
                    raise RebuildRefused(f"the log gave no more records for {_SILENCE_S:g} s")
                parts: dict[int, list[Incoming]] = {}
                for record in records:
                    parts.setdefault(record.partition, []).append(record)
                for partition, part in parts.items():
                    last[partition] = group.create_task(_after(last.get(partition), loads[partition], part))
                flights.append([last[partition] for partition in parts])
                if len(flights) >= _IN_FLIGHT:
                    await asyncio.gather(*flights.popleft())
                tell(Progress("load", sum(load.position.next_offset for load in loads.values()), total))
                for partition in [p for p in reading if loads[p].ended or tail.position(p) >= loads[p].end]:
                    reading.discard(partition)
                    tail.remove(partition)
    finally:
        await tail.close()
    tell(Progress("load", total, total))


async def _after(before: asyncio.Task[None] | None, load: Load, records: list[Incoming]) -> None:
    if before is not None:
        await before
    await load.take(records)


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

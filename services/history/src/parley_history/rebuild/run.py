"""A rebuild from its first record to the switch, and the way back. One at a time: the owner's session holds a lock.

Whatever fails leaves the live view as it was; what was built is dropped by the next rebuild, which begins anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.errors import RetentionGap
from parley_events.log.port import Incoming, Reading
from parley_events.objects import Objects
from parley_history.db import Connection, Pool, connect
from parley_history.errors import RebuildRefused, SchemaNotReady, SchemaTooNew, Unavailable
from parley_history.migrate import check_schema
from parley_history.rebuild import schemas
from parley_history.rebuild.compare import Difference, differences
from parley_history.rebuild.follow import Follower
from parley_history.rebuild.load import Load
from parley_history.rebuild.schemas import LONG_S, before_of, next_of, owner_dsn
from parley_history.rebuild.switch import exchange, held, offsets, stands
from parley_history.settings import Settings

logger = logging.getLogger(__name__)

ROOM = 50_000
"""How many threads, how many runs and how many streams are held in memory, over all partitions."""
_CONNECTIONS = 4
_FETCH = 4000
_IN_FLIGHT = 3
_SILENCE_S = 60.0
_TRIES = 10
_LONGEST_NAME = 50
"""PostgreSQL cuts names at 63 characters: a longer one and the name made of it might be the same."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is: `stage` is load, indexes, compare or switch; records, or tables."""

    stage: str
    done: int = 0
    total: int = 0


Tell = Callable[[Progress], None]


@dataclass(slots=True)
class Outcome:
    """`switched`: the rebuilt schema is the live one now."""

    records: int = 0
    seconds: float = 0.0
    switched: bool = False
    differences: list[Difference] = field(default_factory=list)


async def rebuild(
    settings: Settings,
    log: Reading,
    objects: Objects,
    *,
    accept: bool = False,
    drop: bool = False,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Fold the log from its beginning into a new schema, compare it with the live one, and switch to it.

    `accept`: also when they differ. `drop`: the schema that an earlier rebuild kept for going back is dropped, just
    before the switch. Raises RebuildRefused, SettingsError, and what PostgreSQL or the log being away raise.
    """
    live, new, kept = settings.schema, next_of(settings.schema), before_of(settings.schema)
    contents = Contents(objects)
    async with _alone(settings) as (owner, projector):
        if await schemas.exists(owner, kept) and not drop:
            raise RebuildRefused(
                f"the view of before the last rebuild is still there ({kept}), and only one is kept: --drop drops it"
            )
        await check_schema(projector)
        began = asyncio.get_running_loop().time()
        ends = offsets(await stands(projector, live))
        await _whole(log, ends)
        indexes = await schemas.make(settings, new)
        await schemas.take_over(projector, live, new)
        await _load(settings, log, contents, new, ends, tell)
        outcome = Outcome(sum(ends.values()), asyncio.get_running_loop().time() - began)
        tell(Progress("indexes"))
        await schemas.make_ready(settings, new, indexes)
        follower = Follower(settings, log, contents, new)
        try:
            await follower.start()
            outcome.differences = await _compare(settings, owner, projector, live, new, follower, tell)
            if not outcome.differences or accept:
                tell(Progress("switch"))
                await schemas.drop(owner, kept)
                await exchange(owner, projector, live, new, kept, follower)
                outcome.switched = True
        finally:
            await follower.stop()
        return outcome


async def back(settings: Settings, log: Reading, objects: Objects, *, tell: Tell = lambda _: None) -> Outcome:
    """Switch back to the schema that was live before, once it has all that the live one has; that one is kept then.
    Raises as `rebuild` does."""
    live, kept = settings.schema, before_of(settings.schema)
    async with _alone(settings) as (owner, projector):
        if not await schemas.exists(owner, kept):
            raise RebuildRefused(f"there is no view to go back to: no rebuild has left one ({kept} is not there)")
        old = await connect(settings.postgres_projector, schema=kept, timeout_s=LONG_S)
        try:
            await check_schema(old)
        except (SchemaNotReady, SchemaTooNew) as error:
            raise RebuildRefused(
                f"{kept} is not of this code's version: there is no way back to it ({error})"
            ) from None
        finally:
            await old.close()
        before = offsets(await stands(projector, kept))
        begins = await log.begins(EVENTS_TOPIC)
        if any(begins.get(partition, 0) > offset for partition, offset in before.items()):
            raise RebuildRefused("records that the kept view lacks were deleted from the log: it cannot catch up")
        tell(Progress("switch"))
        follower = Follower(settings, log, Contents(objects), kept)
        try:
            await exchange(owner, projector, live, kept, kept, follower)
        finally:
            await follower.stop()
        return Outcome(switched=True)


async def keeps(settings: Settings) -> str | None:
    """The schema that an earlier rebuild kept, if there is one."""
    kept = before_of(settings.schema)
    owner = await connect(owner_dsn(settings), schema=settings.schema, timeout_s=settings.query_timeout_s)
    try:
        return kept if await schemas.exists(owner, kept) else None
    finally:
        await owner.close()


@asynccontextmanager
async def _alone(settings: Settings) -> AsyncIterator[tuple[Connection, Connection]]:
    """Connections of the owner, with the lock that one rebuild has, and of the projector's role."""
    if len(settings.schema) > _LONGEST_NAME:
        raise RebuildRefused(
            f"the schema's name is too long to have others beside it: at most {_LONGEST_NAME} characters"
        )
    async with AsyncExitStack() as stack:
        owner = await connect(owner_dsn(settings), schema=settings.schema, timeout_s=LONG_S)
        stack.push_async_callback(owner.close)
        lock = zlib.crc32(f"parley.history.rebuild/{settings.schema}".encode())
        if not await owner.value("SELECT pg_try_advisory_lock($1)", lock):
            raise RebuildRefused("a rebuild, or a way back, is at work already: wait until it has ended")
        projector = await connect(settings.postgres_projector, schema=settings.schema, timeout_s=LONG_S)
        stack.push_async_callback(projector.close)
        yield owner, projector


async def _whole(log: Reading, ends: Mapping[int, int]) -> None:
    """RebuildRefused unless the log still has all that the live view was folded from."""
    if len(ends) != log.partitions:
        raise RebuildRefused(
            f"the live view has {len(ends)} partitions, the log {log.partitions}: the view was never started, or it is"
            " another log's"
        )
    for partition, first in (await log.begins(EVENTS_TOPIC)).items():
        if first > 0 and ends[partition] > 0:
            raise RebuildRefused(
                f"the records of partition {partition} before offset {first} were deleted from the log: what they said"
                " is in the live view alone, and a rebuild would lose it"
            )
    for partition, end in (await log.ends(EVENTS_TOPIC)).items():
        if end < ends[partition]:
            raise RebuildRefused(
                f"partition {partition} of the log ends at {end}, the live view is at {ends[partition]}: that is "
                "another log"
            )


async def _load(
    settings: Settings, log: Reading, contents: Contents, schema: str, ends: Mapping[int, int], tell: Tell
) -> None:
    pool = Pool(owner_dsn(settings), schema=schema, size=_CONNECTIONS, timeout_s=600.0)
    await pool.open()
    try:
        room = max(2, ROOM // len(ends))
        loads = {p: Load(p, end, pool, contents, room) for p, end in ends.items()}
        with _seldom_collecting():
            await _fold_all(log, loads, sum(ends.values()), tell)
        async with asyncio.TaskGroup() as group:
            for load in loads.values():
                group.create_task(load.finish())
    except BaseExceptionGroup as several:
        # One partition's failure ends the others' work; one reason is enough.
        raise _first(several) from None
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


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """A load makes many objects and no cycles of them: looking for those each time took a quarter of it."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _after(before: asyncio.Task[None] | None, load: Load, records: list[Incoming]) -> None:
    if before is not None:
        await before
    await load.take(records)


async def _compare(
    settings: Settings,
    owner: Connection,
    projector: Connection,
    live: str,
    new: str,
    follower: Follower,
    tell: Tell,
) -> list[Difference]:
    """What differs between the two at the same positions."""
    reading = await connect(settings.postgres_projector, schema=new, timeout_s=LONG_S)
    try:
        for attempt in range(_TRIES):
            try:
                async with held(owner, projector, live, new, follower):
                    await reading.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    at = await stands(reading, live), await stands(reading, new)
                break
            except Unavailable as error:
                logger.info("the comparison begins again: %s", error)
                await reading.run("ROLLBACK")
                if attempt == _TRIES - 1:
                    raise
        if at[0] != at[1]:
            raise RebuildRefused(f"the two views are at other positions: {at[0]} and {at[1]}")
        return await differences(reading, live, new, lambda done, total: tell(Progress("compare", done, total)))
    finally:
        await reading.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

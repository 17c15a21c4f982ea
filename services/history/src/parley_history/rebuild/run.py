"""A rebuild from its first record to the switch, and the way back. One at a time: the owner's session holds a lock.

Whatever fails leaves the live view as it was; what was built is dropped by the next rebuild, which begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.log.port import Reading
from parley_events.objects import Objects
from parley_history.db import Connection, connect
from parley_history.errors import RebuildRefused, SchemaNotReady, SchemaTooNew, Unavailable
from parley_history.migrate import check_schema
from parley_history.rebuild import schemas
from parley_history.rebuild.compare import Difference, differences
from parley_history.rebuild.fill import Progress, Tell, fill, room_of
from parley_history.rebuild.follow import Follower
from parley_history.rebuild.schemas import LONG_S, before_of, next_of, owner_dsn
from parley_history.rebuild.spread import WORTH_IT, spread
from parley_history.rebuild.switch import exchange, held, offsets, stands
from parley_history.settings import Settings

logger = logging.getLogger(__name__)

_TRIES = 10
_LONGEST_NAME = 50
"""PostgreSQL cuts names at 63 characters: a longer one and the name made of it might be the same."""


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
    processes: int = 1,
) -> Outcome:
    """Fold the log from its beginning into a new schema, compare it with the live one, and switch to it.

    `accept`: also when they differ. `drop`: the schema that an earlier rebuild kept for going back is dropped, just
    before the switch. `processes`: how many fold, at most; those beside this one open the log by themselves. Raises
    RebuildRefused, SettingsError, and what PostgreSQL or the log being away raise.
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
        tell(Progress("load", 0, sum(ends.values())))
        if processes > 1 and sum(ends.values()) >= WORTH_IT:
            await spread(settings, new, ends, tell, processes)
        else:
            await fill(settings, log, contents, new, ends, room_of(ends), tell)
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

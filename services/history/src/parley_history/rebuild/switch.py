"""The live projectors held for a moment, and the exchange of two schemas' names, with no failed and no torn read.

History finds its tables by the schema's name alone, at every statement, so one transaction that renames two schemas is
seen by all processes at once, of whatever version. No table is locked against readers:

- LOCK TABLE … EXCLUSIVE on the live `positions` lets reads pass and makes projectors wait: each of their transactions
  begins by moving its positions. Meanwhile the other schema comes to the very same positions.
- A read of several statements that began earlier might see the live rows of then first and too few of the other
  schema's after. So the names change only once nobody of ours reads by an older snapshot; whoever began since sees the
  same facts in both.
- A projector that waited finds `positions` by name again once it may go on. They say what it expects, and it goes on
  in the schema that is now live.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from parley_history.db import Connection
from parley_history.errors import BadData, RebuildRefused, Unavailable
from parley_history.reads.answers import PROJECTION
from parley_history.rebuild.follow import Follower
from parley_history.rebuild.schemas import SQL, take_over
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE

HOLD_S = 4.0
"""The longest that projectors are held: less than they wait for a row, and than PostgreSQL lets a transaction idle."""
_NEAR_S = 600.0
_TRIES = 30
_LOOK_S = 0.02

Stands = dict[int, tuple[int, int, int]]
"""Partition → next offset, epoch, newest integer id."""


async def stands(connection: Connection, schema: str) -> Stands:
    """Where each partition of a schema stands."""
    columns = "partition, next_offset, epoch, last_number"
    sql = f"SELECT {columns} FROM {schema}.positions WHERE projection = $1"  # noqa: S608 - the settings' own name
    rows = await connection.fetch(sql, PROJECTION)
    return {row["partition"]: (row["next_offset"], row["epoch"], row["last_number"]) for row in rows}


def offsets(of: Stands) -> dict[int, int]:
    """The next offsets alone."""
    return {partition: next_offset for partition, (next_offset, _, _) in of.items()}


@asynccontextmanager
async def held(
    owner: Connection, projector: Connection, live: str, other: str, follower: Follower
) -> AsyncIterator[None]:
    """Both schemas at the same positions, and the live projectors waiting, for as long as the block lasts. The block is
    in the owner's transaction, which it may commit.

    Raises Unavailable when that did not come about in time: try again.
    """
    near = offsets(await stands(projector, live))
    # What the live view skipped before it came there is known by now.
    await take_over(projector, live, other)
    if not await follower.reach(near, _NEAR_S):
        raise RebuildRefused("the rebuilt schema does not catch up with the live view: it is folded too slowly")
    await owner.run("BEGIN")
    try:
        await owner.run("SET LOCAL lock_timeout = '3s'")
        await owner.run(f"LOCK TABLE {live}.positions IN EXCLUSIVE MODE")
        await take_over(projector, live, other)
        wanted = await stands(projector, live)
        if not await follower.reach(offsets(wanted), HOLD_S / 2):
            raise Unavailable("the live view moves on faster than the rebuilt schema follows")
        found = await stands(projector, other)
        if found != wanted:
            raise RebuildRefused(f"the positions of {other} are not those of {live}: {found}, not {wanted}")
        yield
    finally:
        with suppress(Unavailable, BadData):
            await owner.run("ROLLBACK")


async def exchange(
    owner: Connection, projector: Connection, live: str, other: str, kept: str, follower: Follower
) -> None:
    """Give `other` the name `live`, and what had it the name `kept`: at once, for everyone. Nothing may have the name
    `kept` but `other`. Raises RebuildRefused, Unavailable."""
    said: Unavailable | None = None
    for _ in range(_TRIES):
        await take_over(projector, live, other)
        await follower.start()
        try:
            async with held(owner, projector, live, other, follower):
                await follower.stop()
                await _same_policies(owner, live, other)
                await _until_nobody_reads_earlier(owner, projector)
                leaving = f"{live}_leaving"
                await owner.run(f"ALTER SCHEMA {live} RENAME TO {leaving}")
                await owner.run(f"ALTER SCHEMA {other} RENAME TO {live}")
                await owner.run(f"ALTER SCHEMA {leaving} RENAME TO {kept}")
                await owner.run("COMMIT")
                return
        except Unavailable as error:
            said = error
            await asyncio.sleep(0.2)
    raise RebuildRefused(f"the switch did not come about in {_TRIES} tries: {said}")


async def _until_nobody_reads_earlier(owner: Connection, projector: Connection) -> None:
    """Until every reader of ours began after this moment. Raises Unavailable when one takes too long."""
    clock = asyncio.get_running_loop().time
    until = clock() + HOLD_S / 2
    newest = await projector.value("SELECT pg_current_xact_id()::text")
    while await owner.value(SQL["readers"], newest, [PROJECTOR_ROLE, READER_ROLE]):
        if clock() > until:
            raise Unavailable("a read of the live view takes long")
        await asyncio.sleep(_LOOK_S)


async def _same_policies(owner: Connection, live: str, other: str) -> None:
    """A schema whose rows everyone could see must never be the live one."""
    wanted, found = await owner.fetch(SQL["policies"], live), await owner.fetch(SQL["policies"], other)
    if [tuple(row) for row in wanted] != [tuple(row) for row in found]:
        raise RebuildRefused(f"the row policies of {other} are not those of {live}")

"""A log that ends where it is told: never a record more, and all of them once the end has moved."""

from __future__ import annotations

import asyncio
import contextlib

from parley_events.codec import EVENTS_TOPIC
from parley_events.contents import Contents
from parley_events.log.port import Outgoing
from parley_events.objects import open_objects
from parley_history.rebuild.follow import Follower, UpTo
from tests.contract.history.listlog import ListLog
from tests.unit.history.rebuild.test_command import SETTINGS


async def test_it_ends_where_it_is_told_and_goes_on_when_that_moves() -> None:
    log = ListLog(2)
    for number in range(10):
        log.append(Outgoing(EVENTS_TOPIC, number % 2, b"k", b"%d" % number))
    upto = UpTo(log)
    tail = await upto.tail(EVENTS_TOPIC, {0: 0, 1: 0})
    assert await tail.batch(0.01) == ()
    upto.move({0: 2, 1: 0})
    assert [record.value for record in await tail.batch(1.0)] == [b"0", b"2"]
    assert (tail.position(0), tail.position(1)) == (2, 0)
    assert await upto.ends(EVENTS_TOPIC) == {0: 2, 1: 0}
    waiting = asyncio.create_task(_some(tail))
    await asyncio.sleep(0)
    upto.move({0: 3, 1: 5})
    found = await asyncio.wait_for(waiting, 5)
    while len(found) < 6:
        found += await asyncio.wait_for(_some(tail), 5)
    assert sorted(found) == [b"1", b"3", b"4", b"5", b"7", b"9"]
    tail.remove(0)
    upto.move({0: 5})
    assert await tail.batch(0.01) == ()
    tail.add(0, 4)
    assert await _some(tail) == [b"8"]
    await tail.close()


async def _some(tail: object) -> list[bytes]:
    while True:
        records = await tail.batch(5.0)  # type: ignore[attr-defined]
        if records:
            return [record.value for record in records]


async def test_stopping_ends_also_what_loses_a_cancellation() -> None:
    """The live projectors are held meanwhile."""
    follower = Follower(SETTINGS, ListLog(1), Contents(open_objects("memory:")), "parley_next")

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = follower._task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(follower.stop(), 2.0)
    assert task.cancelled()

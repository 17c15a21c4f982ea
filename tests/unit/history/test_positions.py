"""Waiting for the view, without a database: who is woken, who waits on, and what is asked."""

from __future__ import annotations

import asyncio

import pytest

from parley_events.positions import PartitionPosition, StreamPosition
from parley_history.errors import Unavailable
from parley_history.positions import Reached, Watch

STREAM = "10000000-0000-4000-8000-000000000001"


class Store:
    """What the database would say."""

    def __init__(self) -> None:
        self.partitions: dict[int, int] = {}
        self.streams: dict[str, int] = {}
        self.asked: list[tuple[list[int], list[str]]] = []
        self.away = False

    async def ask(self, partitions: list[int], streams: list[str]) -> Reached:
        self.asked.append((partitions, streams))
        if self.away:
            raise Unavailable("away")
        return self.partitions, self.streams


async def test_what_is_known_is_not_asked_for() -> None:
    store = Store()
    watch = Watch(store.ask)
    watch.learn({3: 10}, {STREAM: 4})
    assert await watch.wait([PartitionPosition(3, 10), StreamPosition(STREAM, 4)], 0)
    assert store.asked == []


async def test_a_commit_wakes_those_who_waited_for_it_alone() -> None:
    watch = Watch(Store().ask)
    first = asyncio.create_task(watch.wait([StreamPosition(STREAM, 2)], 5))
    second = asyncio.create_task(watch.wait([StreamPosition(STREAM, 3)], 0.2))
    await asyncio.sleep(0)
    watch.learn({}, {STREAM: 2})
    assert await first
    assert not await second
    await watch.close()


async def test_one_question_for_all_who_wait() -> None:
    store = Store()
    watch = Watch(store.ask)
    waits = [asyncio.create_task(watch.wait([PartitionPosition(p, 1)], 5)) for p in range(5)]
    while len(store.asked) < 6:
        await asyncio.sleep(0.005)
    assert store.asked[-1] == ([0, 1, 2, 3, 4], [])
    store.partitions = dict.fromkeys(range(5), 1)
    assert await asyncio.gather(*waits) == [True] * 5
    asked = len(store.asked)
    await asyncio.sleep(0.08)
    assert len(store.asked) <= asked + 1
    await watch.close()


async def test_a_position_from_before_does_not_take_knowledge_back() -> None:
    watch = Watch(Store().ask)
    watch.learn({1: 9}, {STREAM: 9})
    watch.learn({1: 3}, {STREAM: 3})
    assert await watch.wait([PartitionPosition(1, 9), StreamPosition(STREAM, 9)], 0)


async def test_nothing_to_ask_is_said_at_once_and_ridden_out_later() -> None:
    store = Store()
    store.away = True
    watch = Watch(store.ask)
    with pytest.raises(Unavailable):
        await watch.wait([PartitionPosition(1, 1)], 5)
    store.away = False
    waiting = asyncio.create_task(watch.wait([PartitionPosition(1, 1)], 5))
    while len(store.asked) < 2:
        await asyncio.sleep(0)
    store.away = True
    while len(store.asked) < 4:
        await asyncio.sleep(0.005)
    store.away, store.partitions = False, {1: 1}
    assert await waiting
    await watch.close()


@pytest.mark.parametrize("turns", range(4))
async def test_who_waits_and_is_stopped_as_the_news_comes_is_stopped(turns: int) -> None:
    """However close the two are. One who is not stopped then would go on for ever."""

    async def nothing(partitions: list[int], streams: list[str]) -> Reached:
        return {}, {}

    watch = Watch(nothing)
    wanted = asyncio.create_task(watch.wanted(30))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(watch.wait([PartitionPosition(0, 5)], 30))
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    await _stopped(wanted)
    while watch._poll is None:
        await asyncio.sleep(0)
    watch.learn({0: 5}, {})
    for _ in range(turns):
        await asyncio.sleep(0)
    await _stopped(waiting)
    await watch.close()


async def _stopped(task: asyncio.Task[object]) -> None:
    """It ends by being cancelled, if it has not ended yet."""
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task

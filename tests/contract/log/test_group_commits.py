"""Commits beside a rebalance: a member that commits all the time joins again, and the group comes to rest."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import pytest
from aiokafka.protocol.commit import OffsetCommitRequest

from parley_events.errors import LogUnavailable
from parley_events.log.kafka import KafkaLog
from tests.contract.log.conftest import PARTITIONS, Place
from tests.contract.log.reading import TOPIC, record, write

SESSION_MS = 6000
STALL_S = 7.0
REST_S = 25.0


async def nothing(_: frozenset[int]) -> None: ...


class Other:
    """Another member, on a thread of its own: it lives on while the test stands still."""

    def __init__(self, place: Place) -> None:
        self._place, self._over = place, threading.Event()
        self.joined = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        log = await KafkaLog.open(self._place.bootstrap, prefix=self._place.prefix, session_ms=SESSION_MS)
        group = await log.group(TOPIC, "g", nothing, nothing)
        while not self._over.is_set():
            await group.batch(timeout_s=0.2)
            if group.assignment():
                self.joined.set()
        await group.close()
        await log.close()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(20)


@pytest.mark.parametrize("place", ["kafka"], indirect=True)
async def test_a_member_that_stood_still_comes_back_however_often_it_commits(place: Place) -> None:
    """Its session is over when it wakes up; the others take a while to join again, and it commits all that time."""
    log = await KafkaLog.open(place.bootstrap, prefix=place.prefix, session_ms=SESSION_MS)
    await write(log, [record(partition, "one") for partition in range(PARTITIONS)])
    group = await log.group(TOPIC, "g", nothing, nothing)
    other = Other(place)
    committed = asyncio.Event()
    coordinator, subscription = group._consumer._coordinator, group._consumer._subscription
    ask = coordinator._send_req
    amid: list[bool] = []

    async def asked(request: object) -> object:
        if isinstance(request, OffsetCommitRequest):
            amid.append(subscription.reassignment_in_progress or coordinator.generation < 0)
        return await ask(request)

    coordinator._send_req = asked

    async def poll() -> None:
        while True:
            await group.batch(timeout_s=0.2)

    async def commit() -> None:
        while True:
            if mine := group.assignment():
                with suppress(LogUnavailable):
                    await group.commit(dict.fromkeys(mine, 1))
                    committed.set()
            await asyncio.sleep(0.02)

    work = [asyncio.create_task(poll()), asyncio.create_task(commit())]
    try:
        async with asyncio.timeout(REST_S):
            while not (other.joined.is_set() and group.assignment()):
                await asyncio.sleep(0.05)
        time.sleep(STALL_S)  # the whole loop stands still, as a stopped process does
        committed.clear()
        await asyncio.wait_for(committed.wait(), REST_S)
        assert amid.count(False), "nothing was committed"
        assert not any(amid), "a commit was sent while the group was rebalancing"
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        other.stop()
        await group.close()
        await log.close()

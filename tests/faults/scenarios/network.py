"""The broker, and the network between it and the dispatchers."""

from __future__ import annotations

import asyncio
import time

from parley_events.partition import partition_of
from tests.faults import outside
from tests.faults.cluster import PARTITIONS
from tests.faults.proxy import Weather
from tests.faults.scenarios.owners import first_run
from tests.faults.stage import Round
from tests.faults.workload import whole


async def broker_killed(going: Round) -> None:
    await going.begin(crowd=5, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def again() -> None:
        await asyncio.to_thread(going.cluster.kafka.kill)
        await asyncio.to_thread(going.cluster.kafka.start)

    await going.during("SIGKILL of the broker", "kafka", again())


async def lost_answers(going: Round) -> None:
    """Responses to produce requests are lost until every producer has been given up and all was sent again."""
    proxy, logs = going.cluster.proxy, [process.log for process in going.cluster.of("dispatcher")]
    told = "a send came to an unknown end"
    before = sum(outside.said_in(log, told) for log in logs)
    await going.begin(crowd=4, bystanders=1, pieces=200)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def lose() -> None:
        proxy.weather = Weather(lose_produced=True)
        until = time.monotonic() + 40
        while sum(outside.said_in(log, told) for log in logs) == before and time.monotonic() < until:
            await asyncio.sleep(0.1)
        proxy.weather = Weather()
        assert proxy.lost, "no response was lost"

    await going.during("produce responses lost", "network", lose())


async def latency(going: Round) -> None:
    going.cluster.proxy.weather = Weather(latency_s=0.15)
    await going.begin(crowd=4, bystanders=1)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def slow() -> None:
        await asyncio.sleep(8.0)
        going.cluster.proxy.weather = Weather()

    await going.during("latency of 150 ms each way", "network", slow())


async def cut(going: Round) -> None:
    await going.begin(crowd=4, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def cut() -> None:
        for _ in range(6):
            assert going.cluster.proxy.cut(), "there was no connection to cut"
            await asyncio.sleep(0.7)

    await going.during("connections cut, six times", "network", cut())


async def swallowed(going: Round) -> None:
    """One dispatcher is cut off as by a firewall, until another has its partitions; then it is let back in."""
    await going.begin(crowd=3, bystanders=2)
    talk = await going.work.open()
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    going.work.saying(talk, f"/text wait \n/stream 40 50\n{whole(going.name)}")
    await first_run(talk)
    epoch, owner = going.cluster.control.owners[partition]

    async def alone() -> None:
        pid = going.cluster.processes[owner].pid
        going.cluster.proxy.weather = Weather(swallow=True, pids=frozenset({pid}))
        await going.cluster.control.claimed(partition, epoch, 60.0)
        going.cluster.proxy.weather = Weather()
        going.cluster.proxy.cut(frozenset({pid}))

    await going.during("one dispatcher cut off", owner, alone())

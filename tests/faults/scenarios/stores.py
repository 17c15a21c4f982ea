"""History and PostgreSQL: projectors that die around COMMIT or stand still, views that are behind, or away."""

from __future__ import annotations

import asyncio
import signal
import time

from parley_events.partition import partition_of
from tests.faults.boundaries import Action, Placed
from tests.faults.cluster import PARTITIONS
from tests.faults.scenarios.owners import first_run
from tests.faults.stage import Blow, Round
from tests.faults.workload import whole


async def projector(boundary: str, action: Action, going: Round) -> None:
    await going.begin(crowd=3, bystanders=1)
    talk = await going.work.open()
    fault = Placed(id=going.work.number(), boundary=boundary, action=action, stream=talk.thread_id)
    await going.cluster.control.place(fault, "history")
    going.work.saying(talk, whole(going.name))
    await going.struck(fault, f"{action} at {boundary}")


async def two_projectors(going: Round) -> None:
    """One stands still with a batch in hand until the other has adopted its partition and gone further."""
    await going.begin(crowd=3, bystanders=0)
    talk = await going.work.open()
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    fault = Placed(id=going.work.number(), boundary="fold.before", action="stop", stream=talk.thread_id, passing=2)
    await going.cluster.control.place(fault, "history")
    going.work.saying(talk, whole(going.name))
    hit = await going.cluster.control.hit(fault.id, 60.0)

    async def adopted() -> None:
        connection = await going.cluster.connect()
        stood = "SELECT next_offset FROM parley.positions WHERE partition = $1"
        try:
            before = await connection.fetchval(stood, partition)
            async with asyncio.timeout(60):
                while await connection.fetchval(stood, partition) == before:
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()
        going.cluster.processes[hit.name].signal(signal.SIGCONT)

    await going.during("a projector wakes up with a stale batch", hit.name, adopted())


async def history_behind(held_s: float, going: Round) -> None:
    """The views stand still, reads are answered, and a dispatcher dies meanwhile."""
    await going.begin(crowd=3, bystanders=1)
    control = going.cluster.control
    fault = Placed(id=going.work.number(), boundary="fold.before", action="hold", every=True)
    await control.place(fault, "history")

    async def behind() -> None:
        began = time.monotonic()
        try:
            await going.strike(Blow("append.after", "kill", "tool.returned"))
            await going.strike(Blow("append.after", "kill", "model.returned"))
            await asyncio.sleep(max(0.0, held_s - (time.monotonic() - began)))
        finally:
            await control.lift(fault.id)

    await going.during(f"history behind for {held_s:g} s", "history", behind())


async def history_away(going: Round) -> None:
    """Both histories stand still while a dispatcher dies; then they go on."""
    await going.begin(crowd=3, bystanders=1)
    victim = await going.work.open()
    striking = asyncio.create_task(
        going.strike(
            Blow("append.after", "kill", "model.returned"), f"/text so\n/wait 2000\n{whole(going.name)}", victim=victim
        )
    )

    async def away() -> None:
        await first_run(victim)
        try:
            for process in going.cluster.of("history"):
                process.signal(signal.SIGSTOP)
            await striking
            await asyncio.sleep(12.0)
        finally:
            for process in going.cluster.of("history"):
                process.signal(signal.SIGCONT)

    await going.during("history away", "history", away())


async def postgres(going: Round) -> None:
    await going.begin(crowd=4, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def again() -> None:
        await asyncio.to_thread(going.cluster.postgres.kill)
        await asyncio.sleep(3.0)
        await asyncio.to_thread(going.cluster.postgres.start)

    await going.during("SIGKILL of PostgreSQL", "postgres", again())

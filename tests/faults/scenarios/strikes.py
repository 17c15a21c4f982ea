"""Dispatchers that die or stall at the boundaries of what they journal, alone and all at once."""

from __future__ import annotations

import asyncio

from tests.faults.boundaries import Action, Placed
from tests.faults.stage import Blow, Round
from tests.faults.workload import whole

_FACTS = ("message.posted", "model.called", "model.returned", "tool.called", "tool.returned", "run.completed")


def blows(action: Action) -> list[Blow]:
    """Every boundary of a dispatcher, once: each kind of fact before and after it is appended and once it is
    acknowledged, intents before and after they are read back, tools before and after they run, commits, claims."""
    around = [
        Blow(f"append.{place}", action, kind, "ledger__pay" if kind == "tool.called" else None)
        for kind in _FACTS
        for place in ("before", "after", "acknowledged")
    ]
    return [
        *around,
        Blow("read_back.before", action, "tool.called", "ledger__pay"),
        Blow("read_back.after", action, "tool.called", "append_line"),
        *(
            Blow(f"tool.{place}", action, name)
            for place in ("before", "after")
            for name in ("ledger__pay", "ledger__book")
        ),
        Blow("tool.after", action, "ledger__reserve"),
        Blow("see.before", action, "tool.called"),
        Blow("see.after", action, "message.posted"),
        Blow("commit.before", action),
        Blow("commit.after", action),
    ]


async def strikes(blows: list[Blow], going: Round) -> None:
    """One blow after the other, each as soon as the one before has struck: what heals overlaps."""
    await going.begin(crowd=3, bystanders=2)
    for blow in blows:
        await going.strike(blow)


async def one_by_one(going: Round) -> None:
    """Owners die and stall in turn, each once all is well again: how long a takeover takes."""
    await going.begin(crowd=2, bystanders=0)
    for action in ("kill", "stop") * 5:
        message = f"/text going on \n/stream 30 50\n{whole(going.work.number())}"
        _, victim = await going.strike(Blow("append.after", action, "model.called"), message, timed=True)
        async with asyncio.timeout(60):
            while not victim.watchers or not victim.watchers[0].over:
                await asyncio.sleep(0.05)
        await going.settled()


async def claiming(action: Action, going: Round) -> None:
    """The one that takes over is struck itself, before and after its claim."""
    await going.begin(crowd=3, bystanders=2)
    for place in ("before", "after"):
        await going.strike(Blow("append.after", "kill", "model.called"))
        fault = Placed(id=going.work.number(), boundary=f"claim.{place}", action=action)
        await going.cluster.control.place(fault, "dispatcher")
        await going.struck(fault, f"{action} at claim.{place}")
        await going.settled()


async def kill_all(going: Round) -> None:
    await going.begin(crowd=4, bystanders=0)
    talks = [await going.work.open() for _ in range(4)]
    for number, talk in enumerate(talks):
        going.work.saying(talk, whole(f"all {number}"))
    fault = Placed(id=going.work.number(), boundary="append.after", action="kill", kind="tool.returned")
    await going.cluster.control.place(fault, "dispatcher")

    async def all_at_once() -> None:
        await going.cluster.control.hit(fault.id, 60.0)
        for process in going.cluster.of("dispatcher"):
            process.kill()
        for process in going.cluster.of("dispatcher"):
            await going.cluster.restart(process)

    await going.during("SIGKILL of all dispatchers", "dispatcher", all_at_once())


async def rolling(going: Round) -> None:
    await going.begin(crowd=4, bystanders=3, pieces=150)

    async def one_by_one() -> None:
        for process in going.cluster.of("dispatcher"):
            await asyncio.to_thread(process.end)
            await going.cluster.restart(process)
            await going.cluster.ready([process.name])

    await going.during("SIGTERM of each dispatcher in turn", "dispatcher", one_by_one())

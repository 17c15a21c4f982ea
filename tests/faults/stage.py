"""One run of the suite on one cluster: rounds of faults while work goes on, healing, and the evidence of it all.

scenarios   what is broken, when, and what is expected: the table
stage       what every scenario stands on: strike, heal, gather, check
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from parley_events.partition import partition_of
from tests.faults.boundaries import Action, Placed
from tests.faults.clients import Record, now_ms
from tests.faults.cluster import PARTITIONS, Cluster
from tests.faults.control import Hit
from tests.faults.evidence import Evidence, Fault, Memory
from tests.faults.proxy import Weather
from tests.faults.workload import Talk, Workload, steady, whole

HIT_S = 60.0
TAKEN_OVER_S = 45.0
END_S = 120.0
MOVES_MS = 1000
"""A bystander had something new for its follower so shortly before the fault: it was not waiting for another's heal."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault at a boundary of the process that has the victim's thread. `kind` and `text` narrow it down."""

    boundary: str
    action: Action
    kind: str = "*"
    text: str | None = None

    @property
    def name(self) -> str:
        what = self.text or ("" if self.kind == "*" else self.kind)
        return f"{self.action} at {self.boundary}{f' of {what}' if what else ''}"


@dataclass(slots=True)
class Round:
    """One scenario at work: its workload, the faults that were struck, and what went wrong in striking them."""

    stage: Stage
    name: str
    work: Workload
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    steady: list[Talk] = field(default_factory=list)
    _healing: list[asyncio.Task[None]] = field(default_factory=list)
    _broken: list[str] = field(default_factory=list)
    _striking: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        return self.stage.cluster

    async def begin(self, crowd: int = 4, bystanders: int = 2, pieces: int = 120) -> None:
        """Work by chance, and long runs on threads of different partitions that shall keep moving."""
        await self.work.crowd(crowd)
        for _ in range(bystanders):
            talk = await self.work.open()
            self.steady.append(talk)
            self.work.saying(talk, steady(pieces))

    async def strike(
        self,
        blow: Blow,
        message: str | None = None,
        victim: Talk | None = None,
        *,
        timed: bool = False,
    ) -> tuple[Hit, Talk]:
        """Place a fault for a new thread, say something in it that comes past the boundary, and wait until it has
        struck. What was killed is started again at once; what was stopped goes on once another has taken over."""
        victim = victim or await self.work.open()
        partition = partition_of(victim.thread_id.encode(), PARTITIONS)
        fault = Placed(
            id=self.work.number(),
            boundary=blow.boundary,
            action=blow.action,
            kind=blow.kind,
            text=blow.text,
            stream=victim.thread_id if blow.boundary.split(".")[0] not in ("commit", "claim") else None,
        )
        await self.cluster.control.place(fault, "dispatcher")
        self.work.saying(victim, message or whole(f"{self.name} {fault.id}"))
        return await self.struck(fault, blow.name, victim, partition, timed=timed), victim

    async def struck(
        self,
        fault: Placed,
        name: str,
        victim: Talk | None = None,
        partition: int | None = None,
        *,
        timed: bool = False,
    ) -> Hit:
        """Wait for a hit, and heal what it did in the background: another claims the partition (of a fault at a claim:
        the one that was claimed). `timed`: nothing else is broken at the time, so that how long the takeover takes says
        something."""
        control = self.cluster.control
        try:
            hit = await control.hit(fault.id, HIT_S)
        except TimeoutError:
            self.wrong.append(f"{name} never struck: nothing passed there within {HIT_S:g} s")
            await control.lift(fault.id)
            raise
        claiming = fault.boundary.startswith("claim.")
        if claiming:
            partition = int(hit.kind)
        moved = int(hit.mono_s * 1000) - MOVES_MS
        moving = [talk for talk in self.steady if _last_ms(talk) > moved]
        self._broken.append(hit.name)
        broken = {*self._broken, ""}
        process = self.cluster.processes[hit.name]
        beyond = hit.epochs.get(partition, -1) if partition is not None else -1

        async def heal() -> None:
            if fault.action == "kill":
                await self.cluster.restart(process)
            if partition is not None:
                with suppress(TimeoutError):
                    await control.claimed(partition, beyond, TAKEN_OVER_S)
            # At a claim it may have struck several at once, before they heard that it had.
            for other in {other.name for other in control.hits if other.fault == fault.id}:
                struck = self.cluster.processes[other]
                if fault.action == "stop":
                    struck.signal(signal.SIGCONT)
                elif fault.action == "kill" and not struck.alive:
                    await self.cluster.restart(struck)
            if claiming:
                # Others were on their way to the same process, whose claims still stand as if nothing had happened.
                await self.cluster.ready()
            # Whose owner was whole, and stayed it all the time, must have kept moving.
            also = {other.name for other in control.hits if other.mono_s >= hit.mono_s}
            bystanders = [talk.thread_id for talk in moving if self._owner(talk, hit) not in broken | also]
            self._broken.remove(hit.name)
            self.note(name, hit, bystanders, victim if timed else None)

        self._healing.append(asyncio.create_task(heal()))
        return hit

    def striking(self, fault: Placed, name: str, victim: Talk) -> None:
        """Wait for a fault's hit in the background: it strikes when its time has come."""
        partition = partition_of(victim.thread_id.encode(), PARTITIONS)

        async def wait() -> None:
            with suppress(TimeoutError):
                await self.struck(fault, name, victim, partition)

        self._striking.append(asyncio.create_task(wait()))

    def _owner(self, talk: Talk, hit: Hit) -> str:
        """The process that has had a thread's partition since before the hit; "": none, or it is there no more."""
        control, partition = self.cluster.control, partition_of(talk.thread_id.encode(), PARTITIONS)
        epoch, name = control.owners.get(partition, (-1, ""))
        process = self.cluster.processes.get(name)
        if process is None or not process.alive or process.pid != control.claimants[partition]:
            return ""
        return name if epoch == hit.epochs.get(partition) else ""

    def note(self, name: str, hit: Hit, bystanders: list[str], victim: Talk | None) -> None:
        """Write a fault down, now that it is healed."""
        self.faults.append(
            Fault(
                name=name,
                target=hit.name,
                struck_mono_ms=int(hit.mono_s * 1000),
                struck_wall_ms=hit.wall_ms,
                healed_mono_ms=now_ms(),
                healed_wall_ms=time.time_ns() // 1_000_000,
                bystanders=tuple(bystanders),
                victims=(victim.thread_id,) if victim is not None else (),
            )
        )

    async def during(self, name: str, target: str, broken: Coroutine[Any, Any, None]) -> None:
        """Break something and mend it: all that the coroutine does is one fault."""
        struck_mono, struck_wall = now_ms(), time.time_ns() // 1_000_000
        await broken
        self.faults.append(Fault(name, target, struck_mono, struck_wall, now_ms(), time.time_ns() // 1_000_000, (), ()))

    async def settled(self) -> None:
        """Until what was struck so far is whole again, and every process ready."""
        healing, self._healing = self._healing, []
        await asyncio.gather(*healing)
        await self.cluster.ready()

    async def heal(self) -> None:
        """Until everything that was broken is whole again, and every process ready."""
        if self._striking:
            await asyncio.gather(*self._striking, return_exceptions=True)
        for found in await asyncio.gather(*self._healing, return_exceptions=True):
            if isinstance(found, BaseException):
                self.wrong.append(f"{self.name}: it was not healed: {type(found).__name__}: {found}")
        for process in self.cluster.processes.values():
            if process.stopped:
                process.signal(signal.SIGCONT)
            if not process.alive:
                await self.cluster.restart(process)
        self.cluster.proxy.weather = Weather()
        await self.cluster.ready()


def _last_ms(talk: Talk) -> int:
    """When the first follower of a talk's run saw something last."""
    seen = talk.seen()
    return seen[-1].mono_ms if seen else 0


class Stage:
    """The cluster, everything that was observed on it, and the seed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.seed = cluster, seed
        self.record = Record()
        self.faults: list[Fault] = []
        self.memory: list[Memory] = []
        self.structures = iter(range(400))
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stage:
        try:
            await self.cluster.start()
        except BaseException:
            await self.cluster.stop()
            raise
        self._watching = asyncio.create_task(self._weigh())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.cluster.stop()

    async def _weigh(self) -> None:
        """What each process holds, every two seconds."""
        while True:
            for process in self.cluster.processes.values():
                with suppress(psutil.Error):
                    size = psutil.Process(process.pid).memory_info().rss
                    self.memory.append(Memory(process.kind, process.pid, now_ms(), size))
            await asyncio.sleep(2.0)

    async def round(self, name: str, act: Callable[[Round], Awaitable[None]], end_s: float = END_S) -> list[str]:
        """Run one scenario until everything is healed and at rest; what went wrong on the way, as lines."""
        chance = random.Random(f"{self.seed} {name}")
        work = Workload(name, self.cluster, self.record, chance, self.structures)
        going = Round(self, name, work)
        try:
            await act(going)
        except (AssertionError, TimeoutError, OSError) as error:
            going.wrong.append(f"{name}: {type(error).__name__}: {error}")
        try:
            await going.heal()
        except AssertionError as error:
            going.wrong.append(f"{name}: it does not heal: {error}")
        going.wrong += await work.end(end_s)
        self.faults += going.faults
        return going.wrong

    async def evidence(self, scenario: str) -> Evidence:
        """All that was observed so far, once the commands are finished and the views have come to the log's end."""
        from tests.faults.gather import gather

        return await gather(self, scenario)

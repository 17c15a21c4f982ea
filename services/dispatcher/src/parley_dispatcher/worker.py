"""The dispatcher's loops: commands in, partitions claimed and let go, the own tail, commits, history's progress.

    group on parley.commands ──► owners[p].take        (deciding)
    tail on own partitions of parley.events ──► owners[p].see   (reading back, losing a claim)

Group membership only spreads the load. Who may write is decided by claims (see `owner`). A partition moves to another
member when its owner lets go of it: asked to, or because this process stops, it begins no new step there, goes on
deciding, and gives the partition once the steps under way have ended, or the grace period has. `watchdog` looks at what
this module notes: when it polled last, and since when a partition has stood still.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from parley_dispatcher.errors import HistoryUnavailable, NotOwner
from parley_dispatcher.owner import COMMANDS_TOPIC, EVENTS_TOPIC, Owner, World
from parley_dispatcher.runner import Runner
from parley_dispatcher.timers import watch
from parley_dispatcher.watchdog import Watchdog
from parley_events.errors import EventsError, LogUnavailable, RetentionGap
from parley_events.log import Group, Tail

_log = logging.getLogger(__name__)

_COMMIT_S = 0.2
"""How often offsets are committed. Who asks a gateway for what is not there waits for it: only then is it sure that no
command is left that may have made the thing."""
_GATHER_S = 0.03
"""How long facts that nobody waits for are gathered before they are read back. Short beside `owner.TRUST_S`."""
_POSITIONS_S = 1.0
_RECLAIM_S = 1.0
_STOPPED_S = 60.0
"""How long a partition that cannot be gone on with is left alone before it is tried again."""
_FLUSH_S = 3.0
"""How long the last facts have to reach the log, and the last outcomes to be read back, before a partition is let go
of."""
_STUCK_LOOK_S = 1.0
_SURE_S = 20.0
_BACKLOG_BYTES = 64 * 1024 * 1024


class Worker:
    """Owns what the group assigns. `start`, then `failed` resolves only when a loop dies; `stop` drains and leaves."""

    def __init__(self, world: World, runner: Runner, group_id: str, drain_s: float, stuck_s: float = 120.0) -> None:
        self._world, self._runner, self._group_id, self._drain_s = world, runner, group_id, drain_s
        self._watchdog, self._stuck_s = Watchdog(stuck_s), stuck_s
        self.owners: dict[int, Owner] = {}
        self._group: Group | None = None
        self._tail: Tail | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._claims: set[asyncio.Task[None]] = set()
        self._paused: set[int] = set()
        self._committed: dict[int, int] = {}
        self.failed: asyncio.Future[str] | None = None
        self.polled_at = 0.0
        self._left = False
        self._joined = asyncio.Event()
        self._giving: asyncio.Task[None] | None = None
        self._asked: frozenset[int] = frozenset()
        self._given: frozenset[int] = frozenset()
        """Partitions that the group was told we give, until it says whose they are."""
        self.stopped: dict[int, str] = {}
        """Partitions that cannot be gone on with, and why: they are tried again rarely."""

    @property
    def ready(self) -> bool:
        """Whether every assigned partition is claimed, but for those that stand still."""
        if self._group is None:
            return False
        claimed = {partition for partition, owner in self.owners.items() if owner.ready}
        return claimed | self.stopped.keys() >= self.owners.keys() | self._group.assignment()

    async def start(self) -> None:
        self.failed = asyncio.get_running_loop().create_future()
        self._tail = await self._world.log.tail(EVENTS_TOPIC, {})
        self._group = await self._world.log.group(
            COMMANDS_TOPIC, self._group_id, self._assigned, self._revoked, self._wanted
        )
        self._joined.set()
        for loop in (
            self._poll,
            self._follow,
            self._commit,
            self._watch_due,
            self._watch_history,
            self._watch_partitions,
        ):
            self._loops.append(asyncio.create_task(self._guard(loop)))

    async def stop(self) -> None:
        """Go on deciding, start no new step, give those under way the grace period, leave: the rest is for others."""
        self._runner.draining = True
        if self._giving is not None:
            self._giving.cancel()
        await self._drained(list(self.owners.values()))
        if self._loops:
            self._loops[0].cancel()
        self._left = True
        await self._commit_once()
        for owner in list(self.owners.values()):
            owner.close()
        for task in [*self._loops, *self._claims]:
            task.cancel()
        if self._giving is not None:
            await asyncio.gather(self._giving, return_exceptions=True)
        await asyncio.gather(*self._loops, *self._claims, return_exceptions=True)
        if self._group is not None:
            await self._group.close()
        if self._tail is not None:
            await self._tail.close()

    async def _drained(self, owners: list[Owner]) -> None:
        """Until no step is under way on these partitions any more, or the grace period has ended; then until what was
        decided and done there is on the log and read back, so that whoever comes next need not do it again."""
        loop = asyncio.get_running_loop()
        for owner in owners:
            owner.leaving.set()
        until = loop.time() + self._drain_s
        while (tasks := [task for owner in owners for task in owner.running.values()]) and loop.time() < until:
            await asyncio.wait(tasks, timeout=max(until - loop.time(), 0))
        if tasks:
            _log.warning("%d runs are left in the middle of a step: others make it anew", len(tasks))
        until = loop.time() + min(_FLUSH_S, self._drain_s)
        while loop.time() < until:
            if all(owner.settled for owner in owners if owner.ready):
                return
            await asyncio.sleep(0.01)

    async def _guard(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop that dies ends the process with a clear line: a silent half-dead dispatcher is worse than none."""
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("the loop %s died", loop.__name__)
            self._fail(f"{loop.__name__.strip('_')}: {error}")

    def _fail(self, why: str) -> None:
        if self.failed is not None and not self.failed.done():
            self.failed.set_result(why)

    # ---- assignment

    async def _assigned(self, partitions: frozenset[int]) -> None:
        for partition in set(self.owners) - partitions:
            self._release(partition)
        for partition in self.stopped.keys() - partitions:
            del self.stopped[partition]
        for partition in sorted(partitions - self.stopped.keys()):
            kept = self.owners.get(partition)
            if kept is None:
                self._claim(partition)
            # A kept partition is not claimed again: its tail goes on, and shows a foreign claim if there is one.
        self._paused.clear()
        self._given = frozenset()

    async def _revoked(self, partitions: frozenset[int]) -> None:
        """Runs go on over a rebalance; only the offsets are made good."""

    def _wanted(self, partitions: frozenset[int]) -> None:
        """Another member should have these."""
        if self._left or self._runner.draining or (self._giving is not None and partitions == self._asked):
            return
        self._asked = partitions
        if self._giving is not None:
            self._giving.cancel()
        for partition, owner in self.owners.items():
            if partition not in partitions and partition not in self._given and owner.leaving.is_set():
                owner.stay()
        self._giving = asyncio.get_running_loop().create_task(self._give(partitions)) if partitions else None

    async def _give(self, partitions: frozenset[int]) -> None:
        assert self._group is not None
        await self._drained([owner for partition, owner in self.owners.items() if partition in partitions])
        await self._commit_once()
        _log.info("giving the partitions %s to another dispatcher", sorted(partitions))
        self._giving = None
        # From here on they are as good as gone: whoever is asked for nothing more in this moment does not keep them.
        self._given |= partitions
        self._group.give(partitions)

    def _release(self, partition: int) -> None:
        owner = self.owners.pop(partition)
        owner.close()
        self._forget(partition)
        _log.info("partition %d was given away", partition)

    def _forget(self, partition: int) -> None:
        self._world.sender.forget(partition)
        self._committed.pop(partition, None)
        if self._tail is not None:
            self._tail.remove(partition)

    def _claim(self, partition: int) -> None:
        if self._left:
            return
        owner = Owner(partition, self._world, self._runner.wake, self._on_lost)
        self.owners[partition] = owner
        task = asyncio.get_running_loop().create_task(self._claiming(owner))
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)

    async def _claiming(self, owner: Owner) -> None:
        assert self._tail is not None
        try:
            await self._joined.wait()
            assert self._group is not None
            await owner.claim(self._tail.add, self._standing)
            self.stopped.pop(owner.partition, None)
        except asyncio.CancelledError:
            raise
        except NotOwner:
            return  # it was given away before the claim was there
        except Exception as error:
            _log.warning(
                "claiming partition %d: %s", owner.partition, error, exc_info=not isinstance(error, EventsError)
            )
            owner.lose(f"the claim failed: {type(error).__name__}")

    async def _standing(self, partition: int) -> int:
        """The first command that may not be finished. Raises LogUnavailable unless the group gives us the partition: a
        member that was away claims nothing which others have by now."""
        assert self._group is not None
        if not await self._group.owns(partition):
            raise LogUnavailable("the group does not give it to us just now")
        return await self._group.committed(partition)

    def _on_lost(self, owner: Owner) -> None:
        """Somebody else claimed it. If the group still gives it to us after a moment, they are the stale one."""
        if self.owners.get(owner.partition) is not owner:
            return
        del self.owners[owner.partition]
        self._forget(owner.partition)
        pause_s = _RECLAIM_S
        if owner.stopped:
            self.stopped[owner.partition] = owner.stopped
            pause_s = _STOPPED_S
        group = self._group
        if group is not None and owner.partition in group.assignment():
            task = asyncio.get_running_loop().create_task(self._reclaim(owner.partition, pause_s))
            self._claims.add(task)
            task.add_done_callback(self._claims.discard)

    async def _reclaim(self, partition: int, pause_s: float) -> None:
        """Claim again what the group says is ours, once it says so when it is asked, too. Where that does not come
        though the log answers, the member is out of its group and does not notice: the process ends, and its successor
        joins anew."""
        time = asyncio.get_running_loop().time
        refused_since: float | None = None
        while True:
            await asyncio.sleep(pause_s * (1.0 + random.random()))  # noqa: S311 - jitter, not a secret
            pause_s = _RECLAIM_S
            group = self._group
            if group is None or partition not in group.assignment() or partition in self.owners:
                return
            try:
                await self._standing(partition)
                # Before there is an owner: it must be given nothing that lies beyond what it has not seen.
                await group.rewind(partition)
            except LogUnavailable as error:
                _log.warning("partition %d cannot be read again yet: %s", partition, error)
                refused_since = (refused_since or time()) if await self._log_answers() else None
                if refused_since is not None and time() - refused_since > self._stuck_s:
                    self._fail(f"the group has not given us partition {partition} for long, and says that it is ours")
                    return
                continue
            if partition in group.assignment() and partition not in self.owners:
                self._claim(partition)
            return

    async def _log_answers(self) -> bool:
        try:
            await self._world.log.ends(EVENTS_TOPIC)
        except LogUnavailable:
            return False
        return True

    # ---- loops

    async def _poll(self) -> None:
        assert self._group is not None
        group = self._group
        while True:
            records = await group.batch(timeout_s=0.5)
            self.polled_at = asyncio.get_running_loop().time()
            for record in records:
                owner = self.owners.get(record.partition)
                if owner is not None:
                    owner.take(record)
            while self._world.sender.backlog > _BACKLOG_BYTES:  # the log is away, and nobody signals its return
                await asyncio.sleep(0.05)
                self.polled_at = asyncio.get_running_loop().time()
            self._regulate(group)

    def _regulate(self, group: Group) -> None:
        """Partitions that are behind with deciding read no further."""
        for partition, owner in self.owners.items():
            if owner.choked and partition not in self._paused:
                group.pause(partition)
                self._paused.add(partition)
                _log.warning("partition %d reads no further until it has caught up", partition)
            elif partition in self._paused and not owner.choked:
                group.resume(partition)
                self._paused.discard(partition)

    async def _follow(self) -> None:
        assert self._tail is not None
        while True:
            try:
                records = await self._tail.batch(timeout_s=1.0)
            except RetentionGap as gap:
                raise RuntimeError(f"facts were deleted before they were read: {gap}") from gap
            for record in records:
                owner = self.owners.get(record.partition)
                if owner is not None:
                    owner.see(record)
            if records:
                await self._gather()

    async def _gather(self) -> None:
        """Let the own tails grow a little, unless someone waits for what they show: a fetch for many facts costs
        broker and dispatcher as much as one for a single fact."""
        if not any(owner.awaits for owner in self.owners.values()):
            self._world.awaited.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._world.awaited.wait()

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_S)
            await self._commit_once()

    async def _commit_once(self) -> None:
        if self._group is None:
            return
        marks = {partition: owner.watermark() for partition, owner in self.owners.items()}
        due = {p: mark for p, mark in marks.items() if mark >= 0 and self._committed.get(p) != mark}
        if not due:
            return
        try:
            await self._group.commit(due)
            self._committed.update(due)
        except LogUnavailable as error:
            _log.warning("offsets could not be committed yet: %s", error)

    async def _watch_history(self) -> None:
        """Cut the windows as history moves on."""
        while True:
            await asyncio.sleep(_POSITIONS_S)
            try:
                positions = await self._world.history.positions()
            except HistoryUnavailable:
                continue
            for view in positions.partitions:
                owner = self.owners.get(view.partition)
                if owner is not None:
                    owner.passed(view.next_offset)

    async def _watch_due(self) -> None:
        world = self._world
        await watch(
            world.history,
            world.clock,
            world.timer_ms,
            world.log.partitions,
            lambda: {partition: owner.fire_due for partition, owner in self.owners.items() if owner.ready},
        )

    async def _watch_partitions(self) -> None:
        """A partition that stands still for no reason outside ends the process: another one can go on with it. The log
        is asked whether it answers, now and once more a while later: it may have come back only just."""
        since: float | None = None
        while True:
            await asyncio.sleep(_STUCK_LOOK_S)
            now = asyncio.get_running_loop().time()
            wrong = self._watchdog.look(self.owners.values(), self._world.sender.unacknowledged_s, now)
            if wrong is None:
                since = None
                continue
            if not await self._log_answers():
                for owner in self.owners.values():
                    owner.waited_at = asyncio.get_running_loop().time()
                since = None
                continue
            since = now if since is None else since
            if now - since >= _SURE_S:
                raise RuntimeError(wrong)

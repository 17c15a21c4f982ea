"""Keeps a schema beside the live one: the projector itself, on a log that ends where the live view stands.

So the new schema is never ahead of the live one, and what the projector would stop at, skip or wait for, it does here
too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from parley_events.contents import Contents
from parley_events.log.port import Incoming, Reading, Tail
from parley_events.positions import PartitionPosition
from parley_history.db import Pool
from parley_history.errors import RebuildRefused, Unavailable
from parley_history.positions import Reached, Watch
from parley_history.projector import Projector
from parley_history.reads.streams import reached
from parley_history.settings import Settings

_LOOK_S = 0.5
_HALTED_S = 3.0
"""How long a partition may be stopped: the projector looks each second whether it may go on after all."""
_STOP_S = 0.1
_MOST_STOPS = 20


class UpTo:
    """A log of which each partition ends at an offset that can be moved on. See `port.Reading`."""

    def __init__(self, log: Reading) -> None:
        self._log = log
        self.limits: dict[int, int] = {}
        self.moved = asyncio.Event()

    def move(self, limits: Mapping[int, int]) -> None:
        """From now on the partitions end here."""
        self.limits.update(limits)
        self.moved.set()

    @property
    def partitions(self) -> int:
        return self._log.partitions

    async def tail(self, topic: str, starts: Mapping[int, int]) -> UpToTail:
        tail = UpToTail(self, await self._log.tail(topic, {}))
        for partition, offset in starts.items():
            tail.add(partition, offset)
        return tail

    async def begins(self, topic: str) -> dict[int, int]:
        return await self._log.begins(topic)

    async def ends(self, topic: str) -> dict[int, int]:
        return {p: min(end, self.limits.get(p, 0)) for p, end in (await self._log.ends(topic)).items()}

    async def close(self) -> None:
        return None


class UpToTail:
    """See `port.Tail`. What lies at or beyond a partition's end is let go of, and read again once the end has moved."""

    def __init__(self, log: UpTo, tail: Tail) -> None:
        self._log, self._tail = log, tail
        self._at: dict[int, int] = {}
        self._reading: set[int] = set()

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        limits = self._log.limits
        self._log.moved.clear()
        for partition, offset in self._at.items():
            if partition not in self._reading and offset < limits.get(partition, 0):
                self._reading.add(partition)
                self._tail.add(partition, offset)
        if not self._reading:
            # `wait_for` would lose a cancellation that comes together with the news (Python 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._log.moved.wait()
            return ()
        records = []
        for record in await self._tail.batch(timeout_s, limit):
            if record.partition in self._reading and record.offset < limits[record.partition]:
                records.append(record)
                self._at[record.partition] = record.offset + 1
        for partition in [p for p in self._reading if self._at[p] >= limits[p]]:
            self._reading.discard(partition)
            self._tail.remove(partition)
        return records

    def add(self, partition: int, offset: int) -> None:
        self.remove(partition)
        self._at[partition] = offset
        self._log.moved.set()

    def remove(self, partition: int) -> None:
        self._at.pop(partition, None)
        if partition in self._reading:
            self._reading.discard(partition)
            self._tail.remove(partition)

    def position(self, partition: int) -> int:
        return self._at[partition]

    async def close(self) -> None:
        await self._tail.close()


class Follower:
    """Folds into a schema, up to where it is told. `start` it, `stop` it; both may be done again."""

    def __init__(self, settings: Settings, log: Reading, contents: Contents, schema: str) -> None:
        self._log, self._contents, self._schema, self._settings = UpTo(log), contents, schema, settings
        self._pool = Pool(
            settings.postgres_projector, schema=schema, size=3, timeout_s=max(30.0, settings.query_timeout_s)
        )
        self._watch = Watch(self._ask)
        self._task: asyncio.Task[None] | None = None
        self._projector: Projector | None = None

    async def start(self) -> None:
        if self._task is None:
            await self._pool.open()
            dsn, batch = self._settings.postgres_projector, self._settings.batch
            self._projector = Projector(
                self._pool, dsn, self._log, self._watch, self._contents, schema=self._schema, batch=batch
            )
            self._task = asyncio.create_task(self._projector.run(), name=f"projector of {self._schema}")

    async def stop(self) -> None:
        """It writes no more once this has returned. Raises RebuildRefused when it does not end."""
        if self._task is not None:
            # Once may not be enough: a `wait_for` somewhere below may lose a cancellation (Python 3.11).
            for _ in range(_MOST_STOPS):
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=_STOP_S)
                if self._task.done():
                    break
            else:
                raise RebuildRefused(f"what folds into {self._schema} does not stop")
            self._task = None
            await self._watch.close()
            await self._pool.close()

    async def reach(self, positions: Mapping[int, int], limit_s: float) -> bool:
        """Fold up to these positions, and no further; whether it came there in time.

        Raises RebuildRefused when a partition is stopped at something that the live view went beyond.
        """
        self._log.move(positions)
        wanted = [PartitionPosition(partition, offset) for partition, offset in positions.items()]
        clock = asyncio.get_running_loop().time
        until = clock() + limit_s
        goes_on = clock()
        while True:
            if self._task is None or self._projector is None or self._task.done():
                raise RebuildRefused(f"what folds into {self._schema} is not running")
            halted = self._projector.health.stopped
            if not halted:
                goes_on = clock()
            elif clock() - goes_on > _HALTED_S:
                partition, reason = next(iter(halted.items()))
                raise RebuildRefused(f"partition {partition} cannot be folded as far as the live view is: {reason}")
            try:
                if await self._watch.wait(wanted, min(_LOOK_S, max(0.01, until - clock()))):
                    return True
            except Unavailable:
                await asyncio.sleep(0.1)
            if clock() >= until:
                return False

    async def _ask(self, partitions: list[int], streams: list[str]) -> Reached:
        async with self._pool.connection() as con:
            return await reached(con, partitions, streams)

"""The harness's line to the processes that it may break: faults go out, hits come in. See `boundaries`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.boundaries import Placed, as_json

ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that struck: in which process, at what, and when. `epochs`: each partition's newest claim at that time;
    whoever waits for the hit may hear of it seconds later."""

    fault: str
    name: str
    pid: int
    boundary: str
    kind: str
    wall_ms: int
    mono_s: float
    epochs: Mapping[int, int]


@dataclass(slots=True)
class _Line:
    name: str
    pid: int
    writer: asyncio.StreamWriter
    halted: bool = False
    answers: dict[str, asyncio.Future[None]] = field(default_factory=dict)


class Control:
    """Listens on a socket in `folder`; every process connects when it starts. A fault is placed in all that are there,
    and in those of its kind that start later as long as it is wanted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.sock"
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._lines: dict[str, _Line] = {}
        self._wanted: dict[str, tuple[Placed, str]] = {}
        self._hits: dict[str, list[Hit]] = {}
        self._news = asyncio.Condition()
        self.hits: list[Hit] = []
        self.owners: dict[int, tuple[int, str]] = {}
        """Partition → the newest claim that stands, and the process that made it."""
        self.claimants: dict[int, int] = {}
        """Partition → the id of that process, by which one that died is told from its successor."""

    async def start(self) -> None:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

        self._server = await asyncio.start_unix_server(serve, str(self.path))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for line in self._lines.values():
            line.writer.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def connected(self, name: str, pid: int) -> bool:
        """Whether that process is on the line."""
        line = self._lines.get(name)
        return line is not None and line.pid == pid

    async def place(self, fault: Placed, kind: str, names: Iterable[str] | None = None) -> None:
        """Place a fault in every process of a service (`names`: in those alone), now and when one starts; waits until
        they have it."""
        wanted = [line for line in self._lines.values() if line.name.partition("-")[0] == kind]
        if names is None:
            self._wanted[fault.id] = (fault, kind)
        else:
            wanted = [line for line in wanted if line.name in set(names)]
        await asyncio.gather(*(self._ask(line, {"place": as_json(fault)}, fault.id) for line in wanted))

    async def lift(self, fault_id: str, *, but: int = 0) -> None:
        """Take a fault away again, everywhere; what it holds goes on. A process that is stopped hears it later."""
        self._wanted.pop(fault_id, None)
        for line in list(self._lines.values()):
            if line.pid != but:
                self._tell(line, {"lift": fault_id})

    async def hit(self, fault_id: str, limit_s: float, count: int = 1) -> Hit:
        """The `count`-th hit of a fault, waited for. Raises TimeoutError."""
        async with asyncio.timeout(limit_s), self._news:
            await self._news.wait_for(lambda: len(self._hits.get(fault_id, ())) >= count)
        return self._hits[fault_id][count - 1]

    async def claimed(self, partition: int, beyond: int, limit_s: float) -> str:
        """The process that claimed a partition after the epoch `beyond`, waited for. Raises TimeoutError."""
        async with asyncio.timeout(limit_s), self._news:
            await self._news.wait_for(lambda: self.owners.get(partition, (-1, ""))[0] > beyond)
        return self.owners[partition][1]

    async def _ask(self, line: _Line, said: dict[str, Any], answer: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.answers[answer] = future
        self._tell(line, said)
        if line.halted:
            return  # it stands still: it will read this before anything else once it goes on
        # One that dies or is stopped meanwhile cannot answer; its successor is told when it starts.
        with suppress(TimeoutError):
            await asyncio.wait_for(future, ANSWER_S)

    def _tell(self, line: _Line, said: dict[str, Any]) -> None:
        with suppress(OSError, RuntimeError):
            line.writer.write(json.dumps(said).encode() + b"\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line: _Line | None = None
        with suppress(OSError, asyncio.IncompleteReadError):
            while raw := await reader.readline():
                said = json.loads(raw)
                if line is not None:
                    line.halted = False
                if "hello" in said:
                    line = self._lines[said["hello"]] = _Line(said["hello"], said["pid"], writer)
                    for fault, kind in self._wanted.values():
                        if line.name.partition("-")[0] == kind:
                            self._tell(line, {"place": as_json(fault)})
                elif "placed" in said and line is not None:
                    future = line.answers.pop(said["placed"], None)
                    if future is not None and not future.done():
                        future.set_result(None)
                elif "claimed" in said and line is not None:
                    async with self._news:
                        if said["epoch"] > self.owners.get(said["claimed"], (-1, ""))[0]:
                            self.owners[said["claimed"]] = (said["epoch"], line.name)
                            self.claimants[said["claimed"]] = line.pid
                        self._news.notify_all()
                elif "hit" in said and line is not None:
                    await self._struck(line, said)
        if line is not None and self._lines.get(line.name) is line:
            del self._lines[line.name]
        for future in (line.answers if line is not None else {}).values():
            if not future.done():
                future.set_result(None)
        writer.close()

    async def _struck(self, line: _Line, said: dict[str, Any]) -> None:
        epochs = {partition: epoch for partition, (epoch, _) in self.owners.items()}
        found = self._wanted.get(said["hit"])
        line.halted = found is not None and found[0].action == "stop"
        if found is not None and not found[0].every:
            # It has struck: nowhere else, then.
            await self.lift(said["hit"], but=line.pid)
        now = asyncio.get_running_loop().time()
        hit = Hit(said["hit"], line.name, line.pid, said["boundary"], said["kind"], said["wall_ms"], now, epochs)
        async with self._news:
            self._hits.setdefault(hit.fault, []).append(hit)
            self.hits.append(hit)
            self._news.notify_all()

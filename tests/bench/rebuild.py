"""How fast the view is folded, live and by a rebuild, beside what PostgreSQL takes of the same rows from memory in one
run: UNNEST in the live fold's transactions (of lists, as asyncpg takes them, and of columns, as the fold hands them
over), COPY into a rebuild's tables.

`python -m tests.bench.rebuild [facts]`. A made-up history of runs of eight facts each is folded live from a log in
memory, and rebuilt from an embedded log (a file), in one process and in one per core. PostgreSQL is a local server that
flushes to disk as it should. CPU is that of our processes and of the server's; facts per second and core are facts by
CPU seconds. `--profile` waits before the first rebuild, for py-spy. What was seen stands in RESULTS.md.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from parley_events import facts as f
from parley_events.codec import EVENTS_TOPIC
from parley_events.garbage import seldom_collected
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.embedded_reader import EmbeddedReader
from parley_events.log.port import Incoming, Outgoing
from parley_events.objects import open_objects
from parley_history.db import Connection, connect
from parley_history.migrate import migrate
from parley_history.rebuild import schemas
from parley_history.rebuild.fill import Progress
from parley_history.rebuild.load import CHUNK, columns_of
from parley_history.rebuild.run import rebuild
from parley_history.settings import Settings
from parley_history.writes import SQL, upsert
from tests.contract.history.conftest import running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace
from tests.support.postgres import servers

PARTITIONS = 8
PROCESSES = os.cpu_count() or 1
Figures = tuple[float, float, float]
"""Seconds: of wall time, of our CPU, of PostgreSQL's."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    """Wall time and CPU since it was made: of this process and those that it has waited for, and of the database's."""

    postgres: int

    def __post_init__(self) -> None:
        self._began, self._cpu, self._db = time.perf_counter(), _cpu_here(), _cpu_below(self.postgres)

    def __call__(self) -> tuple[float, float, float]:
        return time.perf_counter() - self._began, _cpu_here() - self._cpu, _cpu_below(self.postgres) - self._db


def _cpu_here() -> float:
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


def _cpu_below(pid: int) -> float:
    """CPU seconds of a process and its children, also of those that have ended and were waited for."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry.name) == pid:
                total += sum(map(int, stat[11:15]))
            elif int(stat[1]) == pid:
                total += sum(map(int, stat[11:13]))
    return total / _TICKS


def story(count: int) -> ListLog:
    """Runs of eight facts each, a few hundred at once, in threads of five runs."""
    log = ListLog(PARTITIONS)
    writer = Writer(log)
    for number in range(count // 8):
        stream, ws = thread(number // 5), workspace(number // 5 % 20)
        run = writer.post(
            stream, ws, "What is the weather like in the north, and shall I take a coat?", command=f"{number}"
        )
        writer.turn(stream, ws, run, "Let me look at that for you. " * 4)
        call = {"run_id": run, "call": 3, "index": 0, "tool_call_id": "t", "name": "look"}
        writer.write(
            stream,
            ws,
            f.ToolCalled.model_validate(
                {**call, "arguments": {"place": "north"}, "effect": "read_only", "effect_key": "k"}
            ),
        )
        writer.write(stream, ws, f.ToolReturned.model_validate({**call, "status": "ok", "result": "It is cold. " * 20}))
        writer.turn(stream, ws, run, "It is cold: yes, take one. " * 10, number=1)
        writer.complete(stream, ws, run)
    writer.written.clear()
    return log


async def on_disk(log: ListLog, folder: Path) -> None:
    """The same records as an embedded log, which dates them anew."""
    made = await EmbeddedLog.open(folder, PARTITIONS)
    producer = await made.producer()
    for records in log.records:
        sent = [producer.send(Outgoing(EVENTS_TOPIC, r.partition, r.key, r.value, r.headers)) for r in records]
        await asyncio.gather(*sent)
    await producer.close()
    for partition, records in enumerate(log.records):
        tail = await made.tail(EVENTS_TOPIC, {partition: 0})
        dated: list[Incoming] = []
        while len(dated) < len(records):
            dated.extend(await tail.batch())
        log.records[partition] = dated
        await tail.close()
    await made.close()


TABLES = (*schemas.BULK, "streams")
"""The tables into which nearly all rows go."""
Rows = dict[str, tuple[list[str], list[tuple[Any, ...]]]]


async def made(settings: Settings) -> Rows:
    """The rows that a fold has made, with their columns, in the order of its statements."""
    owner = await asyncpg.connect(settings.postgres)
    rows: Rows = {}
    for name in TABLES:
        columns = columns_of(f"put_{name}")[1]
        named = ", ".join(f'"{column}"' for column in columns)
        found = await owner.fetch(f"SELECT {named} FROM parley.{name}")
        rows[name] = (columns, [tuple(row) for row in found])
    await owner.close()
    return rows


async def raw_copy(settings: Settings, rows: Rows, postgres: int) -> Figures:
    """COPY of rows from memory into tables as a rebuild makes them, a chunk at a time as it does."""
    owner = await asyncpg.connect(settings.postgres)
    await schemas.make(settings, "parley_raw")
    spent = Spent(postgres)
    for name, (columns, of) in rows.items():
        for start in range(0, len(of), CHUNK):
            part = of[start : start + CHUNK]
            await owner.copy_records_to_table(name, schema_name="parley_raw", columns=columns, records=part)
    result = spent()
    await owner.execute("DROP SCHEMA parley_raw CASCADE")
    await owner.close()
    return result


Put = Callable[[Connection, str, list[tuple[Any, ...]]], Awaitable[None]]


async def lists(connection: Connection, name: str, rows: list[tuple[Any, ...]]) -> None:
    """A statement that takes one array per column, with lists for them."""
    if rows:
        await connection.run(SQL[name], *map(list, zip(*rows, strict=True)))


async def raw_unnest(settings: Settings, rows: Rows, postgres: int, put: Put) -> Figures:
    """The live fold's statements with the same rows from memory, in as many transactions, and each row once."""
    await schemas.make_ready(settings, "parley_raw", await schemas.make(settings, "parley_raw"))
    con = await connect(settings.postgres_projector, schema="parley_raw", timeout_s=60)
    transactions = -(-len(rows["facts"][1]) // settings.batch)
    spent = Spent(postgres)
    for number in range(transactions):
        await con.run("BEGIN")
        for name, (_, of) in rows.items():
            begin, end = (len(of) * n // transactions for n in (number, number + 1))
            await put(con, f"put_{name}", of[begin:end])
        await con.run("COMMIT")
    result = spent()
    await con.close()
    owner = await asyncpg.connect(settings.postgres)
    await owner.execute("DROP SCHEMA parley_raw CASCADE")
    await owner.close()
    return result


async def rebuilt(settings: Settings, reader: EmbeddedReader, processes: int, postgres: int) -> Figures:
    """A rebuild; what its load took."""
    stages: dict[str, Figures] = {}
    work = Spent(postgres)

    def tell(progress: Progress) -> None:
        if progress.stage not in stages:
            stages[progress.stage] = work()

    outcome = await rebuild(settings, reader, open_objects("memory:"), tell=tell, processes=processes, drop=True)
    assert outcome.switched, outcome.differences
    whole = work()
    times = [(name, stages[name][0]) for name in ("indexes", "compare", "switch")] + [("", whole[0])]
    print("; ".join(f"{name} {then - at:.2f} s" for (name, at), (_, then) in pairwise(times)))
    wall, ours, theirs = (after - before for before, after in zip(stages["load"], stages["indexes"], strict=True))
    return wall, ours, theirs


async def main(count: int, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as place, servers(Path(place) / "pg", safe=True) as new_server:
        server = new_server()
        settings = replace(await settings_for(server), log="embedded", data=Path(place))
        await migrate(settings)
        log = story(count)
        await on_disk(log, Path(place) / "log")
        facts = sum(len(records) for records in log.records)
        gc.collect()
        gc.freeze()  # the story is the measurement's, and no part of what is measured
        live = Spent(server.pid)
        with seldom_collected():  # as history's process does it
            async with running(settings, log) as client:
                while (folds := client.history.projector) is None or sum(folds.stands.values()) < facts:
                    await asyncio.sleep(0.1)
                folded = live()
        rows = await made(settings)
        unnested = await raw_unnest(settings, rows, server.pid, lists)
        by_columns = await raw_unnest(settings, rows, server.pid, upsert)
        _say("live fold", facts, folded, unnested)
        _say("raw UNNEST", facts, unnested)
        _say("the same, of columns", facts, by_columns)
        if profile:
            print(f"py-spy record -p {os.getpid()}", flush=True)
            await asyncio.sleep(3)
        reader = await EmbeddedReader.open(Path(place) / "log")
        alone = await rebuilt(settings, reader, 1, server.pid)
        side_by_side = await rebuilt(settings, reader, PROCESSES, server.pid)
        await reader.close()
        copied = await raw_copy(settings, rows, server.pid)
        _say("rebuild", facts, alone, copied)
        _say(f"in {PROCESSES} processes", facts, side_by_side, copied)
        _say("raw COPY", facts, copied)


def _say(what: str, facts: int, figures: Figures, raw: Figures | None = None) -> None:
    wall, ours, theirs = figures
    text = (
        f"{what:16} {facts / wall:8.0f} facts/s; CPU {ours:.2f} s here, {theirs:.2f} s in PostgreSQL: "
        f"{facts / (ours + theirs):.0f} facts/s per core, {facts / max(ours, 0.001):.0f} by our CPU alone"
    )
    if raw is not None:
        text += f"; of raw {raw[0] / wall:.0%} by time, {(raw[1] + raw[2]) / (ours + theirs):.0%} per core"
    print(text, flush=True)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--profile"]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(arguments[0]) if arguments else 100_000, "--profile" in sys.argv))

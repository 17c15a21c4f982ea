"""How fast a rebuild folds, beside raw COPY of the same rows into the same tables, on one machine in one run.

`python -m tests.bench.rebuild [facts]`. A made-up history of runs of eight facts each goes onto the embedded log (a
file), is folded live, and then rebuilt; PostgreSQL is a local server that flushes to disk as it should. CPU is that of
this process and of the server's processes; facts per second and core are facts by CPU seconds. `--profile` waits before
the load, for py-spy.

Seen on two shared, noisy cores (100,000 facts; py-spy before and after): at first 5,600 facts/s, of which looking for
cycles of garbage took a third; now 16,000 facts/s, 18,000 by our CPU alone and 16,000 per core with PostgreSQL's, while
raw COPY of the same rows makes 106,000 facts/s: 15 % of it. Our CPU is the limit, 55 us a fact: 14 reading SQLite
and its headers, 15 decoding (10 of it the body by pydantic), 3 and 4 finding and folding, 4 making rows, 7 in asyncpg's
COPY, the rest small statements. PostgreSQL is idle for most of it, so what would lift it is a leaner decoder, and a
process per core.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from parley_events import facts as f
from parley_events.codec import EVENTS_TOPIC
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.embedded_reader import EmbeddedReader
from parley_events.log.port import Incoming, Outgoing
from parley_events.objects import open_objects
from parley_history.migrate import migrate
from parley_history.rebuild import schemas
from parley_history.rebuild.load import CHUNK
from parley_history.rebuild.run import Progress, rebuild
from parley_history.settings import Settings
from tests.contract.history.conftest import running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace
from tests.support.postgres import servers

PARTITIONS = 8
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    """Wall time and CPU since it was made: of this process, and of the database's."""

    postgres: int

    def __post_init__(self) -> None:
        self._began, self._cpu, self._db = time.perf_counter(), time.process_time(), _cpu_below(self.postgres)

    def __call__(self) -> tuple[float, float, float]:
        return (
            time.perf_counter() - self._began,
            time.process_time() - self._cpu,
            _cpu_below(self.postgres) - self._db,
        )


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


async def raw_copy(settings: Settings, spent: int) -> tuple[float, float, float]:
    """COPY of the rows that the rebuild made, from memory, a chunk at a time as the rebuild does it."""
    owner = await asyncpg.connect(settings.postgres)
    names = (*schemas.BULK, "streams")
    rows: dict[str, tuple[list[str], list[Any]]] = {}
    for name in names:
        found = await owner.fetch(f"SELECT * FROM parley.{name}")
        columns = [column for column in (found[0].keys() if found else ()) if (name, column) != ("threads", "unread")]
        rows[name] = (columns, [tuple(row[column] for column in columns) for row in found])
    await schemas.make(settings, "parley_raw")
    measured = Spent(spent)
    for name, (columns, of) in rows.items():
        for start in range(0, len(of), CHUNK):
            part = of[start : start + CHUNK]
            await owner.copy_records_to_table(name, schema_name="parley_raw", columns=columns, records=part)
    result = measured()
    await owner.execute("DROP SCHEMA parley_raw CASCADE")
    await owner.close()
    return result


async def main(count: int, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as place, servers(Path(place) / "pg", safe=True) as new_server:
        server = new_server()
        settings = await settings_for(server)
        await migrate(settings)
        log = story(count)
        await on_disk(log, Path(place) / "log")
        facts = sum(len(records) for records in log.records)
        gc.collect()
        gc.freeze()  # the story is the measurement's, and no part of what is measured
        live = Spent(server.pid)
        async with running(settings, log) as client:
            while sum(one["next_offset"] for one in (await client.get("/positions"))["partitions"]) < facts:
                await asyncio.sleep(0.2)
            _say("live fold", facts, *live())
        stages: dict[str, tuple[float, float, float]] = {}
        if profile:
            print(f"py-spy record -p {os.getpid()}", flush=True)
            await asyncio.sleep(3)
        work = Spent(server.pid)

        def tell(progress: Progress) -> None:
            if progress.stage not in stages:
                stages[progress.stage] = work()

        reader = await EmbeddedReader.open(Path(place) / "log")
        outcome = await rebuild(settings, reader, open_objects("memory:"), tell=tell)
        assert outcome.switched, outcome.differences
        whole = work()
        await reader.close()
        begin, end = stages["load"], stages["indexes"]
        _say("rebuild, load", facts, *(b - a for a, b in zip(begin, end, strict=True)))
        for stage, after in (("indexes", "compare"), ("compare", "switch")):
            print(f"{stage:16} {stages[after][0] - stages[stage][0]:6.2f} s")
        print(f"{'switch':16} {whole[0] - stages['switch'][0]:6.2f} s")
        _say("raw COPY", facts, *await raw_copy(settings, server.pid))


def _say(what: str, facts: int, wall: float, ours: float, theirs: float) -> None:
    print(
        f"{what:16} {facts / wall:8.0f} facts/s; CPU {ours:.2f} s here, {theirs:.2f} s in PostgreSQL: "
        f"{facts / (ours + theirs):.0f} facts/s per core, {facts / max(ours, 0.001):.0f} by our CPU alone",
        flush=True,
    )


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--profile"]
    asyncio.run(main(int(arguments[0]) if arguments else 100_000, "--profile" in sys.argv))

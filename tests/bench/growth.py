"""What a record costs while the store grows: `python -m tests.bench.growth [--write]`, about five minutes.

Threads, runs of a thread and stored facts double three times. For each of them four Parleys (`parley up`) run side by
side, one per size, and get the same small load in turns, so that what drifts on a machine drifts for all of them; what
counts is the median of a size's turns. CPU is that of all processes: `parley up`, and PostgreSQL with its children. The
machine must have nothing else to do: a starved process works in larger batches, which cost less for each message.
`--write` draws `docs/growth.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import asyncpg
import uvloop

from tests.bench.client import Client
from tests.bench.figures import cpu_between, fine_cpu_seconds
from tests.bench.grown import Filled, Store, fill
from tests.bench.plot import Line, Panel, svg
from tests.bench.report import Report, Row, table
from tests.bench.system import System, running

PICTURE = Path(__file__).parents[2] / "docs" / "growth.svg"
DOUBLINGS = (1, 2, 4, 8)
TURNS = 6
CLIENTS = 32
"""Enough of them that a commit to disk serves many: what is waited for is no CPU, but it takes time."""
LIMIT = 1.10
_SETTLE_S = 0.15
_FOLD_S = 90.0


@dataclass(frozen=True, slots=True)
class Dimension:
    """What doubles: from `first` on, and the store that has so much of it. `chat`: where messages are posted."""

    name: str
    first: int
    store: Callable[[int], Store]
    chat: str = "small"


DIMENSIONS = (
    Dimension("threads", 1000, lambda size: Store(small=size)),
    Dimension("runs of a thread", 100, lambda size: Store(200, long=16, runs=size, cleared=True), "long"),
    Dimension("stored facts", 8000, lambda size: Store(800, busy=250, turns=round((size - 4200) / 1000))),
)


@dataclass(slots=True)
class Grown:
    """A running Parley of one size."""

    system: System
    filled: Filled
    chat: tuple[str, ...]
    untouched: list[str]


Load = Callable[[Grown], Awaitable[int]]
"""Does some work; how often."""


async def _messages(grown: Grown) -> int:
    """Messages in threads that were active just before."""
    mine = grown.chat[:CLIENTS]
    return await _say(grown, list(islice(cycle(mine), 4 * len(mine))))


async def _first_messages(grown: Grown) -> int:
    """Messages in threads that nobody has touched since the start: each is loaded from the view."""
    chosen, grown.untouched = grown.untouched[:64], grown.untouched[64:]
    return await _say(grown, chosen)


async def _warm(grown: Grown) -> None:
    """Have the threads that are chatted in loaded, a few at a time: the long ones take a while."""

    async def some(mine: Sequence[str]) -> None:
        async with Client(grown.system.base_url, grown.system.key) as client:
            for thread in mine:
                await client.settle(thread, "/text warm")

    await asyncio.gather(*(some(grown.chat[n:CLIENTS:4]) for n in range(4)))


async def _say(grown: Grown, threads: Sequence[str]) -> int:
    async def some(mine: Sequence[str]) -> None:
        async with Client(grown.system.base_url, grown.system.key) as client:
            for thread in mine:
                await client.say(thread, "/text It is cold: yes, take one.")

    await asyncio.gather(*(some(threads[n::CLIENTS]) for n in range(CLIENTS)))
    return len(threads)


def _asking(path: str) -> Load:
    async def load(grown: Grown) -> int:
        threads = (*grown.chat[:32], *grown.filled.small[-32:])

        async def some(mine: Sequence[str]) -> None:
            async with Client(grown.system.base_url, grown.system.key) as client:
                for thread in mine:
                    await client.ask("GET", f"/api/v1/chat/threads{path.format(thread)}")

        await asyncio.gather(*(some(threads[n::CLIENTS]) for n in range(CLIENTS)))
        return len(threads)

    return load


WRITES: Mapping[str, Load] = {
    "a message in a thread in memory": _messages,
    "a message in a thread not touched before": _first_messages,
}
READS: Mapping[str, Load] = {
    "reading a thread": _asking("/{}"),
    "reading 50 messages": _asking("/{}/messages?limit=50"),
    "listing 50 threads, with their total": _asking("?limit=50"),
}
Costs = dict[str, list[list[float]]]
"""By kind of work: for each turn the CPU seconds per piece of work, one size after the other."""


async def grow(write: bool = False) -> Report:
    """All dimensions, one after the other."""
    found = {dimension: await _measured(dimension) for dimension in DIMENSIONS}
    if write:
        PICTURE.write_text(picture(found))
    return Report(
        tuple(_row(dimension, costs) for dimension, costs in found.items()),
        "\n\n".join(_details(dimension, costs) for dimension, costs in found.items()),
    )


async def _measured(dimension: Dimension) -> Costs:
    sizes = [dimension.first * factor for factor in DOUBLINGS]
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grown-"))) for _ in sizes]
        with ProcessPoolExecutor(2, get_context("spawn")) as workers:
            filled = list(workers.map(fill, places, [dimension.store(size) for size in sizes]))
        parleys = []
        for place, there in zip(places, filled, strict=True):
            # One after the other, since a fold takes a core; and started anew, so that it remembers no thread.
            with running("up", DATA=str(place)) as system:
                await _folded(system, there.facts)
            system = stack.enter_context(running("up", DATA=str(place)))
            chat = there.long if dimension.chat == "long" else there.small[:48]
            parleys.append(Grown(system, there, chat, list(there.small[48:-48])))
        kinds = {name: load for name, load in {**WRITES, **READS}.items() if _fits(dimension, name)}
        for grown in parleys:
            await _warm(grown)
        costs: Costs = {name: [] for name in kinds}
        for turn in range(-1, TURNS):
            for name, load in kinds.items():
                order = range(len(parleys)) if turn % 2 else reversed(range(len(parleys)))
                spent = {index: await _spent(parleys[index], load) for index in order}
                if turn >= 0:  # the first one warms
                    costs[name].append([spent[index] for index in range(len(parleys))])
        return costs


def _fits(dimension: Dimension, name: str) -> bool:
    """A long thread that was not touched before is loaded whole: that is no cost of a record."""
    return dimension.chat == "small" or name != "a message in a thread not touched before"


async def _folded(system: System, facts: int) -> None:
    """Wait until the view has all that was put on the log, and PostgreSQL has done the housekeeping of that."""
    owner = await asyncpg.connect(str(system.ready["postgres"]))
    try:
        async with asyncio.timeout(_FOLD_S):
            while (await owner.fetchval("SELECT sum(next_offset) FROM parley.positions")) < facts:
                await asyncio.sleep(0.1)
            await owner.execute("VACUUM ANALYZE")
            await owner.execute("CHECKPOINT")
    finally:
        await owner.close()


async def _spent(grown: Grown, load: Load) -> float:
    """CPU seconds per piece of work, the fold of it included."""
    pids = [pid for kind in grown.system.pids.values() for pid in kind]
    before = fine_cpu_seconds(pids)
    count = await load(grown)
    await asyncio.sleep(_SETTLE_S)
    return cpu_between(before, fine_cpu_seconds(pids)) / count


def typical(turns: Sequence[Sequence[float]]) -> list[float]:
    """What each size costs: the median of its turns."""
    return [median(turn[index] for turn in turns) for index in range(len(turns[0]))]


def doublings(costs: Sequence[float]) -> list[float]:
    """What each doubling does to the cost."""
    return [after / before for before, after in pairwise(costs)]


def _row(dimension: Dimension, costs: Costs) -> Row:
    told = {name: doublings(typical(costs[name])) for name in WRITES if name in costs}
    last = dimension.first * DOUBLINGS[-1]
    return Row(
        f"growth: CPU of a message's records, {dimension.name} from {dimension.first:,} to {last:,}",
        "within 10 % at each doubling",
        "; ".join(f"{name} × {', '.join(f'{ratio:.2f}' for ratio in found)}" for name, found in told.items()),
        all(ratio <= LIMIT for found in told.values() for ratio in found),
    )


def _details(dimension: Dimension, costs: Costs) -> str:
    sizes = [f"{dimension.first * factor:,}" for factor in DOUBLINGS]
    lines = [
        f"CPU of all processes in ms while {dimension.name} grow: medians of {TURNS} turns (×: each doubling)",
        "",
        f"| | {' | '.join(sizes)} | × |",
        f"|---|{'---|' * len(sizes)}---|",
    ]
    for name, turns in costs.items():
        each = typical(turns)
        told = " | ".join(f"{cost * 1000:.2f}" for cost in each)
        lines.append(f"| {name} | {told} | {', '.join(f'{ratio:.2f}' for ratio in doublings(each))} |")
    return "\n".join(lines)


def picture(found: Mapping[Dimension, Costs]) -> str:
    """The plot: cost beside the smallest store's, over the size."""
    return svg(
        "CPU of a record while the store grows, beside the smallest store's",
        [
            Panel(
                f"while {dimension.name} double",
                dimension.name,
                "× the smallest",
                tuple((float(factor), f"{dimension.first * factor:,}") for factor in DOUBLINGS),
                tuple(
                    Line(
                        name,
                        tuple(
                            (float(x), cost / typical(turns)[0])
                            for x, cost in zip(DOUBLINGS, typical(turns), strict=True)
                        ),
                    )
                    for name, turns in costs.items()
                ),
                log=True,
                band=(0.9, 1.1),
            )
            for dimension, costs in found.items()
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    report = uvloop.run(grow(parser.parse_args().write))
    print(f"{table(report.rows)}\n\n{report.details}")

"""`make soak`: half load for a quarter of an hour, and the memory of every process all the while.

`python -m tests.bench.soak [minutes]` takes another time. A cluster on real Kafka; 128 clients, each of which makes a
thread, takes a stream of 200 deltas at 20 ms with a tool call, reads the messages, and says something more, over and
over: about 30 long streams a second at most, half of what 256 paced clients are, which is as many as two cores keep at
that pace. What is bounded has to be full when memory is looked at: before it counts there are 50,000 short runs, each
in a thread of its own (a gateway remembers the last 50,000 of them), and half a minute of the load itself; the
dispatcher keeps 16 MB of threads, not 256, and so lets go of some all the time; the broker's JVM touches its whole heap
(768 MB) at the start, so that what it might take later is in the figure from the beginning. It ends by itself; a run of
15 minutes or more writes its figures to `RESULTS.md` and `docs/soak.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import Counter
from pathlib import Path
from time import monotonic

import uvloop

from tests.bench.client import Client, Refused, counted, text_of
from tests.bench.memory import LIMIT, Kept, Sample, judged, look
from tests.bench.plot import Line, Panel, svg
from tests.bench.report import Report, Row, page, written
from tests.bench.system import System, conditions, running

PICTURE = Path(__file__).parents[2] / "docs" / "soak.svg"
CLIENTS = 128
DELTAS, PACE_MS = 200, 20
MINUTES = 15.0
WARM_RUNS = 50_000
WARM_S = 30.0
EVERY_S = 5.0
_STREAM_S = 60.0
_FILL_S = 600.0
_TRIES = 10
_SCRIPT = f'/stream {DELTAS} {PACE_MS}\n/tool echo {{"n": 1}}'
_ENVIRONMENT = {"PARLEY_CACHE_MB": "16", "_JAVA_OPTIONS": "-Xms768m -XX:+AlwaysPreTouch"}


class Load:
    """The clients. `filled`: how many short runs there were first; `streams`: how many were whole; `wrong`: what went
    wrong instead, by its words; `again`: how often a read was asked for again after a 503."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.filled, self.streams, self.again = 0, 0, 0
        self.wrong = Counter[str]()

    async def fill(self, runs: int) -> None:
        """Make that many short runs, as fast as they can be had; fewer where they take too long."""
        left, until = iter(range(runs)), monotonic() + _FILL_S

        async def client() -> None:
            async with Client(self._system.base_url, self._system.key, _STREAM_S) as client:
                for _ in left:
                    try:
                        await client.say(await client.thread(), "/text warm")
                        self.filled += 1
                    except Refused:
                        await asyncio.sleep(1.0)  # more than it can take is asked of it here
                    if monotonic() > until:
                        return

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def run(self, until: float) -> None:
        """Until that time, by the monotonic clock; streams that were begun are taken to their end."""
        await asyncio.gather(*(self._client(number, until) for number in range(CLIENTS)))

    async def _client(self, number: int, until: float) -> None:
        await asyncio.sleep(4.0 * number / CLIENTS)
        while monotonic() < until:
            try:
                async with Client(self._system.base_url, self._system.key, _STREAM_S) as client:
                    await self._visit(client)
            except (OSError, TimeoutError, AssertionError) as error:
                self.wrong[f"{type(error).__name__}: {str(error)[:120]}"] += 1
                await asyncio.sleep(1.0)

    async def _visit(self, client: Client) -> None:
        thread = await client.thread()
        assert text_of(await client.say(thread, _SCRIPT)) == counted(DELTAS), "a stream is not whole"
        self.streams += 1
        await self._patiently(client, f"/api/v1/chat/threads/{thread}/messages")
        assert text_of(await client.say(thread, "/text Thanks.")) == "Thanks.", "a stream is not whole"
        self.streams += 1

    async def _patiently(self, client: Client, path: str) -> None:
        """Ask as clients do: again after a second where a moment's 503 says so."""
        for _ in range(_TRIES):
            try:
                await client.ask("GET", path)
                return
            except Refused as refused:
                if refused.status != 503:
                    raise
                self.again += 1
                await asyncio.sleep(1.0)
        raise AssertionError(f"{path} was refused {_TRIES} times")


async def soak(minutes: float = MINUTES, warm_runs: int = WARM_RUNS) -> tuple[Report, str]:
    """The report, and the plot."""
    with running("cluster", **_ENVIRONMENT) as system:
        load = Load(system)
        await load.fill(warm_runs)
        begin = monotonic() + WARM_S
        until = begin + minutes * 60
        loading = asyncio.create_task(load.run(until))
        samples: list[tuple[float, Sample]] = []
        try:
            while (now := monotonic()) < until:
                samples.append((now - begin, look(system.pids)))
                await asyncio.sleep(EVERY_S)
                if loading.done():
                    loading.result()
            await asyncio.wait_for(loading, _STREAM_S * 3)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
    third = minutes * 60 / 3
    return _report(minutes, load, judged(samples, third, third * 2)), _picture(samples)


def _report(minutes: float, load: Load, kept: list[Kept]) -> Report:
    third, lost = minutes / 3, sum(load.wrong.values())
    worst = max(kept, key=lambda process: process.ratio)
    rows = (
        Row(
            f"soak of {minutes:g} minutes at half load: memory in the last {third:.3g}, by that at minute {third:.3g}",
            f"≤ {LIMIT} in every process",
            f"{worst.ratio:.3f} at most ({worst.name}); {load.filled:,} short runs before",
            worst.ratio <= LIMIT,
        ),
        Row(
            "soak: streams lost, requests failed",
            "0",
            f"{lost} of {load.streams + lost:,} streams (reads asked for again after a 503: {load.again})",
            lost == 0,
        ),
    )
    lines = [
        f"| process, MB | minute {third:.3g} | last {third:.3g} minutes: median | most | most by minute {third:.3g} |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {process.name} | {process.filled:.1f} | {process.middle:.1f} | {process.most:.1f} | {process.ratio:.3f} |"
        for process in kept
    ]
    lines += [f"\n{number} ×: {words}" for words, number in load.wrong.most_common(10)]
    return Report(rows, "\n".join(lines))


def _picture(samples: list[tuple[float, Sample]]) -> str:
    names = list(dict.fromkeys(name for _, sample in samples for name in sample))
    last = max(samples[-1][0] / 60, 1.0)
    step = max(round(last / 6), 1)
    ticks = tuple((float(minute), str(minute)) for minute in range(0, math.ceil(last / step) * step + 1, step))
    lines = tuple(
        Line(name, tuple((at / 60, sample[name]) for at, sample in samples if at >= 0 and name in sample))
        for name in names
    )
    title = f"Memory while {CLIENTS} clients stream, {PACE_MS} ms per delta"
    return svg(title, [Panel("every process", "minutes", "MB", ticks, lines)], width=760, height=420)


def main(minutes: float, warm_runs: int, write: bool) -> None:
    report, plot = uvloop.run(soak(minutes, warm_runs))
    measured = page(conditions(), [report])
    print(measured)
    if write:
        PICTURE.write_text(plot)
        written("soak", measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=MINUTES)
    parser.add_argument("--warm-runs", type=int, default=WARM_RUNS)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md although it is a short one")
    asked = parser.parse_args()
    main(asked.minutes, asked.warm_runs, asked.write or asked.minutes >= MINUTES)

"""One run watched by many: CPU per delivered frame. `python -m tests.bench.watch [watchers]`, under a minute.

A cluster with one gateway. The watchers follow one run of 250 model deltas at 20 ms from its beginning; each is checked
to have its text whole. CPU is the gateway's alone, from before the message until every watcher has the end.
"""

from __future__ import annotations

import asyncio
import sys
from statistics import median

import uvloop

from tests.bench.client import Client, counted, text_of
from tests.bench.figures import cpu_between, cpu_seconds
from tests.bench.followers import follow, raise_nofile
from tests.bench.report import Report, Row, table
from tests.bench.system import System, running

WATCHERS = 1000
DELTAS = 250
ROUNDS = 3
_LIMIT_S = 90.0


async def watched(watchers: int = WATCHERS) -> Report:
    """The median of a few runs."""
    raise_nofile()
    with running("cluster", GATEWAYS="1") as system:
        rounds = [await _round(system, watchers) for _ in range(ROUNDS)]
    each = median(used for used, _ in rounds)
    frames = median(count for _, count in rounds)
    return Report(
        (
            Row(
                f"one run watched by {watchers:,} clients: the gateway's CPU per delivered frame",
                "≤ 15 µs",
                f"{each:.1f} µs (median of {', '.join(f'{used:.1f}' for used, _ in rounds)}; {frames:.0f} frames each)",
                each <= 15,
            ),
        )
    )


async def _round(system: System, watchers: int) -> tuple[float, float]:
    """One run: µs of CPU per frame, and how many frames each watcher had."""
    async with asyncio.timeout(_LIMIT_S), Client(system.base_url, system.key) as client:
        thread = await client.thread()
        await client.say(thread, "/text warm")
        opened = await follow(system, [thread] * watchers)
        await asyncio.gather(*(watcher.ended for watcher in opened.followers))  # that one was seen
        for watcher in opened.followers:
            watcher.listen_again()
        before = cpu_seconds(system.pids["gateway"])
        message = {"content": f"/stream {DELTAS} 20"}
        await client.ask("POST", f"/api/v1/chat/threads/{thread}/messages", message)
        await asyncio.gather(*(watcher.ended for watcher in opened.followers))
        used = cpu_between(before, cpu_seconds(system.pids["gateway"]))
    for watcher in opened.followers:
        assert text_of(bytes(watcher.data)) == counted(DELTAS), "a watcher's text is not whole"
    frames = sum(watcher.data.count(b"\ndata: ") for watcher in opened.followers)
    opened.close()
    return used / frames * 1e6, frames / watchers


if __name__ == "__main__":
    print(table(uvloop.run(watched(int(sys.argv[1]) if len(sys.argv) > 1 else WATCHERS)).rows))

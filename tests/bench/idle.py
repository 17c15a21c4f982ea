"""Streams that are open and idle: memory of the gateway for each, and whether any is dropped. A few minutes.

`python -m tests.bench.idle [streams]`: a cluster with one gateway. First all of them on one thread, then each ten on a
thread of their own, opened at a bounded rate. They stay open longer than the pause after which a comment is sent; then
a message is told to every one of them.
"""

from __future__ import annotations

import asyncio
import sys

import psutil
import uvloop

from tests.bench.client import Client
from tests.bench.followers import Opened, follow, raise_nofile
from tests.bench.report import Report, Row, table
from tests.bench.system import System, running

STREAMS = 10_000
TO_A_THREAD = 10
_BEAT_S = 16.0
_LIMIT_S = 240.0
_MAKERS = 16


async def idle(streams: int = STREAMS) -> Report:
    """Both ways."""
    nofile = raise_nofile()
    if nofile < streams + 200:
        said = f"not measured: the limit of open files here is {nofile}, and {streams + 200} are needed"
        return Report((Row(f"idle open stream, {streams:,} on one gateway", "≤ 20 KB, none dropped", said, None),))
    rows = []
    for what, count in (("one thread", 1), (f"{streams // TO_A_THREAD:,} threads", streams // TO_A_THREAD)):
        with running("cluster", GATEWAYS="1") as system:
            rows.append(await _measured(system, streams, what, count))
    return Report(tuple(rows))


async def _measured(system: System, streams: int, what: str, count: int) -> Row:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_LIMIT_S):
        threads = await _threads(system, count)
        # Whatever a first stream brings along is not the price of another.
        (await _listening(system, threads[:1] * 50)).close()
        [gateway] = [psutil.Process(pid) for pid in system.pids["gateway"]]
        first, began = gateway.memory_info().rss, loop.time()
        opened = await _listening(system, [threads[n % count] for n in range(streams)])
        opening = loop.time() - began
        await asyncio.sleep(_BEAT_S)
        each, files = (gateway.memory_info().rss - first) / streams / 1024, gateway.num_fds()
        for follower in opened.followers:
            follower.listen_again()
        told = loop.time()
        await _say(system, threads)
        await asyncio.gather(*(follower.ended for follower in opened.followers), return_exceptions=True)
        awake, lost = loop.time() - told, opened.lost
    opened.close()
    again = ", ".join(f"{number} × {status}" for status, number in sorted(opened.again.items())) or "none"
    return Row(
        f"idle open stream, {streams:,} on one gateway, {what}",
        "≤ 20 KB, none dropped",
        f"{each:.1f} KB, {lost} dropped; opened in {opening:.0f} s (asked again: {again}), a message was told to the "
        f"last after {awake:.1f} s; `nofile` above {files:,}",
        each <= 20 and lost == 0,
    )


async def _threads(system: System, count: int) -> list[str]:
    """New threads, each with a run that has ended."""

    async def some(number: int) -> list[str]:
        async with Client(system.base_url, system.key) as client:
            made = [await client.thread() for _ in range(number)]
            for thread in made:
                await client.say(thread, "/text warm")
            return made

    shares = [count // _MAKERS + (n < count % _MAKERS) for n in range(_MAKERS)]
    return [thread for made in await asyncio.gather(*(some(number) for number in shares)) for thread in made]


async def _say(system: System, threads: list[str]) -> None:
    async def some(mine: list[str]) -> None:
        async with Client(system.base_url, system.key) as client:
            for thread in mine:
                await client.ask("POST", f"/api/v1/chat/threads/{thread}/messages", {"content": "/text awake"})

    await asyncio.gather(*(some(threads[n::_MAKERS]) for n in range(_MAKERS) if threads[n::_MAKERS]))


async def _listening(system: System, threads: list[str]) -> Opened:
    """Open streams that have been told all that there was."""
    opened = await follow(system, threads)
    await asyncio.gather(*(follower.ended for follower in opened.followers))
    return opened


if __name__ == "__main__":
    print(table(uvloop.run(idle(int(sys.argv[1]) if len(sys.argv) > 1 else STREAMS)).rows))

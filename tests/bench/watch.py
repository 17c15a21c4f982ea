"""One run watched by many, and streams that are open and idle: CPU per delivered frame, and memory per stream.

`python -m tests.bench.watch [--watchers 1000] [--idle 2000]`: a cluster with one gateway. The watchers follow one run
of 250 model deltas at 20 ms from its beginning; each is checked to have its text whole. CPU is the gateway's alone,
from before the message until every watcher has the end. Bounded: it ends by itself within two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
from typing import cast
from urllib.parse import urlsplit

import httpx2
import psutil
import uvloop

from tests.bench.figures import cpu_between, cpu_seconds
from tests.bench.system import System, running

DELTAS = 250
LIMIT_S = 90.0


class _Watcher(asyncio.Protocol):
    """Counts the frames of a stream, and keeps its bytes; no work per frame beyond that."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.data = bytearray()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._raw)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.opened.done() and b"\r\n\r\n" in self.data:
            self.opened.set_result(None)
        if b'"run.completed"' in data and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(ConnectionError(f"the stream ended early: {bytes(self.data[:300])!r}"))


async def _open(system: System, path: str, count: int) -> list[_Watcher]:
    where = urlsplit(system.base_url)
    assert where.hostname is not None and where.port is not None
    raw = (
        f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {system.key}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    watchers: list[_Watcher] = []
    for first in range(0, count, 100):
        made = [
            loop.create_connection(lambda: _Watcher(raw), where.hostname, where.port)
            for _ in range(min(100, count - first))
        ]
        watchers += [protocol for _, protocol in await asyncio.gather(*made)]
        await asyncio.gather(*(watcher.opened for watcher in watchers[first:]))
    return watchers


def _rss(system: System) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in system.pids["gateway"])


async def main(watchers: int, idle: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running("cluster", GATEWAYS="1") as system:
        headers = {"Authorization": f"Bearer {system.key}"}
        async with httpx2.AsyncClient(base_url=system.base_url, headers=headers, timeout=LIMIT_S) as client:
            async with asyncio.timeout(LIMIT_S):
                thread = (await client.post("/api/v1/chat/threads", json={"agent_id": "scripted"})).json()["id"]
                messages = f"/api/v1/chat/threads/{thread}/messages"
                await client.post(messages, params={"wait": ""}, json={"content": "/text warm"})
                opened = await _open(system, f"/api/v1/chat/threads/{thread}/events", watchers)
                await asyncio.gather(*(watcher.ended for watcher in opened))  # that one was seen
                for watcher in opened:
                    watcher.ended = asyncio.get_running_loop().create_future()
                    watcher.data.clear()
                before = cpu_seconds(system.pids["gateway"])
                await client.post(messages, json={"content": f"/stream {DELTAS} 20"})
                await asyncio.gather(*(watcher.ended for watcher in opened))
                used = cpu_between(before, cpu_seconds(system.pids["gateway"]))
        frames = [watcher.data.count(b"\ndata: ") for watcher in opened]
        wanted = "".join(f"{i:04d} " for i in range(DELTAS))
        for watcher in opened:
            lines = [line[6:] for line in bytes(watcher.data).split(b"\n") if line.startswith(b"data: ")]
            told = [json.loads(line) for line in lines]
            assert "".join(frame["delta"] for frame in told if frame["type"] == "text.delta") == wanted
        print(
            f"{watchers} watchers: {sum(frames)} frames delivered, {used:.2f} s of the gateway's CPU, "
            f"{used / sum(frames) * 1e6:.1f} µs per frame ({sum(frames) / watchers:.0f} frames each)"
        )
        for watcher in opened:
            assert watcher.transport is not None
            watcher.transport.close()
        await asyncio.sleep(2)
        async with httpx2.AsyncClient(base_url=system.base_url, headers=headers, timeout=LIMIT_S) as client:
            thread = (await client.post("/api/v1/chat/threads", json={"agent_id": "scripted"})).json()["id"]
            messages = f"/api/v1/chat/threads/{thread}/messages"
            await client.post(messages, params={"wait": ""}, json={"content": "/text warm"})
        first = _rss(system)
        async with asyncio.timeout(LIMIT_S):
            quiet = await _open(system, f"/api/v1/chat/threads/{thread}/events", idle)
        await asyncio.gather(*(watcher.ended for watcher in quiet))  # all that was there before
        await asyncio.sleep(1)
        each = (_rss(system) - first) / idle / 1024
        loop = asyncio.get_running_loop()
        for watcher in quiet:
            watcher.ended = loop.create_future()
            watcher.data.clear()
        async with httpx2.AsyncClient(base_url=system.base_url, headers=headers, timeout=LIMIT_S) as client:
            async with asyncio.timeout(LIMIT_S):
                began = loop.time()
                await client.post(messages, json={"content": "/text awake"})
                await asyncio.gather(*(watcher.ended for watcher in quiet))
        print(
            f"{idle} idle streams: {each:.1f} KB of the gateway each; none dropped: a message was told to all of them, "
            f"to the last after {loop.time() - began:.2f} s"
        )
        for watcher in quiet:
            assert watcher.transport is not None
            watcher.transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=2000)
    chosen = parser.parse_args()
    uvloop.run(main(chosen.watchers, chosen.idle))

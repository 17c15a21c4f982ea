"""How long it takes until another dispatcher goes on with a run: `python -m tests.bench.takeover [rounds]`.

A whole cluster (real Kafka and PostgreSQL, three dispatchers, what dies is started again). Each round a run streams;
its dispatcher is killed (SIGKILL), or stopped as a stalled machine stops it (SIGSTOP), and the clock runs from there to
the first fact of the run under a newer claim, by the log's own time. `behind`: history stands still from a minute
before, under load, and goes on with the signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from aiokafka import AIOKafkaConsumer, TopicPartition

from parley_events.partition import partition_of
from tests.support.processes import family
from tests.support.runs import post
from tests.support.system import System, eventually, new_thread, start, stop

LIMIT_S = 60.0


class Facts:
    """What comes on `parley.events`: (stream, type, epoch, owner, time) per partition."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self.claims: dict[int, tuple[int, int]] = {}
        self.first: dict[str, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, auto_offset_reset="earliest")
        await self._consumer.start()
        self._consumer.assign([TopicPartition("parley.events", p) for p in range(8)])
        await self._consumer.seek_to_beginning()
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            heads = dict(record.headers)
            if heads["ce_type"] == b"partition.claimed":
                pid = int(heads["ce_causationid"].rpartition(b"-")[2])
                self.claims[record.partition] = (record.offset, pid)
            elif "ce_runid" in heads and int(heads["ce_epoch"]) == self.claims[record.partition][0]:
                key = f"{heads['ce_subject'].decode()}@{int(heads['ce_epoch'])}"
                self.first.setdefault(key, (record.timestamp, record.offset))


async def ready(system: System) -> None:
    async def check() -> bool:
        async with httpx2.AsyncClient(trust_env=False, timeout=3.0) as client:
            for service, count in (("dispatcher", 3), ("gateway", 1), ("history", 1)):
                for index in range(count):
                    if (await client.get(system.url(service, index) + "/readyz")).status_code != 200:
                        return False
        return True

    async def patiently() -> bool:
        try:
            return await check()
        except Exception:
            return False

    await eventually(patiently, LIMIT_S)


async def one(system: System, facts: Facts, how: str) -> float:
    """One round; seconds."""
    await ready(system)
    async with system.client() as client:
        thread = await new_thread(client)
    partition = partition_of(thread.encode(), 8)
    frozen: list[int] = []
    await post(system, thread, "/stream 4000 20")
    await eventually(lambda: _has(facts, thread, partition), 20.0)
    epoch, pid = facts.claims[partition]
    if how == "behind":
        frozen = family(system.pid("history"))
        for member in frozen:
            os.kill(member, signal.SIGSTOP)
        await _busy(system, 60.0)
    await asyncio.sleep(0.3)
    began = time.time()
    os.kill(pid, signal.SIGSTOP if how == "stop" else signal.SIGKILL)
    for member in frozen:
        os.kill(member, signal.SIGCONT)
    until = time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < until:
            for key, (at, _) in facts.first.items():
                if key.startswith(thread) and int(key.rpartition("@")[2]) > epoch:
                    return at / 1000 - began
            await asyncio.sleep(0.02)
    finally:
        if how == "stop":
            os.kill(pid, signal.SIGCONT)
        async with system.client() as client:
            await client.post(f"/api/v1/chat/threads/{thread}/clear", json={})
            await client.delete(f"/api/v1/chat/threads/{thread}")
    raise AssertionError(f"nobody went on with {thread}")


async def _has(facts: Facts, thread: str, partition: int) -> bool:
    return f"{thread}@{facts.claims[partition][0]}" in facts.first


async def _busy(system: System, seconds: float) -> None:
    """Messages and their runs, for as long as history stands still."""
    until = time.monotonic() + seconds
    async with system.client() as client:
        threads = [await new_thread(client) for _ in range(8)]
        while time.monotonic() < until:
            for thread in threads:
                await client.post(f"/api/v1/chat/threads/{thread}/messages", json={"content": "/text on we go"})
            await asyncio.sleep(0.2)


async def measure(rounds: int, behind: int) -> None:
    with tempfile.TemporaryDirectory(prefix="takeover-") as folder:
        system = start(
            "cluster", Path(folder), RESTART="1", GATEWAYS="1", DISPATCHERS="3", HISTORIES="1", PARLEY_DRAIN_S="8"
        )
        try:
            facts = Facts(system.ready()["kafka"])
            await facts.start()
            for how, count in (("kill", rounds), ("stop", rounds), ("behind", behind)):
                took = []
                for _ in range(count):
                    took.append(await one(system, facts, how))
                    print(f"{how}: {took[-1]:.2f} s", flush=True)
                if took:
                    print(
                        f"{how}: {len(took)} takeovers, p50 {statistics.median(took):.2f} s, max {max(took):.2f} s",
                        flush=True,
                    )
            await facts.close()
        finally:
            stop(system)


if __name__ == "__main__":
    asyncio.run(
        measure(
            int(sys.argv[1]) if len(sys.argv) > 1 else 20,
            int(sys.argv[2]) if len(sys.argv) > 2 else 2,
        )
    )

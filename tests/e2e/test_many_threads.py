"""Streams of many threads on real parts, and what becomes of open streams when their gateway is told to stop.

A cluster of its own with two gateways, one of which is stopped, and started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest

from tests.support.many import ManyClient, events_of
from tests.support.system import System, eventually, new_thread, start, stop

pytestmark = pytest.mark.breaks

CHAT = "/api/v1/chat"
DRAIN_S = 6
SCRIPT = '/think Well. \n/stream 40 20\n/tool echo {"n": 1}\n/stream 40 20\n/text  caf\\u00e9 \\ud83d\\ude00'
LONG = "/stream 600 20\n/text  the end"
LONG_TEXT = "".join(f"{n:04d} " for n in range(600)) + " the end"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two gateways; one that stops is started again."""
    folder = tmp_path_factory.mktemp("pair")
    system = start("cluster", folder, RESTART="1", GATEWAYS="2", DISPATCHERS="2", PARLEY_DRAIN_S=str(DRAIN_S))
    yield system
    assert stop(system) == 0


@asynccontextmanager
async def opened(client: httpx2.AsyncClient, path: str, cursor: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
    """The events of a stream, from a cursor on."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
    async with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, (response.status_code, await response.aread())
        async with aclosing(events_of(response)) as events:  # type: ignore[type-var]
            yield events


async def post(client: httpx2.AsyncClient, thread: str, script: str) -> str:
    answer = await client.post(f"{CHAT}/threads/{thread}/messages", json={"content": script})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


async def watch(client: httpx2.AsyncClient, path: str, into: ManyClient, runs: int) -> None:
    """Follow, and come back whenever the stream ends, until so many runs have ended."""
    while ended(into) < runs:
        with suppress(httpx2.TransportError):
            async with opened(client, path, into.cursor) as events:
                async for event in events:
                    into.take(event)
                    if ended(into) >= runs:
                        return


def ended(client: ManyClient) -> int:
    return sum(fact["type"] == "run.completed" for facts in client.facts.values() for fact in facts)


async def test_who_moves_between_gateways_has_what_one_has_that_never_left(pair: System) -> None:
    rng = random.Random(5)
    async with pair.client(0) as first, pair.client(1) as second:
        threads = [await new_thread(first) for _ in range(8)]
        path = f"{CHAT}/events?deltas=true&threads={','.join(threads)}"
        whole, stayed, moved = ManyClient(), ManyClient(), ManyClient()
        runs = 24
        staying = [
            asyncio.create_task(watch(second, path, stayed, runs)),
            asyncio.create_task(watch(first, f"{CHAT}/events?deltas=true", whole, runs)),
        ]
        await eventually(_has_cursor(stayed, whole))
        moved.cursor = stayed.cursor
        for thread in threads * 3:
            await post(first, thread, SCRIPT)
        moves = 0
        async with asyncio.timeout(60):
            while ended(moved) < runs:
                moves += 1
                left = rng.randrange(1, 25)
                async with opened(rng.choice((first, second)), path, moved.cursor) as events:
                    async for event in events:
                        moved.take(event)
                        left -= 1
                        if left == 0 or ended(moved) == runs:
                            break
            await asyncio.gather(*staying)
        assert moves > 8 and stayed.deltas > 200, "too little happened to say anything"
        assert moved.facts == stayed.facts
        assert {thread: whole.facts[thread] for thread in threads} == stayed.facts
        assert moved.texts == stayed.texts
        for thread in threads:
            page = (await first.get(f"{CHAT}/threads/{thread}/messages")).json()
            answers = [item["content"] for item in page["items"] if item["role"] == "assistant"]
            calls = sorted(place for place in moved.texts if place[0] == thread)
            told = "".join(moved.texts[place] for place in calls if moved.texts[place] != "Well. ")
            assert told == "".join(answers)


def _has_cursor(*clients: ManyClient) -> Any:
    async def check() -> bool:
        return all(client.cursor for client in clients)

    return check


class Follower:
    """One stream that is followed wherever it goes; `broke`: when its gateway ended it."""

    def __init__(self, path: str) -> None:
        self.path, self.cursor, self.retry_ms = path, "", 0
        self.frames: list[dict[str, Any]] = []
        self.broke = 0.0
        self.began = asyncio.Event()

    @property
    def done(self) -> bool:
        return any(frame["type"] == "run.completed" for frame in self.frames)

    async def follow(self, client: httpx2.AsyncClient, then: httpx2.AsyncClient) -> None:
        """At one gateway until that ends it, and from there on at the other."""
        while True:
            async with opened(then if self.broke else client, self.path, self.cursor or None) as events:
                async for event in events:
                    self._take(event)
                    if self.done:
                        return
            self.broke = self.broke or asyncio.get_running_loop().time()

    def _take(self, event: bytes) -> None:
        for line in event.decode().split("\n"):
            name, _, value = line.partition(": ")
            if name == "id":
                self.cursor = value
            elif name == "retry":
                self.retry_ms = int(value)
            elif name == "data":
                self.frames.append(json.loads(value))
                self.began.set()

    @property
    def text(self) -> str:
        return "".join(frame["delta"] for frame in self.frames if frame["type"] == "text.delta")


async def test_streams_of_a_gateway_that_stops_end_one_after_the_other_and_go_on_at_the_other(pair: System) -> None:
    loop = asyncio.get_running_loop()
    async with pair.client(0, timeout_s=90) as leaving, pair.client(1, timeout_s=90) as staying:
        threads = [await new_thread(staying) for _ in range(8)]
        many = ManyClient()
        runs = [await post(staying, thread, LONG) for thread in threads]
        followers = [Follower(f"{CHAT}/threads/{thread}/events") for thread in threads]
        followers += [Follower(f"{CHAT}/runs/{run}/events") for run in runs]
        tasks = [asyncio.create_task(follower.follow(leaving, staying)) for follower in followers]
        broken: list[float] = []
        path = f"{CHAT}/events?deltas=true&threads={','.join(threads)}"

        async def follow_many(into: ManyClient) -> None:
            async with opened(leaving, path, None) as events:
                async for event in events:
                    into.take(event)
            broken.append(loop.time())
            await watch(staying, path, into, len(runs))

        tasks.append(asyncio.create_task(follow_many(many)))
        async with asyncio.timeout(30):
            await asyncio.gather(*(follower.began.wait() for follower in followers))
            await eventually(_has_cursor(many))
        gone = pair.pid("gateway", 0)
        told = loop.time()
        os.kill(gone, signal.SIGTERM)
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)

        async def ended_and_back() -> bool:
            return pair.pid("gateway", 0) != gone

        await eventually(ended_and_back)
        assert [follower.text for follower in followers] == [LONG_TEXT] * len(followers)
        assert all(len({f["seq"] for f in _facts(one)}) == len(_facts(one)) for one in followers), "a fact came twice"
        assert {place[0]: text for place, text in many.texts.items()} == dict.fromkeys(threads, LONG_TEXT)
        assert {thread: seqs[-1] for thread, seqs in many.seqs.items()} == {
            thread: max(frame["seq"] for frame in follower.frames)
            for thread, follower in zip(threads, followers, strict=False)
        }
        ends = sorted(follower.broke - told for follower in followers if follower.broke) + [at - told for at in broken]
        assert len(ends) == len(followers) + 1, "none may have ended by itself: the runs are longer than the time"
        assert max(ends) < DRAIN_S + 1
        parts = sorted(int(at / (DRAIN_S * 0.8) * 4) for at in ends)
        assert {0, 1, 2, 3} <= set(parts), f"not spread over the time: {ends}"
        endless, others = followers[: len(threads)], followers[len(threads) :]
        assert max(one.broke for one in endless) < min(one.broke for one in others), "runs are left for last"
        hints = [follower.retry_ms for follower in followers] + [many.retry_ms or 0]
        assert all(200 <= hint <= 1000 for hint in hints) and len(set(hints)) > 8


def _facts(follower: Follower) -> list[dict[str, Any]]:
    return [frame for frame in follower.frames if not frame["type"].endswith(".delta")]

"""Clients of the system under test, who write down everything: what they asked, what they were answered, what they saw.

Client     requests, tried again with the same key until they are answered; a lost answer is written down as that
watch      a follower of a run or a thread, which may leave at random frames and comes back at another gateway
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from tests.faults.cluster import COUNTS, Cluster
from tests.faults.evidence import Contract, Follower, Frame, Leg, Request
from tests.support.sse import frames_of

WHO = "owner"
RETRY_S = 0.15
ENDS = {
    "threads": ("run.completed", "run.failed", "run.cancelled"),
    "org_chat": ("complete", "error"),
}
"""The frames after which nothing follows, by contract."""
BASES = {"threads": "/api/v1/chat", "org_chat": "/api/org/chat"}


def now_ms() -> int:
    """The harness's monotonic clock."""
    return int(time.monotonic() * 1000)


@dataclass(slots=True)
class Record:
    """What all clients of a run of the suite have written down."""

    requests: list[Request] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)


class Client:
    """One client. `limit_s`: how long it keeps trying."""

    def __init__(
        self, name: str, cluster: Cluster, record: Record, chance: random.Random, limit_s: float = 90.0
    ) -> None:
        self.name, self._cluster, self._record, self._chance, self._limit_s = name, cluster, record, chance, limit_s

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
    ) -> tuple[int, Any]:
        """The answer to a request: with a key it is tried again, at the next gateway, while it is lost or refused for
        now (503); without one it is tried once, and (0, None) says that the answer was lost."""
        gateway = self._chance.randrange(COUNTS["gateway"])
        until = time.monotonic() + self._limit_s
        while True:
            status, answer = await self._once(gateway, method, path, body, key)
            if key is None or (status not in (0, 503) and status < 500):
                return status, answer
            if time.monotonic() > until:
                raise AssertionError(f"{self.name}: {method} {path} was not answered in {self._limit_s:g} s: {status}")
            gateway += 1
            await asyncio.sleep(RETRY_S)

    async def _once(
        self, gateway: int, method: str, path: str, body: dict[str, Any] | None, key: str | None
    ) -> tuple[int, Any]:
        asked = Request(
            self.name, WHO, gateway % COUNTS["gateway"], method, path.partition("?")[0], now_ms(), body=body, key=key
        )
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            async with self._cluster.client(gateway) as http:
                came = await http.request(method, path, json=body, headers=headers)
                answer = came.json() if came.content else None
        except (httpx2.HTTPError, ValueError):
            self._record.requests.append(replace(asked, ended_ms=now_ms()))
            return 0, None
        self._record.requests.append(
            replace(
                asked,
                status=came.status_code,
                answer=answer if isinstance(answer, dict) else None,
                run_id=came.headers.get("Parley-Run-Id"),
                ended_ms=now_ms(),
            )
        )
        return came.status_code, answer

    async def said(self, path: str, body: dict[str, Any], key: str) -> str | None:
        """Post a message that is answered with a stream, let go of the stream at once, and give the run's id; tried
        again until it was accepted (None: it was refused)."""
        gateway = self._chance.randrange(COUNTS["gateway"])
        until = time.monotonic() + self._limit_s
        while True:
            asked = Request(self.name, WHO, gateway % COUNTS["gateway"], "POST", path, now_ms(), body=body, key=key)
            with suppress(httpx2.HTTPError):
                async with (
                    self._cluster.client(gateway) as http,
                    http.stream("POST", path, json=body, headers={"Idempotency-Key": key}) as came,
                ):
                    run_id = came.headers.get("Parley-Run-Id")
                    asked = replace(asked, status=came.status_code, run_id=run_id)
            self._record.requests.append(replace(asked, ended_ms=now_ms()))
            if asked.status is not None and asked.status < 500:
                return asked.run_id
            if time.monotonic() > until:
                raise AssertionError(f"{self.name}: POST {path} was not accepted in {self._limit_s:g} s")
            gateway += 1
            await asyncio.sleep(RETRY_S)


@dataclass(slots=True)
class Watcher:
    """A follower at work: `legs` and `seen` grow."""

    name: str
    contract: Contract
    thread_id: str
    run_id: str | None
    cluster: Cluster
    chance: random.Random
    restless: bool
    legs: list[Leg] = field(default_factory=list)
    seen: list[Frame] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def path(self) -> str:
        what = f"threads/{self.thread_id}" if self.run_id is None else f"runs/{self.run_id}"
        return f"{BASES[self.contract]}/{what}/events"

    @property
    def over(self) -> bool:
        """Whether it has seen the end of its run."""
        last = self.seen[-1].data if self.seen and self.run_id is not None else None
        return isinstance(last, dict) and last.get("type") in ENDS[self.contract]

    def so_far(self) -> Follower:
        return Follower(self.name, self.contract, self.thread_id, self.run_id, tuple(self.legs), stayed=True)

    async def run(self, limit_s: float) -> None:
        """Follow until the run's end (a thread: until `done` is set), over as many connections as it takes."""
        gateway = self.chance.randrange(COUNTS["gateway"])
        until = time.monotonic() + limit_s
        while not self.over and not self.done.is_set():
            if time.monotonic() > until:
                raise AssertionError(f"{self.name}: {self.path} did not come to its end in {limit_s:g} s")
            # Who is restless leaves after some frames, and comes back by the last id; after a while it stays.
            patience = self.chance.choice((1, 2, 3, 5, 8, 13)) if self.restless and len(self.legs) < 12 else None
            leg = await self._leg(gateway % COUNTS["gateway"], patience, until)
            self.legs.append(leg)
            gateway += 1
            if leg.over in ("cut", "refused"):
                await asyncio.sleep(RETRY_S)

    async def _leg(self, gateway: int, patience: int | None, until: float) -> Leg:
        cursor = next((frame.id for frame in reversed(self.seen) if frame.id), None)
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        opened, frames = now_ms(), []
        status, over = 0, "cut"
        leaving = asyncio.create_task(self.done.wait())
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(until - time.monotonic(), 0.1)):
                async with (
                    self.cluster.client(gateway, timeout_s=40.0) as http,
                    http.stream("GET", self.path, headers=headers) as came,
                ):
                    status = came.status_code
                    if status != 200:
                        over = "refused"
                    else:
                        coming = frames_of(came)
                        over = "end"
                        while True:
                            next_one = asyncio.ensure_future(anext(coming, None))
                            await asyncio.wait({next_one, leaving}, return_when=asyncio.FIRST_COMPLETED)
                            if not next_one.done():
                                next_one.cancel()
                                await asyncio.gather(next_one, return_exceptions=True)
                                over = "left"
                                break
                            frame = next_one.result()
                            if frame is None:
                                break
                            frames.append(Frame(frame.id, frame.data, now_ms()))
                            self.seen.append(frames[-1])
                            if patience is not None and len(frames) >= patience and not self.over:
                                over = "left"
                                break
        except (httpx2.HTTPError, TimeoutError):
            over = "cut"
        finally:
            leaving.cancel()
        if status == 0:
            over = "refused"
        return Leg(gateway, cursor, status, tuple(frames), over, opened, now_ms())  # type: ignore[arg-type]


async def until(seen: list[Frame], reached: Callable[[list[Frame]], bool], limit_s: float = 60.0) -> None:
    """Wait until what a watcher has seen satisfies `reached`."""
    async with asyncio.timeout(limit_s):
        while not reached(seen):
            await asyncio.sleep(0.02)

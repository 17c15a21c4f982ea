"""Kafka or PostgreSQL is away for longer than a moment, refusing or hanging: what is answered, and what is left after.

A cluster of its own that starts nothing again by itself: what is killed stays away until the test starts it.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from parley_standalone.parts.kafka import Kafka
from parley_standalone.parts.postgres import Postgres
from tests.e2e.conftest import MODEL
from tests.support.processes import frozen, kill
from tests.support.runs import ENDS, check_outcomes, check_run, follow, post, until
from tests.support.sse import Frame, text_of
from tests.support.system import System, collect, eventually, new_thread, start, stop
from tests.support.topics import believed, read_topic

pytestmark = pytest.mark.breaks

BOUNDED_S = 15.0
"""How long an answer may take while something is away: several times what it takes on an idle machine."""
PIECES = "".join(f"{i:04d} " for i in range(200))
SERVICES = [("gateway", 0), ("gateway", 1), ("dispatcher", 0), ("dispatcher", 1), ("history", 0)]


class Outages:
    """The cluster, and its broker and database to take away and give back."""

    def __init__(self, folder: Path) -> None:
        self.system = start("cluster", folder, GATEWAYS="2", DISPATCHERS="2", **MODEL)
        ready = self.system.ready()
        data = folder / "data"
        secret = urlsplit(ready["postgres"]).password or ""
        self.parts: dict[str, Kafka | Postgres] = {
            "kafka": Kafka(data / "kafka", folder / "kafka.log", os.environ),
            "postgres": Postgres(data / "cluster-postgres", folder / "postgres.log", secret, os.environ),
        }
        self._pids = {part: int(ready["pids"][part][0]) for part in self.parts}
        self.urls = {place: self.system.url(*place) for place in SERVICES}
        self._services = [self.system.pid(*place) for place in SERVICES]

    def away(self, part: str, how: str) -> AbstractContextManager[None]:
        return self._dead(part) if how == "dead" else frozen(self._pids[part])

    @contextmanager
    def _dead(self, part: str) -> Iterator[None]:
        """Nobody listens at the part's address within the block; after it another process does, on the same data."""
        kill(self._pids[part])
        psutil.wait_procs([psutil.Process(self._pids[part])], 10) if psutil.pid_exists(self._pids[part]) else None
        try:
            yield
        finally:
            self.parts[part].start()
            self._pids[part] = self.parts[part].pid

    def all_services_live(self) -> bool:
        """Whether each service is still the process that it was."""
        return all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in self._services)

    async def health(self, page: str) -> dict[tuple[str, int], int]:
        """What each service's health page says now."""
        async with httpx2.AsyncClient(trust_env=False, timeout=BOUNDED_S) as client:
            return {place: (await client.get(f"{url}/{page}")).status_code for place, url in self.urls.items()}

    def close(self) -> None:
        try:
            assert stop(self.system) == 0
        finally:
            for part in self.parts.values():
                part.stop(10.0)


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outages]:
    """Real Kafka, real PostgreSQL, two gateways, two dispatchers, one history."""
    made = Outages(tmp_path_factory.mktemp("outages"))
    yield made
    made.close()


async def try_to_post(system: System, gateway: int, thread: str, content: str, key: str | None) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with system.client(gateway, timeout_s=3 * BOUNDED_S) as client:
        began = time.monotonic()
        answer = await client.post(
            f"/api/v1/chat/threads/{thread}/messages", json={"content": content}, headers=headers
        )
        assert time.monotonic() - began < BOUNDED_S, f"{answer.status_code} after {time.monotonic() - began:.1f} s"
    return answer


def refused_for_now(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert isinstance(answer.json()["error"], str) and answer.json()["message"]


@pytest.mark.parametrize("how", ["dead", "hanging"])
async def test_without_kafka_nothing_is_half_accepted_and_all_goes_on_after(outages: Outages, how: str) -> None:
    system = outages.system
    async with system.client() as client:
        threads = [await new_thread(client) for _ in range(8)]
        speaking = await new_thread(client)
    for gateway in (0, 1):
        await post(system, threads[0], "/text before", gateway)
    run = (await post(system, speaking, "/stream 200 20\n/text  end"))["run_id"]
    seen: list[Frame] = []
    following = asyncio.create_task(follow(system, run, 0, seen))
    await until(seen, lambda frames: len(text_of(frames)) >= 100)
    keys = {thread: uuid.uuid4().hex for thread in threads[::2]}
    with outages.away("kafka", how):
        for _ in range(2):
            # Many at once: they must not wait for one another. Some under a key, which is to be repeated.
            answers = await asyncio.gather(
                *(
                    try_to_post(system, gateway, thread, f"/text kept {thread}", keys.get(thread))
                    for thread in threads
                    for gateway in (0, 1)
                )
            )
            for answer in answers:
                refused_for_now(answer)
        async with system.client(timeout_s=BOUNDED_S) as client:
            listed = await client.get(f"/api/v1/chat/threads/{threads[0]}/messages")
        assert listed.status_code == 200, "reading needs no Kafka"
        assert set((await outages.health("livez")).values()) == {200}
    accepted = {thread: await post(system, thread, f"/text kept {thread}", 1, key=key) for thread, key in keys.items()}
    for thread, told in accepted.items():
        assert text_of(await follow(system, told["run_id"])) == f"kept {thread}"
    await following
    await check_run(system, run, seen, PIECES + " end")
    async with system.client() as client:
        frames = await collect(
            client, "POST", f"/api/v1/chat/threads/{await new_thread(client)}/messages", json={"content": "/text fresh"}
        )
    assert text_of(frames) == "fresh"
    log = believed(await read_topic(system.ready()["kafka"], "parley.events"))
    check_outcomes(log)
    for thread in threads:
        posted = [r for r in log if r.type == "message.posted" and r.body["text"] == f"/text kept {thread}"]
        if thread in keys:
            assert len(posted) == 1, "a repeat under its key made another message"
        elif how == "dead":
            assert not posted, "what was answered with 503 could not have reached the log, and is there"
        else:
            # A hanging broker has the bytes and reads them later; whoever must know sends a key.
            assert len(posted) <= 4
    posted_runs = {r.head("ce_runid") for r in log if r.type == "message.posted"}

    async def all_ended() -> bool:
        ends = [
            r.head("ce_runid")
            for r in believed(await read_topic(system.ready()["kafka"], "parley.events"))
            if r.type in ENDS
        ]
        assert len(ends) == len(set(ends))
        return posted_runs <= set(ends)

    await eventually(all_ended, 60.0)
    assert outages.all_services_live()
    assert set((await outages.health("readyz")).values()) == {200}


@pytest.mark.parametrize("how", ["dead", "hanging"])
async def test_without_postgres_chats_go_on_and_reads_wait(outages: Outages, how: str) -> None:
    system = outages.system
    async with system.client() as client:
        known, speaking = await new_thread(client), await new_thread(client)
    await follow(system, (await post(system, known, "/text before"))["run_id"])
    run = (await post(system, speaking, "/stream 200 20\n/text  end"))["run_id"]
    seen: list[Frame] = []
    following = asyncio.create_task(follow(system, run, 0, seen))
    await until(seen, lambda frames: len(text_of(frames)) >= 100)
    chats: list[list[Frame]] = []
    with outages.away("postgres", how):
        async with system.client(timeout_s=3 * BOUNDED_S) as client:
            for thread in (known, await new_thread(client)):
                url = f"/api/v1/chat/threads/{thread}/messages"
                chats.append(await collect(client, "POST", url, json={"content": "/stream 10 10\n/text  fine"}))
                answer = await client.post(url, json={"content": "/text one more"})
                assert answer.status_code == 202, answer.text
            began = time.monotonic()
            paths = (f"threads/{known}", f"threads/{known}/messages", f"runs/{run}", "threads")
            for answer in await asyncio.gather(*(client.get(f"/api/v1/chat/{path}") for path in paths)):
                refused_for_now(answer)
            assert time.monotonic() - began < BOUNDED_S
        await following
        assert set((await outages.health("livez")).values()) == {200}
        ready = await outages.health("readyz")
        assert ready == {place: 503 if place[0] == "history" else 200 for place in SERVICES}
    assert [text_of(frames) for frames in chats] == ["".join(f"{i:04d} " for i in range(10)) + " fine"] * 2
    await check_run(system, run, seen, PIECES + " end")
    for frames in chats:
        await check_run(system, frames[-1].data["run_id"], frames, text_of(frames))

    async def ready_again() -> bool:
        return set((await outages.health("readyz")).values()) == {200}

    await eventually(ready_again, 40.0)
    assert outages.all_services_live()

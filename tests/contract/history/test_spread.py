"""A rebuild in several processes: the same view, one reason when something fails, and nobody left behind."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parley_events.codec import EVENTS_TOPIC
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.port import Outgoing
from parley_events.objects import open_objects
from parley_history.errors import RebuildRefused
from parley_history.rebuild import run as run_module
from parley_history.rebuild import schemas
from parley_history.rebuild.run import rebuild
from parley_history.rebuild.schemas import next_of
from parley_history.rebuild.spread import Part
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import random_story

PARTITIONS = 4


@asynccontextmanager
async def told(settings: Settings, folder: Path, seed: int) -> AsyncIterator[tuple[Settings, EmbeddedLog, Client]]:
    """A made-up history on an embedded log, and the view of it."""
    made = ListLog(PARTITIONS)
    random_story(seed, made, 300)
    log = await EmbeddedLog.open(folder / "log", PARTITIONS)
    try:
        producer = await log.producer()
        for record in (record for records in made.records for record in records):
            producer.send(Outgoing(EVENTS_TOPIC, record.partition, record.key, record.value, record.headers))
        await producer.close()
        here = replace(settings, log="embedded", data=folder)
        async with running(here, log) as client:
            await client.caught_up(log)
            yield here, log, client
    finally:
        await log.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Other processes are worth their start; those that were."""
    found: list[Process] = []
    start: Callable[..., Any] = asyncio.create_subprocess_exec

    async def noted(*words: str, **options: Any) -> Process:
        process: Process = await start(*words, **options)
        found.append(process)
        return process

    monkeypatch.setattr(run_module, "WORTH_IT", 1)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return found


async def test_what_several_processes_fold_is_the_live_view(
    settings: Settings, tmp_path: Path, started: list[Process]
) -> None:
    async with told(settings, tmp_path, 5) as (here, log, client):
        before = await client.get("/positions")
        heard: list[int] = []
        outcome = await rebuild(
            here, log, open_objects("memory:"), tell=lambda progress: heard.append(progress.done), processes=3
        )
        assert outcome.switched and not outcome.differences
        assert len(started) == 3 and all(process.returncode == 0 for process in started)
        assert outcome.records in heard
        assert (await client.get("/positions"))["partitions"] == before["partitions"]


async def test_a_process_that_dies_ends_the_others_and_leaves_the_live_view_alone(
    settings: Settings, tmp_path: Path, started: list[Process]
) -> None:
    async with told(settings, tmp_path, 6) as (here, log, client):
        work = asyncio.create_task(rebuild(here, log, open_objects("memory:"), processes=2))
        async with asyncio.timeout(30):
            while len(started) < 2:
                await asyncio.sleep(0.01)
        started[0].send_signal(signal.SIGKILL)
        with pytest.raises(RebuildRefused, match="ended with status -9"):
            await asyncio.wait_for(work, 60)
        assert all(process.returncode is not None for process in started)
        assert (await client.http.get("/readyz")).status_code == 200


async def test_who_is_cancelled_ends_them(settings: Settings, tmp_path: Path, started: list[Process]) -> None:
    async with told(settings, tmp_path, 7) as (here, log, _):
        work = asyncio.create_task(rebuild(here, log, open_objects("memory:"), processes=2))
        async with asyncio.timeout(30):
            while len(started) < 2:
                await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 30)
        assert all(process.returncode is not None for process in started)


async def test_what_is_wrong_elsewhere_is_said_here(settings: Settings, tmp_path: Path, started: list[Process]) -> None:
    async with told(settings, tmp_path, 8) as (here, log, _):
        elsewhere = replace(here, data=tmp_path / "nowhere")
        with pytest.raises(RebuildRefused, match="cannot be read: there is no log in"):
            await asyncio.wait_for(rebuild(elsewhere, log, open_objects("memory:"), processes=2), 60)
        assert len(started) == 2


async def test_a_process_ends_when_nobody_waits_for_it(settings: Settings, tmp_path: Path) -> None:
    async with told(settings, tmp_path, 9) as (here, log, _):
        new = next_of(here.schema)
        await schemas.make(here, new)
        # There is more to come than the log has: it waits for that.
        part = Part(here, new, {p: end + 1 for p, end in (await log.ends(EVENTS_TOPIC)).items()}, 100)
        words = (sys.executable, "-m", "parley_history.rebuild.part")
        process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(part.line())
        assert b"folded" in await asyncio.wait_for(process.stdout.readline(), 30)
        assert process.returncode is None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 1

"""How a cluster keeps its parts: what dies is reported, and started again when that was asked for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from parley_standalone.cluster import Cluster, _keep, _start_stores, _unless_one_dies
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.errors import PartError
from parley_standalone.ready import Ready


class Played:
    """A part that is no process: it starts when it is told to, and dies when the test says so."""

    kind, name, url, bootstrap = "gateway", "gateway-1", "http://gateway", "kafka"

    def __init__(self, starts: list[Exception | None] | None = None) -> None:
        self.pid, self.alive, self.starts, self.gate = 1, True, starts or [], threading.Event()
        self.gate.set()

    def start(self) -> None:
        assert self.gate.wait(20)
        failure = self.starts.pop(0) if self.starts else None
        if failure is not None:
            raise failure
        self.pid, self.alive = self.pid + 1, True

    def dsn(self) -> str:
        return "postgresql://x"

    def last_words(self) -> str:
        return "PARLEY_X is wrong"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    folder = Folder.open(tmp_path / "data")
    yield Cluster(folder, cast(Any, Played()), cast(Any, Played()), [cast(Any, Played())])
    folder.close()


async def until(check: Any) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.01)


async def test_a_store_that_fails_is_told_only_once_the_other_can_be_stopped(running: Cluster) -> None:
    kafka, postgres = cast(Any, running.kafka), cast(Any, running.postgres)
    kafka.starts = [PartError("no Java")]
    postgres.gate.clear()
    starting = asyncio.create_task(_start_stores(running))
    await until(lambda: not kafka.starts)
    await asyncio.wait({starting}, timeout=0.1)
    assert not starting.done(), "the other one is still on its way, and nobody would stop it"
    postgres.gate.set()
    with pytest.raises(PartError, match="no Java"):
        await starting
    assert postgres.pid == 2


async def test_a_service_that_ends_at_the_start_is_told_in_its_last_words(running: Cluster) -> None:
    cast(Any, running.services[0]).alive = False
    with pytest.raises(CommandError, match=r"^gateway-1 does not start: PARLEY_X is wrong$"):
        await _unless_one_dies(running, cast(Any, asyncio.Event().wait()))


async def test_without_restart_a_death_is_reported_once_and_nothing_is_started(
    running: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    part = cast(Any, running.kafka)
    keeping = asyncio.create_task(_keep(running, "kafka", part, Ready(running.folder, None), False))
    part.alive = False
    said = ""
    async with asyncio.timeout(20):
        while "died" not in said:
            said += capsys.readouterr().out
            await asyncio.sleep(0.01)
    await asyncio.wait({keeping}, timeout=0.3)
    assert said + capsys.readouterr().out == f"  kafka (process 1) died; see {running.folder.logs}\n"
    assert part.pid == 1 and not keeping.done()
    keeping.cancel()


async def test_with_restart_what_will_not_start_is_tried_again_until_ready_names_it(
    running: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    part = cast(Any, running.postgres)
    part.starts = [PartError("the disk is full"), None]
    ready = Ready(running.folder, None)
    running.write_ready(ready)
    file = running.folder.path / "ready.json"
    keeping = asyncio.create_task(_keep(running, "postgres", part, ready, True))
    part.alive = False
    await until(lambda: json.loads(file.read_text())["pids"]["postgres"] == [2])
    said = capsys.readouterr().out
    assert "postgres (process 1) died and is started again" in said
    assert "postgres does not start: the disk is full" in said
    assert not keeping.done()
    keeping.cancel()

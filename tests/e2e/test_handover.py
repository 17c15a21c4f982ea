"""Dispatchers come and go while runs are at work: a rolling restart repeats no model turn, who stays is left alone.

A cluster of its own with three dispatchers; one that is told to stop is started again, and joins.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import httpx2
import pytest

from parley_events.partition import partition_of
from tests.support.processes import kill
from tests.support.runs import check_outcomes, follow, post, until
from tests.support.sse import Frame, text_of
from tests.support.system import System, eventually, new_thread, start, stop
from tests.support.topics import Record, believed, claims, owner_pid, read_topic

pytestmark = pytest.mark.breaks

DISPATCHERS = 3
RUNS = 24
TURNS = 20
SCRIPT = "\n".join(f'/stream 60 30\n/tool echo {{"n": {n}}}' for n in range(TURNS)) + "\n/text  the end"
TEXT = "".join(f"{i:04d} " for i in range(60)) * TURNS + " the end"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Three dispatchers, with time enough for every turn under way at a stop."""
    system = start(
        "cluster",
        tmp_path_factory.mktemp("three"),
        RESTART="1",
        DISPATCHERS=str(DISPATCHERS),
        PARLEY_DRAIN_S="30",
    )
    yield system
    assert stop(system, 60.0) == 0


async def all_ready(system: System) -> bool:
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:
        for index in range(DISPATCHERS):
            if (await client.get(system.url("dispatcher", index) + "/readyz")).status_code != 200:
                return False
    return True


async def back(system: System, gone: int) -> None:
    """Until the process has ended and another one in its place is ready, as all are."""

    async def check() -> bool:
        try:
            return gone not in system.ready()["pids"]["dispatcher"] and await all_ready(system)
        except Exception:
            return False

    await eventually(check, 90.0)


async def events(system: System) -> list[Record]:
    return await read_topic(system.ready()["kafka"], "parley.events")


async def test_a_rolling_restart_under_load_repeats_no_model_turn(three: System) -> None:
    async with three.client() as client:
        threads = [await new_thread(client) for _ in range(RUNS)]
    runs = {thread: (await post(three, thread, SCRIPT))["run_id"] for thread in threads}
    seen: dict[str, list[Frame]] = {thread: [] for thread in threads}
    followers = [asyncio.create_task(follow(three, runs[thread], 0, seen[thread])) for thread in threads]
    try:
        await until(seen[threads[-1]], lambda frames: len(text_of(frames)) > 50)
        for index in range(DISPATCHERS):
            pid = three.pid("dispatcher", index)
            os.kill(pid, signal.SIGTERM)
            await back(three, pid)
        await asyncio.gather(*followers)
    finally:
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
    log = believed(await events(three))
    moved = 0
    for thread in threads:
        facts = [record for record in log if record.head("ce_subject") == thread]
        called = [record.body for record in facts if record.type == "model.called"]
        assert [(call["turn"], call["attempt"]) for call in called] == [(turn, 1) for turn in range(TURNS + 1)]
        assert [record.type for record in facts].count("run.completed") == 1
        assert text_of(seen[thread]) == TEXT and not any(frame.type == "run.restarted" for frame in seen[thread])
        moved += len({record.epoch for record in facts}) > 1
        check_outcomes(facts)
    assert moved > RUNS // 3, "the restart went by without touching the runs"


async def test_whoever_stays_is_not_disturbed_by_those_that_come_and_go(three: System) -> None:
    """A partition that is kept keeps its claim, and its run the attempt, while another dispatcher dies and joins."""
    async with three.client() as client:
        thread = await new_thread(client)
    partition = partition_of(thread.encode(), 8)
    seen: list[Frame] = []
    run = (await post(three, thread, "/stream 1200 15\n/text  the end"))["run_id"]
    follower = asyncio.create_task(follow(three, run, 0, seen))
    try:
        await until(seen, lambda frames: len(text_of(frames)) > 50)
        log = await events(three)
        mine, epoch = owner_pid(log, partition), claims(log, partition)[-1].offset
        other = next(pid for pid in three.ready()["pids"]["dispatcher"] if pid != mine)
        kill(other)
        await back(three, other)
        assert text_of(seen)[-5:] != " end", "the run was over too early to be disturbed"
        await follower
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    facts = [record for record in believed(await events(three)) if record.head("ce_runid") == run]
    assert {record.epoch for record in facts} == {epoch}
    assert [record.body["attempt"] for record in facts if record.type == "model.called"] == [1]
    assert not any(frame.type == "run.restarted" for frame in seen)

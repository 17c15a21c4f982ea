"""Each process dies in the middle of a streaming run: the run ends once, nothing is lost, other threads keep moving.

One cluster that starts again what dies. Each test has a run that streams, has called a tool, and calls another one
after the crash; a client follows it through everything by its last id.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from parley_events.partition import partition_of
from tests.support.processes import kill
from tests.support.runs import check_run, follow, post, until
from tests.support.sse import Frame, text_of
from tests.support.system import System, eventually, new_thread
from tests.support.topics import Record, believed, claims, owner_pid, read_topic

PIECES = "".join(f"{i:04d} " for i in range(300))
LEAVING = "Waiting for application shutdown"


@dataclass(slots=True)
class Working:
    """A run under way: the first tool is done, and its text streams."""

    thread: str
    run: str
    file: str
    seen: list[Frame] = field(default_factory=list)


def script(file: str) -> str:
    before, after = ({"file": file, "line": line} for line in ("before", "after"))
    return "\n".join(
        (
            f"/tool append_line {json.dumps(before)}",
            "/stream 300 20",
            f"/tool append_line {json.dumps(after)}",
            "/text  the end",
        )
    )


@asynccontextmanager
async def working(system: System, gateway: int = 0, thread: str | None = None) -> AsyncIterator[tuple[Working, Any]]:
    """A run in the middle of its stream, and the task that follows it to its end."""
    if thread is None:
        async with system.client() as client:
            thread = await new_thread(client)
    file = f"restart-{uuid.uuid4().hex[:8]}.txt"
    run = Working(thread, (await post(system, thread, script(file), key=file))["run_id"], file)
    task = asyncio.create_task(follow(system, run.run, gateway, run.seen))
    try:
        await until(run.seen, lambda seen: len(text_of(seen)) >= 100)
        yield run, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended_well(system: System, run: Working, task: Any) -> list[dict[str, Any]]:
    """The run's end as `check_run` wants it, and each of its tools called once."""
    await task
    facts = await check_run(system, run.run, run.seen, PIECES + " the end")
    lines = (system.folder / "data" / "effects" / run.file).read_text().splitlines()
    tools = [fact["tool_call"] for fact in facts if fact["type"] == "tool.returned"]
    assert [tool["status"] for tool in tools][:1] == ["ok"]
    assert len(tools) == 2
    said = [line.partition("\t")[2] for line in lines]
    assert len(said) == len(set(said)), "a tool was called twice"
    assert said == ["before", "after"] or (said == ["before"] and tools[1]["status"] == "unknown")
    return facts


async def owner(system: System, thread: str) -> tuple[int, int]:
    """The partition of a thread, and the process that owns it."""
    partition = partition_of(thread.encode(), 8)
    return partition, owner_pid(await read_topic(system.ready()["kafka"], "parley.events", partition), partition)


async def thread_elsewhere(system: System, pid: int) -> str:
    """A thread whose owner is another process."""
    async with system.client() as client:
        while True:
            thread = await new_thread(client)
            if (await owner(system, thread))[1] != pid:
                return thread


async def answered(system: System, thread: str, gateway: int = 0) -> None:
    """A message to a thread is answered, followed to its end."""
    run = (await post(system, thread, "/text still here", gateway, key=uuid.uuid4().hex))["run_id"]
    assert text_of(await follow(system, run, gateway)) == "still here"


async def whole_again(system: System) -> None:
    """Wait until every process answers that it is ready."""

    async def ready() -> bool:
        async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:
            answers = [
                await client.get(system.url(service, index) + "/readyz")
                for service in ("gateway", "dispatcher", "history")
                for index in (0, 1)
            ]
        return all(answer.status_code == 200 for answer in answers)

    async def patiently() -> bool:
        try:
            return await ready()
        except (ValueError, LookupError, OSError, httpx2.HTTPError):
            return False
        except Exception as gone:  # psutil's: the process was just replaced
            assert type(gone).__module__.startswith("psutil"), gone
            return False

    await eventually(patiently, 60.0)


async def log_of(system: System, partition: int) -> list[Record]:
    return await read_topic(system.ready()["kafka"], "parley.events", partition)


async def test_a_dispatcher_dies_and_its_run_goes_on_elsewhere(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    async with working(system) as (run, task):
        partition, victim = await owner(system, run.thread)
        epoch = claims(await log_of(system, partition), partition)[-1].offset
        elsewhere = await thread_elsewhere(system, victim)
        kill(victim)
        await answered(system, elsewhere)
        facts = await ended_well(system, run, task)
        assert max(fact["attempt"] for fact in facts if fact["type"] == "model.called") >= 2
        other = partition_of(elsewhere.encode(), 8)
        [done] = [
            r
            for r in believed(await log_of(system, other))
            if r.type == "run.completed" and r.head("ce_subject") == elsewhere
        ]
        taken = next(c for c in claims(await log_of(system, partition), partition) if c.offset > epoch)
        assert done.time_ms < taken.time_ms, "the other thread had to wait for the takeover"


async def test_a_fork_outlives_the_dispatcher_that_made_it_and_its_source(breakable: System) -> None:
    """Whoever takes its partition over shows the model the same past; the source's partition is not asked."""
    system = breakable
    await whole_again(system)
    async with system.client() as client, system.client(1) as other:
        source = await new_thread(client)
        path = "/api/v1/chat/threads"
        first = await client.post(f"{path}/{source}/messages", params={"wait": "30"}, json={"content": "/text Tea."})
        assert first.status_code == 200, first.text
        while True:
            made = await client.post(f"{path}/{source}/fork", json={"title": "branch"})
            assert made.status_code == 201, made.text
            fork = made.json()["id"]
            if partition_of(fork.encode(), 8) != partition_of(source.encode(), 8):
                break
        before = (await client.get(f"{path}/{fork}/messages")).json()["items"]
        assert (await client.delete(f"{path}/{source}")).status_code == 204
        partition, victim = await owner(system, fork)
        epoch = claims(await log_of(system, partition), partition)[-1].offset
        kill(victim)
        run = (await post(system, fork, "/show messages", 1, key=uuid.uuid4().hex))["run_id"]
        shown = text_of(await follow(system, run, 1))
        assert claims(await log_of(system, partition), partition)[-1].offset > epoch, "another owner has loaded it"
        texts = [block["text"] for one in json.loads(shown) for block in one["content"]]
        assert texts == ["/text Tea.", "Tea.", "/show messages"]
        after = (await other.get(f"{path}/{fork}/messages")).json()["items"]
        assert after[: len(before)] == before


async def test_a_dispatcher_is_told_to_stop_and_leaves_after_its_step(breakable: System) -> None:
    """A rolling restart: the one that leaves goes on deciding, ends the step under way, and starts no other."""
    system = breakable
    await whole_again(system)
    async with working(system) as (run, task):
        partition, victim = await owner(system, run.thread)
        epoch = claims(await log_of(system, partition), partition)[-1].offset
        async with system.client() as client:
            neighbour = await new_thread(client)
            while partition_of(neighbour.encode(), 8) != partition:
                neighbour = await new_thread(client)
        number = system.ready()["pids"]["dispatcher"].index(victim) + 1
        says = system.folder / "data" / "logs" / f"dispatcher-{number}.log"
        before = says.read_text().count(LEAVING)
        os.kill(victim, signal.SIGTERM)

        async def leaving() -> bool:
            return says.read_text().count(LEAVING) > before

        await eventually(leaving)
        accepted = await post(system, neighbour, "/text still here")
        assert text_of(await follow(system, accepted["run_id"])) == "still here"
        facts = await ended_well(system, run, task)
        assert [fact["attempt"] for fact in facts if fact["type"] == "model.called"] == [1, 1, 1]
        log = believed(await log_of(system, partition))
        [posted] = [r for r in log if r.type == "message.posted" and r.head("ce_subject") == neighbour]
        assert posted.epoch == epoch, "it did not decide any more"
        tools = [r for r in log if r.type == "tool.called" and r.head("ce_subject") == run.thread]
        assert [(r.body["arguments"]["line"], r.epoch == epoch) for r in tools] == [("before", True), ("after", False)]


async def test_a_gateway_dies_and_its_client_goes_on_at_the_other(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    async with working(system, gateway=1) as (run, task), working(system, gateway=0) as (bystander, other):
        kill(system.pid("gateway", 1))
        facts = await ended_well(system, run, task)
        assert [fact["attempt"] for fact in facts if fact["type"] == "model.called"] == [1, 1, 1]
        await ended_well(system, bystander, other)


async def test_every_history_dies_and_nobody_who_streams_notices(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    async with working(system) as (run, task):
        for index in (0, 1):
            kill(system.pid("history", index))
        async with system.client() as client:
            other = await new_thread(client)
        await answered(system, other)
        facts = await ended_well(system, run, task)
        assert [fact["attempt"] for fact in facts if fact["type"] == "model.called"] == [1, 1, 1]


async def test_postgres_dies_and_the_open_stream_goes_on(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    async with working(system) as (run, task):
        before = len(text_of(run.seen))
        kill(system.pid("postgres"))
        await until(run.seen, lambda seen: len(text_of(seen)) > before + 50)
        async with system.client() as client:
            other = await new_thread(client)
        await answered(system, other)
        facts = await ended_well(system, run, task)
        assert [fact["attempt"] for fact in facts if fact["type"] == "model.called"] == [1, 1, 1]


async def test_the_broker_dies_and_every_run_ends(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    workers = [system.pid("gateway"), system.pid("dispatcher"), system.pid("dispatcher", 1), system.pid("history")]
    async with working(system) as (run, task), working(system, gateway=1) as (second, other):
        kill(system.pid("kafka"))
        await ended_well(system, run, task)
        await ended_well(system, second, other)
        async with system.client() as client:
            fresh = await eventually(lambda: new_thread(client), 30.0)
        await answered(system, fresh)
    assert workers == [
        system.pid("gateway"),
        system.pid("dispatcher"),
        system.pid("dispatcher", 1),
        system.pid("history"),
    ], "a service did not live through it"

"""Two dispatchers that both believe they own a partition: nobody is ever shown what the stale one writes.

The owner of two threads is stopped like a stalled machine (SIGSTOP) in the middle of their runs, another one takes the
partition, and the first goes on (SIGCONT) before it can know. It writes facts and pieces under its old epoch: the
topics are read raw to be sure of that. What it does not come to write by itself is put beside it, in its shape.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import pytest

from parley_events.body import Usage
from parley_events.codec import Fact, encode_fact
from parley_events.facts import RunFailed
from parley_events.log import Outgoing
from parley_events.partition import partition_of
from parley_events.pieces import Piece, encode_pieces
from tests.support.processes import frozen
from tests.support.runs import check_run, facts_of, follow, post, until
from tests.support.sse import Frame, text_of
from tests.support.system import System, collect, eventually, new_thread, stream
from tests.support.topics import Record, claims, owner_pid, put, read_topic

STREAMED = "".join(f"{i:04d} " for i in range(200))
TOOLS = 12
WRONG = "NOBODY MAY SEE THIS "


@dataclass(slots=True)
class Followed:
    """A run whose owner is stopped: what an open stream on its thread and one on the run itself have seen."""

    thread: str
    run: str
    text: str
    seen: list[Frame]
    thread_seen: list[Frame]
    at_stop: int = 0


async def pair_of_threads(client: httpx2.AsyncClient) -> tuple[str, str]:
    """Two threads of one partition."""
    first = await new_thread(client)
    while True:
        second = await new_thread(client)
        if partition_of(second.encode(), 8) == partition_of(first.encode(), 8):
            return first, second


async def watch_thread(system: System, thread: str, seen: list[Frame]) -> None:
    """An open stream on a thread, never left."""
    async with (
        system.client(timeout_s=120.0) as client,
        stream(client, "GET", f"/api/v1/chat/threads/{thread}/events") as (_, frames),
    ):
        async for frame in frames:
            seen.append(frame)  # noqa: PERF401 - it grows as frames come


async def stale(system: System, topic: str, partition: int, epoch: int, after: int) -> list[Record]:
    """What stands on a partition beyond an offset under an epoch."""
    records = await read_topic(system.ready()["kafka"], topic, partition)
    return [r for r in records if r.offset > after and r.epoch == epoch and r.type != "partition.claimed"]


async def send(system: System, record: Outgoing) -> int:
    return await put(system.ready()["kafka"], record.topic, record.partition, record.key, record.value, record.headers)


async def forge_fact(system: System, run: str, seq: int, epoch: int) -> int:
    """A fact as the stale owner would write it next: the run has failed."""
    thread = run[:36]
    body = RunFailed(run_id=run, message_id=f"{thread}.a{run[38:]}", code="internal", message=WRONG, usage=Usage())
    fact = Fact(body.type, thread, seq, epoch, system.ready()["workspace_id"], 1_700_000_000_000, body, run)
    return await send(system, encode_fact(fact, partition_of(thread.encode(), 8)))


def last_seq(frames: list[Frame]) -> int:
    return max(int(frame.data["seq"]) for frame in frames)


@pytest.mark.parametrize("woken", ["within the new owner's runs", "after the new owner's runs"])
async def test_what_a_stale_owner_writes_is_never_seen(breakable: System, woken: str) -> None:
    system = breakable
    kafka = system.ready()["kafka"]
    effect = f"fencing-{uuid.uuid4().hex[:8]}.txt"
    tools = "\n".join(
        [f"/tool append_line {json.dumps({'file': effect, 'line': 'once'})}"]
        + [f'/tool echo {{"n": {n}}}' for n in range(TOOLS)]
    )
    async with system.client() as client:
        spoken, working = await pair_of_threads(client)
    partition = partition_of(spoken.encode(), 8)
    scripts = {
        spoken: "/stream 200 20\n/text  end",
        working: f"/text said \n/wait 3000\n/think late\n{tools}\n/text done",
    }
    texts = {spoken: STREAMED + " end", working: "said done"}
    runs = {}
    for thread, script in scripts.items():
        run = (await post(system, thread, script))["run_id"]
        runs[thread] = Followed(thread, run, texts[thread], [], [])
    speaking, working_run = runs[spoken], runs[working]
    followers = [asyncio.create_task(follow(system, r.run, 0, r.seen)) for r in runs.values()]
    watchers = [asyncio.create_task(watch_thread(system, r.thread, r.thread_seen)) for r in runs.values()]
    try:
        await until(speaking.seen, lambda seen: len(text_of(seen)) >= 100)
        await until(working_run.seen, lambda seen: text_of(seen) == "said ")
        events = await read_topic(kafka, "parley.events", partition)
        old = claims(events, partition)[-1].offset
        victim = owner_pid(events, partition)
        with frozen(victim):
            for run in runs.values():
                run.at_stop = len(run.seen)

            async def claimed() -> Record | None:
                newest = claims(await read_topic(kafka, "parley.events", partition), partition)[-1]
                return newest if newest.offset > old else None

            new = (await eventually(claimed, 60.0)).offset
            assert owner_pid(await read_topic(kafka, "parley.events", partition), partition) != victim
            pieces_before = (await read_topic(kafka, "parley.deltas", partition))[-1].offset
            if woken.startswith("within"):
                for run in runs.values():
                    await until(run.seen, lambda seen: any(f.type == "run.restarted" for f in seen))
                await until(speaking.seen, lambda seen: seen[-1].type == "text.delta")
                call = last_seq(speaking.seen)
                await send(system, encode_pieces(partition, old, [Piece(spoken, call, 0, "text", 0, WRONG * 100)]))
            else:
                await asyncio.gather(*followers)

        # It goes on where it stood: timers first, and only then what it has to read. So the wait ends, a new block
        # begins (its first piece is sent at once), the turn is recorded, and the tools are called.
        async def wrote(topic: str, after: int) -> list[Record]:
            return await stale(system, topic, partition, old, after)

        late = await eventually(lambda: wrote("parley.events", new), 30.0)
        assert {record.type for record in late} >= {"model.returned", "tool.called"}, "it wrote no facts"
        assert len(late) > TOOLS
        assert await eventually(lambda: wrote("parley.deltas", pieces_before), 30.0), "it wrote no pieces"

        await asyncio.gather(*followers)
        for run in runs.values():
            await forge_fact(system, run.run, last_seq(run.seen) + 1, old)
            forged = await forge_fact(system, run.run, last_seq(run.seen), old)
        for run in runs.values():
            facts = await check_run(system, run.run, run.seen, run.text)
            await until(run.thread_seen, lambda seen, facts=facts: last_seq(seen) >= len(facts))  # type: ignore[misc]

        # The others: one that begins now on the other gateway, and one that comes back with an id from before the stop.
        async with system.client(1) as second:
            for run in runs.values():
                url = f"/api/v1/chat/runs/{run.run}/events"
                whole = await collect(second, "GET", url, params={"min_position": f"{partition}.{forged + 1}"})
                assert text_of(whole) == run.text
                assert facts_in(whole) == facts_in(run.seen)
                before = run.seen[: run.at_stop]
                last = next(frame.id for frame in reversed(before) if frame.id)
                rest = await collect(second, "GET", url, headers={"Last-Event-ID": last})
                assert text_of(before + rest) == run.text
                assert facts_in(before + rest) == facts_in(run.seen)
                assert [fact["seq"] for fact in await facts_of(system, run.thread, 1)] == [
                    frame.data["seq"] for frame in run.thread_seen if not frame.type.endswith((".delta", ".restarted"))
                ], "the thread's open stream showed other facts than are stored"
                assert WRONG.strip() not in json.dumps([f.data for f in run.seen + run.thread_seen + whole + rest])

        lines = (system.folder / "data" / "effects" / effect).read_text().splitlines()
        assert [line.partition("\t")[2] for line in lines] == ["once"]
        statuses = [
            f.data["tool_call"]["status"]
            for f in working_run.seen
            if f.type == "tool.returned" and f.data["tool_call"]["name"] == "append_line"
        ]
        assert statuses == ["ok"]
        await no_row_of(system, partition, new, old)
    finally:
        for task in [*followers, *watchers]:
            task.cancel()
        await asyncio.gather(*followers, *watchers, return_exceptions=True)
    await claimed_by_all(system)


def facts_in(frames: list[Frame]) -> list[Any]:
    return [frame.data for frame in frames if not frame.type.endswith(".delta")]


async def no_row_of(system: System, partition: int, claim: int, epoch: int) -> None:
    """No fact beyond a claim was stored under an older epoch, and nothing of what was put on the log by hand."""
    connection = await asyncpg.connect(system.ready()["postgres"])
    try:
        names = await connection.fetch(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name IN ('facts', 'messages')"
        )
        assert len(names) == 2
        for row in names:
            table = f'"{row["table_schema"]}"."{row["table_name"]}"'
            if row["table_name"] == "facts":
                stored = f"SELECT headers->>'ce_epoch' FROM {table} WHERE partition = $1 AND \"offset\" > $2"
                epochs = {int(found[0]) for found in await connection.fetch(stored, partition, claim)}
                assert epochs and epoch not in epochs
            assert not await connection.fetch(f"SELECT 1 FROM {table} t WHERE t::text LIKE $1", f"%{WRONG}%")
    finally:
        await connection.close()


async def claimed_by_all(system: System) -> None:
    """Wait until every service is ready again."""

    async def ready() -> bool:
        async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:
            answers = [
                await client.get(system.url(service, index) + "/readyz")
                for service in ("gateway", "dispatcher", "history")
                for index in (0, 1)
            ]
        return all(answer.status_code == 200 for answer in answers)

    await eventually(ready, 60.0)

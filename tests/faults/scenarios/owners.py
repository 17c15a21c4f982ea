"""Who owns a partition, and who only thinks so: zombies, late batches, quarrels, offsets that are gone."""

from __future__ import annotations

import asyncio

from parley_events.partition import partition_of
from tests.faults import outside
from tests.faults.cluster import PARTITIONS, Process
from tests.faults.stage import Blow, Round
from tests.faults.workload import Talk, steady, tool, whole


async def zombie(going: Round) -> None:
    """An owner that was stopped in the middle goes on where it stood: it has facts and unsafe calls in hand."""
    await going.begin(crowd=3, bystanders=2)
    echoes = "\n".join(tool("echo", n=number) for number in range(12))
    message = f"/text said \n{tool('append_line', file='effects.txt', line=going.work.number())}\n{echoes}\n/text done"
    await going.strike(Blow("append.before", "stop", "model.returned"), message, timed=True)


async def unread(going: Round) -> None:
    """Stopped between an intent and its read-back: the successor calls the tool; the stale one must not."""
    await going.begin(crowd=2, bystanders=1)
    line = tool("append_line", file="effects.txt", line=going.work.number())
    blow = Blow("append.after", "stop", "tool.called", "append_line")
    await going.strike(blow, f"/text now\n{line}\n/text done", timed=True)


async def after_the_effect(going: Round) -> None:
    """Killed when an effect has taken place and its result is not on record."""
    await going.begin(crowd=2, bystanders=1)
    for name in ("append_line", "ledger__pay", "ledger__reserve", "ledger__book"):
        note = going.work.number()
        call = tool(name, file="effects.txt", line=note) if name == "append_line" else tool(name, note=note)
        await going.strike(Blow("tool.after", "kill", name), f"/text now\n{call}\n/text done")


async def late_batch(going: Round) -> None:
    """What a superseded owner had on its way arrives after its successor has ended the run."""
    await going.begin(crowd=2, bystanders=1)
    talk = await going.work.open(watched=True)
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    before = going.cluster.control.owners[partition][0]
    blow = Blow("append.after", "kill", "model.called")
    await going.strike(blow, "/text one \n/stream 20 20", victim=talk, timed=True)
    await going.cluster.control.claimed(partition, before, 60.0)
    run_id = await first_run(talk)
    seq = await _ended_at(talk)
    for ahead in (1, 2):
        await outside.forge_late_batch(going.cluster, run_id, seq + ahead, before)
    await going.work.say(talk, "/text and more\n/stream 5 5")
    await outside.forge_late_batch(going.cluster, talk.runs[-1], seq + 20, before)


async def first_run(talk: Talk) -> str:
    async with asyncio.timeout(60):
        while not talk.runs:
            await asyncio.sleep(0.02)
    return talk.runs[0]


async def _ended_at(talk: Talk) -> int:
    """The seq of the end of the thread's first run, once a follower has seen it."""
    async with asyncio.timeout(90):
        while not talk.watchers or not talk.watchers[0].over:
            await asyncio.sleep(0.05)
    last = talk.watchers[0].seen[-1].data
    assert isinstance(last, dict)
    return int(last["seq"])


async def two_groups(going: Round) -> None:
    """Another dispatcher in a group of its own claims everything, for as long as it lives."""
    await going.begin(crowd=5, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), steady(100, 50))
    model = going.cluster.of("dispatcher")[0]
    intruder = Process("intruder-1", model.log.parent, model.env | {"PARLEY_GROUP": "parley.intruder"})
    intruder.kind = "dispatcher"

    async def quarrel() -> None:
        intruder.start()
        going.cluster.processes[intruder.name] = intruder
        try:
            await asyncio.sleep(8.0)
        finally:
            del going.cluster.processes[intruder.name]
            intruder.kill()

    await going.during("two owners of every partition", "dispatcher", quarrel())


async def foreign_claims(going: Round) -> None:
    await going.begin(crowd=5, bystanders=0)

    async def claim() -> None:
        for partition in (*range(PARTITIONS), *range(PARTITIONS)):
            await outside.forge_claim(going.cluster, partition)

    await going.during("claims by somebody who does nothing", "parley.events", claim())


async def storm(going: Round) -> None:
    await going.begin(crowd=5, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))
    await going.during("members come and go", "group", outside.come_and_go(going.cluster, 8))


async def offsets_deleted(going: Round) -> None:
    await going.begin(crowd=5, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def delete() -> None:
        for process in going.cluster.of("dispatcher"):
            process.kill()
        await outside.delete_group(going.cluster)
        for process in going.cluster.of("dispatcher"):
            await going.cluster.restart(process)

    await going.during("committed offsets deleted", "group", delete())

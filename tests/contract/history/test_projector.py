"""What keeps the view true: the epoch rule, the order of streams, one winner per batch, records that cannot be read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from parley_events import facts as f
from parley_events.codec import Fact, encode_fact
from parley_events.contents import Contents
from parley_events.errors import RetentionGap
from parley_events.log.port import Incoming, Outgoing
from parley_events.objects import open_objects
from parley_history import projector as projector_module
from parley_history.batch import Batch, Position
from parley_history.db import connect
from parley_history.errors import Moved
from parley_history.positions import Watch
from parley_history.projections import fold
from parley_history.projections.rows import View
from parley_history.projector import Projector
from parley_history.settings import Settings
from parley_history.writes import SQL
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog, ListTail
from tests.contract.history.reference import Reference
from tests.contract.history.story import Writer, random_story, thread, workspace

WS, T1 = workspace(1), thread(1)


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 15.0) -> None:
    """Wait until the condition holds; fails after the limit."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_zombies_facts_make_no_row(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    partition = writer.partition(T1)
    zombie_epoch = writer.epochs[partition]
    writer.claim(partition)
    said = f.ThreadUpdated(title="from the zombie", changes=("title",))
    zombie = Fact(said.type, T1, 2, zombie_epoch, WS, writer.now_ms, said)
    writer.resend(zombie)
    writer.turn(T1, WS, run, "from the owner")
    async with running(settings, log) as client:
        await client.caught_up(log)
        found = await client.get(f"/workspaces/{WS}/threads/{T1}")
        assert (found["title"], found["position"]) == (None, f"{T1}@3")
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["answer"] == "from the owner"
        assert client.history.health.fenced == 1


async def test_the_epoch_in_force_survives_a_restart(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    partition = writer.partition(T1)
    old = writer.epochs[partition]
    new = writer.claim(partition)
    async with running(settings, log) as client:
        await client.caught_up(log)
    said = f.ThreadUpdated(title="late", changes=("title",))
    writer.resend(Fact(said.type, T1, 2, old, WS, writer.now_ms, said))
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/threads/{T1}"))["title"] is None
        assert (await client.get(f"/partitions/{partition}"))["epoch"] == new


async def test_an_owner_is_told_the_last_claims_oldest_first(settings: Settings) -> None:
    """Those of one batch as well as of many, each once, also when the log is folded again; not more than a hundred."""
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    partition = writer.partition(T1)
    known = [writer.epochs[partition], *(writer.claim(partition) for _ in range(3))]
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert (await client.get(f"/partitions/{partition}"))["claims"] == known
        known.append(writer.claim(partition))
        await client.caught_up(log)
        assert (await client.get(f"/partitions/{partition}"))["claims"] == known
        assert (await client.get(f"/partitions/{(partition + 1) % 4}"))["claims"] == []
        known += [writer.claim(partition) for _ in range(120)]
        await client.caught_up(log)
        assert (await client.get(f"/partitions/{partition}"))["claims"] == known[-100:]


async def test_a_batch_from_a_position_that_was_left_is_not_folded(settings: Settings) -> None:
    """The compare-and-set by itself: a projector that comes late with a shorter batch must not take the view back."""
    log = ListLog(1)
    writer = Writer(log)
    run = writer.post(T1, WS)
    writer.turn(T1, WS, run, "said")
    async with running(settings, log) as client:
        await client.caught_up(log)
        late = client.history.projector
        assert late is not None
        with pytest.raises(Moved):
            await late._fold(0, Position(), log.records[0][:2])
        assert (await client.get("/partitions/0"))["next_offset"] == 4
        with pytest.raises(Moved):
            await late._fold(0, Position(4, epoch=3), [replace(log.records[0][-1], offset=4)])


async def test_two_projectors_at_once_fold_each_fact_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks taken away on purpose, and delays put in, so that each wins sometimes."""
    log = ListLog(4)
    rng = random.Random(1)
    commit = Projector._commit

    lost = 0

    async def delayed(self: Projector, batches: Mapping[int, Batch]) -> None:
        nonlocal lost
        await asyncio.sleep(rng.random() * 0.01)
        try:
            await commit(self, batches)
        except Moved:
            lost += 1
            raise

    monkeypatch.setattr(Projector, "_commit", delayed)
    async with running(settings, log, batch=5) as client:
        pool = client.history.writer
        second = Projector(
            pool,
            settings.postgres_projector,
            log,
            Watch(client.history._ask),
            Contents(open_objects("memory:")),
            schema=settings.schema,
            batch=3,
        )
        second._lock_class += 1
        task = asyncio.create_task(second.run())
        try:
            for part in range(12):
                story = random_story(7, ListLog(4), (part + 1) * 40)
                for own, records in zip(log.records, story.log.records, strict=True):
                    for record in records[len(own) :]:
                        own.append(record)
                for news in log._news:
                    news.set()
                await asyncio.sleep(0.01)
            await client.caught_up(log)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        first = client.history.health.folded
        rows = await client.rows("SELECT count(*) AS n FROM facts")
        reference = Reference(story.written)
        assert rows[0]["n"] == len(reference.facts) == sum((fact.seq or 0) > 0 for fact in story.written)
        assert first > 0 and second.health.folded > 0, "both must have had a share, or this test shows nothing"
        assert lost > 0, "one must have come too late, and been told"
        for stream, run in reference.runs():
            expected = reference.run(stream, run)
            assert await client.get(f"/workspaces/{expected['workspace_id']}/runs/{run}") == expected


async def test_another_replica_takes_over_when_one_ends(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    async with running(settings, log) as standby:
        async with running(settings, log) as other:
            writer.post(T1, WS)
            await other.caught_up(log)
            await standby.caught_up(log)
        holders = [standby.history.health.folded, other.history.health.folded]
        writer.post(T1, WS, command="c2")
        await standby.caught_up(log, wait_ms=5000)
        assert standby.history.health.folded > 0, holders


async def test_a_partition_whose_holder_stands_still_is_folded_elsewhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "STALLED_S", 0.5)
    monkeypatch.setattr(projector_module, "TICK_S", 0.1)
    log = ListLog(4)
    writer = Writer(log)
    frozen = await connect(settings.postgres_projector, schema=settings.schema, timeout_s=5)
    try:
        locks = projector_module.lock_class(settings.schema)
        taken = await frozen.fetch(SQL["lock_partitions"], locks, [0, 1, 2, 3])
        assert len(taken) == 4
        async with running(settings, log) as client:
            writer.post(T1, WS)
            await client.caught_up(log)
            partition = writer.partition(T1)
            projector = client.history.projector
            assert projector is not None and partition in projector._positions
            # The holder goes on: it is first with the next fact, and the one that stood in lets go.
            holder = Projector(
                client.history.writer,
                settings.postgres_projector,
                log,
                Watch(client.history._ask),
                Contents(open_objects("memory:")),
                schema="parley",
            )
            stood = projector._positions[partition]
            writer.post(T1, WS, command="c2")
            new = log.records[partition][stood.next_offset :]
            del log.records[partition][stood.next_offset :]
            assert await holder._fold(partition, stood, new) is None
            log.records[partition].extend(new)
            for event in log._news:
                event.set()
            await until(lambda: _let_go(projector, partition))
    finally:
        await frozen.close()


async def test_a_record_that_is_no_fact_stops_its_partition_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    partition = writer.partition(T1)
    other = next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != partition)
    bad = writer.make(T1, WS, f.RunCompleted.model_construct(run_id=run, usage="no", message_id="", stop_reason=""))
    with pytest.warns(UserWarning):
        record = encode_fact(bad, partition)
    offset = log.append(record)
    writer.post(T1, WS, command="c2")
    writer.post(other, WS)
    async with running(settings, log) as client:
        await client.get("/positions", min_position=f"{other}@1")
        await client.get("/positions", min_position=f"{partition}.{offset}")
        await client.get("/positions", status=503, min_position=f"{partition}.{offset + 1}", wait_ms=100)
        ready = (await client.http.get("/readyz")).json()
        assert ready["status"] == "degraded"
        assert [stop["partition"] for stop in ready["stopped"]] == [partition]
        assert f"offset {offset}" in ready["stopped"][0]["reason"]
    lines = [entry for entry in caplog.records if entry.levelname == "ERROR"]
    assert len(lines) == 1 and f"partition {partition}" in lines[0].getMessage()


async def test_a_hole_in_a_stream_stops_the_partition_after_what_came_before(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    writer.make(T1, WS, f.ThreadCleared())
    lost = len(log.records[writer.partition(T1)])
    writer.write(T1, WS, f.ThreadCleared())
    async with running(settings, log) as client:
        await client.get("/positions", min_position=f"{T1}@1")
        await until(lambda: _stopped(client))
        assert "hole" in client.history.health.stopped[writer.partition(T1)]
        assert (await client.get(f"/partitions/{writer.partition(T1)}"))["next_offset"] == lost


async def test_a_bug_in_a_projection_stops_its_partition_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    other = next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != writer.partition(T1))
    writer.post(other, WS)

    def broken(view: View, partition: int, facts: list[Fact]) -> None:
        if partition == writer.partition(T1):
            raise KeyError("a slip")
        fold(view, partition, facts)

    monkeypatch.setattr(projector_module, "fold", broken)
    async with running(settings, log) as client:
        await client.get("/positions", min_position=f"{other}@1")
        await until(lambda: _stopped(client))
        assert "KeyError" in client.history.health.stopped[writer.partition(T1)]
        assert client.history.health.stopped.keys() == {writer.partition(T1)}


async def test_a_gap_in_the_offsets_stops_the_partition(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    records = log.records[writer.partition(T1)]
    last = records[-1]
    records[-1] = Incoming(
        last.topic, last.partition, last.offset + 1, last.time_ms, last.key, last.value, last.headers
    )
    async with running(settings, log) as client:
        await until(lambda: _stopped(client))
        assert "expected offset" in client.history.health.stopped[writer.partition(T1)]


async def test_records_deleted_before_they_were_read_stop_the_partition(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    partition = writer.partition(T1)
    other = next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != partition)
    take = ListTail._take

    def gap(self: ListTail, limit: int) -> list[Incoming]:
        if self._at.get(partition) == 0:
            raise RetentionGap("parley.events", partition, 0, 17)
        return take(self, limit)

    monkeypatch.setattr(ListTail, "_take", gap)
    writer.post(other, WS)
    async with running(settings, log) as client:
        await client.get("/positions", min_position=f"{other}@1")
        assert "deleted before" in client.history.health.stopped[partition]


async def test_bodies_of_types_not_known_are_given_back_as_they_were(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    headers = writer.record(writer.make(T1, WS, f.ThreadCleared())).headers
    renamed = tuple((name, b"thread.sung" if name == "ce_type" else value) for name, value in headers)
    log.append(Outgoing("parley.events", writer.partition(T1), T1.encode(), b'{"song": [1.5, null]}', renamed))
    async with running(settings, log) as client:
        await client.caught_up(log)
        page = await client.get(f"/streams/{T1}/facts", after=1)
        assert [item["body"] for item in page["items"]] == [{"song": [1.5, None]}]
        assert page["items"][0]["headers"]["ce_type"] == "thread.sung"


async def test_another_number_of_partitions_is_refused(settings: Settings) -> None:
    async with running(settings, ListLog(4)) as client:
        await until(client.ready)
    async with running(settings, ListLog(3)) as client:
        await until(lambda: _reason(client, "must not change"))
        assert (await client.http.get("/readyz")).status_code == 503


async def _let_go(projector: Projector, partition: int) -> bool:
    return partition not in projector._positions


async def _stopped(client: Client) -> bool:
    return bool(client.history.health.stopped)


async def _reason(client: Client, text: str) -> bool:
    return text in client.history.health.reason

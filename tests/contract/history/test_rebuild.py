"""Promise 4, the other half: a view rebuilt from the beginning of the log is the live one, and takes its place without
a failed read; and what goes wrong leaves the live one alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parley_events.codec import EVENTS_TOPIC
from parley_events.errors import ObjectsUnavailable
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.port import Outgoing
from parley_events.objects import Objects, open_objects
from parley_history import writes
from parley_history.errors import RebuildRefused, Unavailable
from parley_history.migrate import migrate
from parley_history.rebuild import fill as fill_module
from parley_history.rebuild import load as load_module
from parley_history.rebuild.fill import Progress
from parley_history.rebuild.run import Outcome, back, rebuild
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import Writer, random_story, thread, workspace
from tests.contract.history.test_fold import _compare, _compare_facts
from tests.contract.history.test_large import LARGE, Away, write_large
from tests.contract.history.test_projector import until
from tests.support.postgres import NewServer

WS, T1 = workspace(1), thread(1)
STEPS = 260
_POLICIES = (
    "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relnamespace = to_regnamespace($1) "
    "AND relkind = 'r' AND relrowsecurity = relforcerowsecurity ORDER BY 1"
)
_INDEXES = "SELECT indexname, replace(indexdef, $1 || '.', '') AS def FROM pg_indexes WHERE schemaname = $1 ORDER BY 1"


async def rebuilt(settings: Settings, log: ListLog, objects: Objects | None = None, **asked: Any) -> Outcome:
    """A rebuild around the log of lists."""
    return await rebuild(settings, log, objects or open_objects("memory:"), **asked)


async def schemas(client: Client) -> set[str]:
    rows = await client.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'parley%'")
    return {row["nspname"] for row in rows}


@pytest.mark.parametrize(("seed", "tight"), [(0, False), (1, False), (1, True), (2, True), (3, True)])
async def test_rebuilt_is_live_is_reference(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seed: int, tight: bool
) -> None:
    """Also when next to nothing can be held in memory, so that rows are stored, let go of and fetched again."""
    if tight:
        monkeypatch.setattr(fill_module, "ROOM", 8)
        monkeypatch.setattr(load_module, "CHUNK", 9)
    log = ListLog(4)
    writer = random_story(seed, log, STEPS)
    now_ms = writer.now_ms + 700
    async with running(settings, log, clock=lambda: now_ms) as client:
        await client.caught_up(log)
        outcome = await rebuilt(settings, log)
        assert (outcome.differences, outcome.switched) == ([], True)
        assert outcome.records == sum((await log.ends(EVENTS_TOPIC)).values())
        assert await schemas(client) == {"parley", "parley_before"}
        await _compare(client, writer, log, now_ms)
        claims = "SELECT partition, claims FROM {}.positions ORDER BY 1"
        assert await client.rows(claims.format("parley")) == await client.rows(claims.format("parley_before"))
        for sql in (_POLICIES, _INDEXES):
            ours, before = await client.rows(sql, "parley"), await client.rows(sql, "parley_before")
            assert ours == before and len(ours) > 10
        # It goes on from there, in the schema that is live now.
        run = writer.post(thread(97), workspace(1))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{workspace(1)}/runs/{run}"))["status"] == "running"
        kept = await client.rows("SELECT id FROM parley_before.runs WHERE id = $1", run)
        assert kept == [], "nothing is written to the old one any more"


async def test_what_the_load_leaves_out_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is no formality: a load that forgets something is found out."""
    log = ListLog(4)
    random_story(3, log, STEPS)
    store = writes.store

    async def forgetful(con: Any, view: Any, streams: Any, insert: Any) -> None:
        view.call_statuses.clear()
        view.dues.clear()
        await store(con, view, streams, insert)

    monkeypatch.setattr(load_module, "store", forgetful)
    monkeypatch.setattr(load_module, "CHUNK", 3)
    async with running(settings, log) as client:
        await client.caught_up(log)
        outcome = await rebuilt(settings, log)
        assert {"messages", "dues"} & {difference.table for difference in outcome.differences}
        assert not outcome.switched


async def test_no_read_fails_or_is_torn_while_it_switches_under_load(settings: Settings) -> None:
    """Readers read what they wrote all the while; so the view they see never goes back, nor ends halfway."""
    log = ListLog(4)
    writer = random_story(7, log, STEPS)
    done = asyncio.Event()
    written = reads = 0
    async with running(settings, log, clock=lambda: writer.now_ms) as client, running(settings, log) as second:
        await client.caught_up(log)

        async def write() -> None:
            nonlocal written
            while not done.is_set():
                written += 1
                stream = thread(100 + written % 5)
                run = writer.post(stream, WS, command=f"live-{written}")
                writer.turn(stream, WS, run, f"answer {written}")
                writer.complete(stream, WS, run)
                await asyncio.sleep(0.01)

        async def read(one: Client, number: int) -> None:
            nonlocal reads
            stream = thread(100 + number)
            seen = 0
            while not done.is_set():
                seq = writer.seqs.get(stream, 0)
                position = f"{stream}@{seq}" if seq else []
                path = f"/workspaces/{WS}/threads/{stream}/messages"
                answer = await one.http.get(f"/internal{path}", params={"limit": 1, "min_position": position})
                if answer.status_code == 404:
                    assert seen == 0
                    continue
                assert answer.status_code == 200, answer.text
                page = answer.json()
                shown = await one.get(f"/workspaces/{WS}/threads/{stream}")
                assert shown["message_count"] >= page["total"] >= seen, "what was there is there"
                seen = page["total"]
                facts = await one.get(f"/streams/{stream}/facts", after=max(0, seq - 3))
                assert int(facts["items"][-1]["headers"]["ce_seq"]) == facts["last_seq"]
                assert facts["last_seq"] >= seq, "a write that was answered is read"
                reads += 1

        async def work() -> None:
            try:
                assert (await rebuilt(settings, log)).differences == []
                assert (await rebuilt(settings, log, drop=True)).switched
                assert (await back(settings, log, open_objects("memory:"))).switched
            finally:
                done.set()

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(write())
            for number in range(5):
                group.create_task(read(client if number % 2 else second, number))
            group.create_task(work())
        assert reads > 20
        await client.caught_up(log)
        await second.caught_up(log)
        await _compare_facts(client, Reference(writer.written, writer.now_ms))
        assert (await rebuilt(settings, log, drop=True)).differences == []


async def test_going_back_brings_the_kept_view_up_to_date_and_can_be_undone(settings: Settings) -> None:
    log, memory = ListLog(4), open_objects("memory:")
    writer = random_story(2, log, 120)
    async with running(settings, log, clock=lambda: writer.now_ms) as client:
        await client.caught_up(log)
        with pytest.raises(RebuildRefused, match="no view to go back to"):
            await back(settings, log, memory)
        assert (await rebuilt(settings, log)).switched
        oid = "SELECT oid::int FROM pg_namespace WHERE nspname = 'parley'"
        new = (await client.rows(oid))[0]
        for number in range(30):
            run = writer.post(thread(50 + number % 3), workspace(0), command=f"b{number}")
            writer.complete(thread(50 + number % 3), workspace(0), run)
        await client.caught_up(log)
        assert (await back(settings, log, memory)).switched
        assert (await client.rows(oid))[0] != new
        await _compare(client, writer, log, writer.now_ms)
        writer.post(thread(60), workspace(0))
        await client.caught_up(log)
        assert (await back(settings, log, memory)).switched
        assert (await client.rows(oid))[0] == new
        await client.caught_up(log)
        await _compare(client, writer, log, writer.now_ms)


async def test_views_that_differ_are_not_switched_unless_that_is_accepted(settings: Settings) -> None:
    log = ListLog(4)
    writer = random_story(4, log, STEPS)
    writer.post(T1 := thread(71), WS, "nobody else may read this", command="d")
    async with running(settings, log, clock=lambda: writer.now_ms) as client:
        await client.caught_up(log)
        async with client.history.writer.transaction() as con:
            await con.run("UPDATE messages SET content = 'another text' WHERE thread_id = $1", T1)
            await con.run("DELETE FROM runs WHERE thread_id = $1", T1)
        outcome = await rebuilt(settings, log)
        told = {difference.table: str(difference) for difference in outcome.differences}
        assert set(told) == {"messages", "runs"} and not outcome.switched
        assert "differs in content" in told["messages"] and T1 in told["messages"]
        assert "only in the rebuilt one" in told["runs"]
        assert "another text" not in repr(told) and "nobody else" not in repr(told)
        assert await schemas(client) == {"parley", "parley_next"}
        outcome = await rebuilt(settings, log, accept=True)
        assert outcome.switched and len(outcome.differences) == 2
        await _compare(client, writer, log, writer.now_ms)


async def test_one_old_view_is_kept_and_dropped_only_when_asked(settings: Settings) -> None:
    log = ListLog(4)
    random_story(6, log, 60)
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert (await rebuilt(settings, log)).switched
        with pytest.raises(RebuildRefused, match="--drop"):
            await rebuilt(settings, log)
        assert (await rebuilt(settings, log, drop=True)).switched
        assert await schemas(client) == {"parley", "parley_before"}


@pytest.mark.parametrize("stage", ["load", "indexes", "compare", "switch"])
async def test_killed_at_any_moment_it_leaves_the_live_view_alone_and_begins_anew(
    settings: Settings, stage: str
) -> None:
    log = ListLog(4)
    writer = random_story(8, log, 120)
    async with running(settings, log, clock=lambda: writer.now_ms) as client:
        await client.caught_up(log)
        killed: list[asyncio.Task[Outcome]] = []

        def kill(progress: Progress) -> None:
            if progress.stage == stage:
                killed[0].cancel()

        killed.append(asyncio.create_task(rebuilt(settings, log, tell=kill)))
        with suppress(asyncio.CancelledError):
            await killed[0]
        assert killed[0].cancelled()
        writer.post(thread(90), workspace(0))
        await client.caught_up(log)
        await _compare(client, writer, log, writer.now_ms)
        assert (await rebuilt(settings, log)).switched
        await _compare(client, writer, log, writer.now_ms)


async def test_the_command_is_killed_outright_and_run_again(settings: Settings, tmp_path: Path) -> None:
    """The process itself, on a log that another has open."""
    story = ListLog(4)
    random_story(11, story, STEPS)
    log = await EmbeddedLog.open(tmp_path / "log", 4)
    try:
        producer = await log.producer()
        for records in story.records:
            sent = [producer.send(Outgoing(EVENTS_TOPIC, r.partition, r.key, r.value, r.headers)) for r in records]
            await asyncio.gather(*sent)
        env = {
            **os.environ,
            "PARLEY_LOG": "embedded",
            "PARLEY_DATA": str(tmp_path),
            "PARLEY_INTERNAL_TOKEN": settings.internal_token,
            "PARLEY_POSTGRES": str(settings.postgres),
            "PARLEY_POSTGRES_PROJECTOR": settings.postgres_projector,
            "PARLEY_POSTGRES_READER": settings.postgres_reader,
        }
        words = [sys.executable, "-m", "parley_history", "rebuild"]
        async with running(settings, log) as client:
            await client.caught_up(log)
            process = await asyncio.create_subprocess_exec(*words, stderr=subprocess.PIPE, env=env)
            assert process.stderr is not None
            try:
                async with asyncio.timeout(60):
                    while not (await process.stderr.readline()).startswith(b"load: "):
                        assert process.returncode is None
            finally:
                process.kill()
                await process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert "parley_before" not in await schemas(client)
            async with asyncio.timeout(60):
                while True:
                    process = await asyncio.create_subprocess_exec(
                        *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
                    )
                    out, errors = await process.communicate()
                    # PostgreSQL may not have noticed yet that the first one is gone.
                    if b"at work already" not in errors:
                        break
            assert process.returncode == 0, errors
            assert b"switched; the view of before is kept as parley_before" in out and b"differs" not in out
            assert await schemas(client) == {"parley", "parley_before"}
    finally:
        await log.close()


async def test_of_two_at_once_the_second_says_so(settings: Settings) -> None:
    log = ListLog(4)
    random_story(9, log, 60)
    async with running(settings, log) as client:
        await client.caught_up(log)
        refused: list[str] = []

        def second(progress: Progress) -> None:
            if progress.stage == "indexes":
                tasks.append(asyncio.create_task(try_it()))

        async def try_it() -> None:
            for work in (rebuilt(settings, log), back(settings, log, open_objects("memory:"))):
                try:
                    await work
                except RebuildRefused as error:
                    refused.append(str(error))

        tasks: list[asyncio.Task[None]] = []
        assert (await rebuilt(settings, log, tell=second)).switched
        await asyncio.gather(*tasks)
        assert len(refused) == 2 and all("at work already" in text for text in refused)


async def test_it_goes_as_far_as_the_live_view_that_is_stopped_at_a_record(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    partition = writer.partition(T1)
    broken = writer.record(writer.make(T1, WS, writer.written[-1].body))
    log.append(Outgoing(broken.topic, partition, broken.key, b"not json", broken.headers))
    other = next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != partition)
    async with running(settings, log) as client:
        await until(lambda: _named(client, partition))
        assert (await rebuilt(settings, log)).switched
        run = writer.post(other, WS)
        await until(lambda: _found(client, f"/workspaces/{WS}/runs/{run}"))
        stands = {one["partition"]: one["next_offset"] for one in (await client.get("/positions"))["partitions"]}
        assert stands[partition] == 2


async def test_what_the_live_view_went_beyond_and_cannot_be_folded_ends_it(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    partition = writer.partition(T1)
    log.append(Outgoing(EVENTS_TOPIC, partition, T1.encode(), b"{}", (("ce_type", b"thread.created"),)))
    async with running(settings, log) as client:
        await until(lambda: _named(client, partition))
        async with client.history.writer.transaction() as con:
            await con.run("UPDATE positions SET next_offset = next_offset + 1 WHERE partition = $1", partition)
        with pytest.raises(RebuildRefused, match=f"partition {partition} cannot be folded as far"):
            await rebuilt(settings, log)
        assert "parley_before" not in await schemas(client)


async def test_a_name_too_long_for_a_second_one_is_refused(settings: Settings) -> None:
    with pytest.raises(RebuildRefused, match="at most 50"):
        await rebuilt(replace(settings, schema="p" * 60), ListLog(4))


async def _named(client: Client, partition: int) -> bool:
    return partition in client.history.health.stopped


async def _found(client: Client, path: str) -> bool:
    return (await client.http.get(f"/internal{path}")).status_code == 200


async def test_large_contents_are_whole_and_their_absence_ends_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, objects = ListLog(4), Away(ObjectsUnavailable)
    writer = Writer(log)
    run = writer.post(T1, WS)
    await write_large(writer, objects, T1, run)
    monkeypatch.setattr(load_module, "_OBJECTS_S", (0.0, 0.01))
    async with running(settings, log, objects) as client:
        await client.caught_up(log)
        objects.go()
        with pytest.raises(RebuildRefused, match="cannot be had"):
            await rebuilt(settings, log, objects)
        objects.error = None
        assert (await rebuilt(settings, log, objects)).switched
        page = await client.get(f"/workspaces/{WS}/threads/{T1}/messages", roles="tool")
        assert page["items"][0]["content"] == LARGE


async def test_a_log_that_lost_its_beginning_or_another_log_is_refused(settings: Settings) -> None:
    log = ListLog(4)
    random_story(1, log, 60)
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def begins(topic: str) -> dict[int, int]:
            return {0: 3, 1: 0, 2: 0, 3: 0}

        whole, log.begins = log.begins, begins  # type: ignore[method-assign]
        with pytest.raises(RebuildRefused, match="before offset 3 were deleted"):
            await rebuilt(settings, log)
        log.begins = whole  # type: ignore[method-assign]
        with pytest.raises(RebuildRefused, match="another log"):
            await rebuilt(settings, ListLog(4))
        with pytest.raises(RebuildRefused, match="partitions"):
            await rebuilt(settings, ListLog(3))
        assert await schemas(client) == {"parley"}


async def test_postgresql_away_is_said_and_nothing_hangs(settings: Settings) -> None:
    assert settings.postgres is not None
    nowhere = "postgresql://parley_owner:x@127.0.0.1:1/none"
    with pytest.raises(Unavailable):
        await rebuilt(replace(settings, postgres=nowhere), ListLog(4))


async def test_postgresql_dies_while_it_loads_and_everything_goes_on_afterwards(new_postgres: NewServer) -> None:
    server = new_postgres()
    settings = await settings_for(server)
    await migrate(settings)
    log = ListLog(4)
    writer = random_story(12, log, STEPS)
    async with running(settings, log, clock=lambda: writer.now_ms) as client:
        await client.caught_up(log)

        def die(progress: Progress) -> None:
            if progress.stage == "load" and server.alive:
                server.kill()

        with pytest.raises(Unavailable):
            await asyncio.wait_for(rebuilt(settings, log, tell=die), 60)
        await asyncio.to_thread(server.start)
        writer.post(thread(91), WS)
        await until(lambda: _found(client, f"/workspaces/{WS}/threads/{thread(91)}"), 30)
        assert (await rebuilt(settings, log)).switched
        await _compare(client, writer, log, writer.now_ms)


async def test_the_switch_waits_for_a_read_that_began_before_the_last_facts(settings: Settings) -> None:
    """A read of several statements sees one state: it ends in the schema it began in, or sees the same in both."""
    log = ListLog(4)
    writer = random_story(5, log, 60)
    async with running(settings, log) as client:
        await client.caught_up(log)
        at_switch = asyncio.Event()

        def tell(progress: Progress) -> None:
            if progress.stage == "switch":
                at_switch.set()

        async with _reading(client) as count:
            task = asyncio.create_task(rebuilt(settings, log, tell=tell))
            await asyncio.wait_for(at_switch.wait(), 30)
            before = await count()
            writer.post(thread(80), WS)
            await asyncio.wait({task}, timeout=1.0)
            assert not task.done(), "it waits for the read"
            assert await count() == before
        assert (await asyncio.wait_for(task, 30)).switched


@asynccontextmanager
async def _reading(client: Client) -> Any:
    async with client.history.scoped.transaction(workspace=WS, snapshot=True) as con:

        async def count() -> int:
            return int(await con.value("SELECT count(*) FROM facts"))

        await count()
        yield count

"""The folder of the embedded log: what was acknowledged survives everything, and one process holds it at a time."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from parley_events.errors import LogInUse, LogUnavailable, TopicMismatch
from parley_events.log import embedded as embedded_log
from parley_events.log.embedded import EmbeddedLog
from tests.contract.log.reading import LIMIT_S, TOPIC, read, record, texts, until, write

WRITER = """
import asyncio, sys
from pathlib import Path
from parley_events.log import Outgoing
from parley_events.log.embedded import EmbeddedLog

async def main():
    log = await EmbeddedLog.open(Path(sys.argv[1]), 4)
    producer = await log.producer()
    async def writer(partition):
        n = 0
        while True:
            offset = await producer.send(Outgoing("parley.commands", partition, b"key", b"%d" % n))
            print(partition, offset, n, flush=True)
            n += 1
    await asyncio.gather(*(writer(p) for p in range(4)))

asyncio.run(main())
"""


async def nothing(_: frozenset[int]) -> None: ...


async def test_a_log_that_is_opened_again_has_every_record_and_every_commit(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, 4)
    await write(log, [record(p, f"{p}:{n}") for n in range(5) for p in range(4)])
    before = await log.tail(TOPIC, dict.fromkeys(range(4), 0))
    first = sorted(await read(before, 20), key=lambda r: (r.partition, r.offset))
    group = await log.group(TOPIC, "g", nothing, nothing)
    await group.commit({0: 5, 1: 3})
    await log.close()
    log = await EmbeddedLog.open(tmp_path, 4)
    assert await log.ends(TOPIC) == dict.fromkeys(range(4), 5)
    tail = await log.tail(TOPIC, dict.fromkeys(range(4), 0))
    again = sorted(await read(tail, 20), key=lambda r: (r.partition, r.offset))
    assert again == first
    group = await log.group(TOPIC, "g", nothing, nothing)
    found = await read(group, 0 + 2 + 5 + 5)
    assert texts(found, 1) == ["1:3", "1:4"]
    assert await write(log, [record(2, "next")]) == [5]
    await log.close()


async def test_what_was_handed_over_before_the_close_is_there(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, 4)
    producer = await log.producer()
    futures = [producer.send(record(0, str(n))) for n in range(500)]
    await log.close()
    assert [future.result() for future in futures] == list(range(500))
    with pytest.raises(LogUnavailable):
        await producer.send(record(0, "late"))
    log = await EmbeddedLog.open(tmp_path, 4)
    assert (await log.ends(TOPIC))[0] == 500
    await log.close()


async def test_every_acknowledged_record_survives_a_kill_and_offsets_go_on(tmp_path: Path) -> None:
    acknowledged: dict[int, list[str]] = {p: [] for p in range(4)}
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            lines = [await process.stdout.readline() for _ in range(300)]
            process.send_signal(signal.SIGKILL)
            lines += (await process.stdout.read()).splitlines(keepends=True)
            assert await process.wait() == -signal.SIGKILL
        for line in lines:
            if re.fullmatch(rb"\d \d+ \d+\n", line):  # the last line may be cut
                place, offset, text = line.decode().split()
                assert int(offset) == len(acknowledged[int(place)])
                acknowledged[int(place)].append(text)
        log = await EmbeddedLog.open(tmp_path, 4)
        ends = await log.ends(TOPIC)
        tail = await log.tail(TOPIC, dict.fromkeys(range(4), 0))
        found = await read(tail, sum(ends.values()))
        for partition in range(4):
            kept = texts(found, partition)
            assert [r.offset for r in found if r.partition == partition] == list(range(ends[partition]))
            acknowledged[partition] = _continued(acknowledged[partition], kept)
        await log.close()


def _continued(acknowledged: list[str], kept: list[str]) -> list[str]:
    """The records kept: those that were acknowledged, in order, and at most the one that was under way."""
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) - len(acknowledged) <= 1
    return kept


async def test_a_commit_is_flushed_to_the_disk_before_it_counts(tmp_path: Path) -> None:
    """A kill shows what the process had written, not what a power cut leaves: for that SQLite must flush."""
    log = await EmbeddedLog.open(tmp_path, 4)
    assert log._db is not None
    full = 2
    assert log._db.execute("PRAGMA synchronous").fetchone() == (full,)
    assert log._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await log.close()


async def test_a_folder_in_use_names_the_process_that_holds_it(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, 4)
    with pytest.raises(LogInUse, match=str(os.getpid())) as refused:
        await EmbeddedLog.open(tmp_path, 4)
    assert refused.value.pid == os.getpid()
    await log.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), LIMIT_S)
        with pytest.raises(LogInUse, match=f"process {process.pid}"):
            await EmbeddedLog.open(tmp_path, 4)
    finally:
        process.kill()
        await process.communicate()
    await (await EmbeddedLog.open(tmp_path, 4)).close()


async def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, 4)).close()
    db = sqlite3.connect(tmp_path / "log.sqlite")
    db.execute("PRAGMA user_version = 2")
    db.close()
    for _ in range(2):  # the second time shows that the first let the folder go
        with pytest.raises(TopicMismatch, match=r"newer Parley \(version 2, this one knows 1\)"):
            await EmbeddedLog.open(tmp_path, 4)


async def test_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, 4)).close()
    with pytest.raises(TopicMismatch, match="has 4 partitions, 8 were asked for"):
        await EmbeddedLog.open(tmp_path, 8)
    for partitions in (0, 257):
        with pytest.raises(TopicMismatch, match="1 to 256"):
            await EmbeddedLog.open(tmp_path / "other", partitions)
    log = await EmbeddedLog.open(tmp_path, 4)
    assert log.partitions == 4
    await log.close()


async def test_a_folder_that_was_half_made_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill in the middle of the first start."""
    monkeypatch.setattr(embedded_log, "_TABLES", (*embedded_log._TABLES[:1], "CREATE NOTHING"))
    with pytest.raises(LogUnavailable, match="cannot be read"):
        await EmbeddedLog.open(tmp_path, 4)
    monkeypatch.undo()
    log = await EmbeddedLog.open(tmp_path, 4)
    assert await write(log, [record(0, "a")]) == [0]
    await log.close()


async def test_a_folder_that_is_no_log_is_said_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=re.escape(str(tmp_path))):
            await EmbeddedLog.open(tmp_path, 4)


async def test_offsets_go_on_after_retention_and_a_restart(tmp_path: Path) -> None:
    ahead = 0

    def clock() -> int:
        return 1_800_000_000_000 + ahead

    log = await EmbeddedLog.open(tmp_path, 4, clock)
    await write(log, [record(0, str(n)) for n in range(5)])
    await write(log, [record(0, str(n), "parley.events") for n in range(5)])
    ahead = 20 * 86_400_000
    log.retire()
    await until(lambda: log._parts[(TOPIC, 0)].first == 4)
    await log.close()
    log = await EmbeddedLog.open(tmp_path, 4, clock)
    assert (await log.begins(TOPIC))[0] == 4
    assert (await log.begins("parley.events"))[0] == 0, "facts are kept for ever"
    assert await write(log, [record(0, "next")]) == [5]
    tail = await log.tail(TOPIC, {0: 4})
    assert texts(await read(tail, 2)) == ["4", "next"]
    await log.close()

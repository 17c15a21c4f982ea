"""The embedded log, read by another process beside the one that has it open."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from parley_events.codec import EVENTS_TOPIC
from parley_events.errors import LogUnavailable, RetentionGap
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.open import open_reading
from parley_events.log.port import Outgoing, Producer

_OTHER = """
import asyncio, sys
from pathlib import Path
from parley_events.log.open import open_reading

async def main():
    log = await open_reading("embedded", "", Path(sys.argv[1]), "other")
    tail = await log.tail("parley.events", {1: 0})
    print(log.partitions, [r.value.decode() for r in await tail.batch(5.0)], await log.ends("parley.events"))

asyncio.run(main())
"""


async def _write(producer: Producer, *texts: str) -> None:
    for text in texts:
        await producer.send(Outgoing(EVENTS_TOPIC, 1, b"k", text.encode(), (("h", b"v"),)))


async def test_another_process_reads_what_is_committed_and_what_comes(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path / "log", 2)
    try:
        producer = await log.producer()
        await _write(producer, "one", "two")
        words = [sys.executable, "-c", _OTHER, str(tmp_path)]
        done = await asyncio.to_thread(lambda: subprocess.run(words, capture_output=True, text=True, timeout=60))
        assert done.stdout.strip() == "2 ['one', 'two'] {0: 0, 1: 2}", done.stderr
        reading = await open_reading("embedded", "", tmp_path, "here")
        tail = await reading.tail(EVENTS_TOPIC, {0: 0, 1: 1})
        (two,) = await tail.batch(5.0)
        assert (two.partition, two.offset, two.key, two.value, two.headers) == (1, 1, b"k", b"two", (("h", b"v"),))
        assert await tail.batch(0.01) == []
        waiting = asyncio.create_task(tail.batch(10.0))
        await _write(producer, "three")
        assert [record.value for record in await waiting] == [b"three"]
        assert tail.position(1) == 3
        tail.remove(1)
        await _write(producer, "four")
        assert await tail.batch(0.1) == []
        await tail.close()
        await reading.close()
    finally:
        await log.close()


async def test_records_that_were_deleted_are_a_gap_and_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="no log"):
        await open_reading("embedded", "", tmp_path, "here")
    now = [1_750_000_000_000]
    log = await EmbeddedLog.open(tmp_path / "log", 1, lambda: now[0])
    try:
        producer = await log.producer()
        for text in (b"old", b"new"):
            await producer.send(Outgoing("parley.commands", 0, b"k", text))
            now[0] += 15 * 86_400_000
            log.retire()
        reading = await open_reading("embedded", "", tmp_path, "here")
        async with asyncio.timeout(10):
            while (await reading.begins("parley.commands"))[0] == 0:
                await asyncio.sleep(0.02)
        tail = await reading.tail("parley.commands", {0: 0})
        with pytest.raises(RetentionGap):
            await tail.batch(5.0)
        await reading.close()
    finally:
        await log.close()

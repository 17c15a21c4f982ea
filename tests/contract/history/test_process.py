"""History as it is run: on the embedded log, and as a process of its own that ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx2

from parley_events.log.embedded import EmbeddedLog
from parley_events.log.port import Incoming, Outgoing
from parley_history.app import build
from parley_history.settings import Settings
from parley_history.sql import migrations
from tests.contract.history.conftest import TOKEN, running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import random_story
from tests.contract.history.test_projector import until
from tests.support.postgres import Server


async def test_the_embedded_log_is_folded_like_any_other(settings: Settings) -> None:
    story = random_story(21, ListLog(4), 300)
    log = await EmbeddedLog.open(None, partitions=4)
    try:
        app = build(settings, log=log)
        async with app.router.lifespan_context(app):
            producer = await log.producer()
            sent = [producer.send(_outgoing(record)) for partition in story.log.records for record in partition]
            await asyncio.gather(*sent)
            ends = await log.ends("parley.events")
            reference = Reference(story.written)
            transport = httpx2.ASGITransport(app)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx2.AsyncClient(transport=transport, base_url="http://h", headers=headers) as http:
                waited: Any = {"min_position": [f"{p}.{end}" for p, end in ends.items()], "wait_ms": 10_000}
                assert (await http.get("/internal/positions", params=waited)).status_code == 200
                for stream, run in reference.runs():
                    expected = reference.run(stream, run)
                    found = await http.get(f"/internal/workspaces/{expected['workspace_id']}/runs/{run}")
                    assert found.json() == expected
            await producer.close()
    finally:
        await log.close()


def _outgoing(record: Incoming) -> Outgoing:
    return Outgoing(record.topic, record.partition, record.key, record.value, record.headers)


async def test_the_process_migrates_serves_and_ends(postgres: Server, tmp_path: Path) -> None:
    settings = await settings_for(postgres)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "PARLEY_LOG": "embedded",
        "PARLEY_DATA": str(tmp_path),
        "PARLEY_POSTGRES": settings.postgres or "",
        "PARLEY_POSTGRES_READER": settings.postgres_reader,
        "PARLEY_POSTGRES_PROJECTOR": settings.postgres_projector,
        "PARLEY_INTERNAL_TOKEN": TOKEN,
        "PARLEY_PORT": str(port),
        "PARLEY_LOG_FILE": str(tmp_path / "history.log"),
    }
    command = (sys.executable, "-m", "parley_history")
    for _ in range(2):
        migrated = await asyncio.create_subprocess_exec(
            *command, "migrate", env=environ, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(migrated.communicate(), 30)
        assert (migrated.returncode, output.decode()) == (0, f"the schema is at migration {len(migrations())}\n")
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(ready)
            answer = await http.get("/internal/positions", headers={"Authorization": f"Bearer {TOKEN}"})
            assert len(answer.json()["partitions"]) == 8
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = (tmp_path / "history.log").read_text().splitlines()
    assert lines and all(json.loads(line)["message"] for line in lines)
    assert not any(secret in line for line in lines for secret in (TOKEN, "a-password"))


async def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PARLEY_INTERNAL_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "parley_history", env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, errors.decode()) == (1, "PARLEY_POSTGRES_PROJECTOR is not set\n")


async def test_a_history_that_waits_for_everything_still_ends_at_once(settings: Settings) -> None:
    away = "postgresql://{}:x@127.0.0.1:1/parley"
    log = ListLog(4)
    started = asyncio.get_running_loop().time()
    async with running(
        settings,
        log,
        postgres_projector=away.format("parley_projector"),
        postgres_reader=away.format("parley_reader"),
    ) as client:
        assert (await client.http.get("/readyz")).status_code == 503
        await client.get("/positions", status=503)
    assert asyncio.get_running_loop().time() - started < 8

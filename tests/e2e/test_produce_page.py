"""docs/produce.md: its programs run as they stand there, as processes of their own, and print what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from parley_events.partition import partition_of
from tests.support.system import System
from tests.support.topics import believed, claims, put, read_topic

PAGE = (Path(__file__).parents[2] / "docs" / "produce.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
SESSIONS = [session for session in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) if "kafka-acls" not in session]
LIMIT_S = 90.0
EVENTS = "parley.events"


@pytest.fixture
def folder(tmp_path: Path, cluster: System) -> Iterator[Path]:
    """A folder that holds the page's programs and nothing of Parley."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, "utf-8")
    yield tmp_path


async def shell(folder: Path, system: System, commands: str) -> list[str]:
    """What the commands print. `python` is the one of the tests, the environment has what the page says alone."""
    ready = system.ready()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "KAFKA": ready["kafka"], "WORKSPACE": ready["workspace_id"], "PYTHONWARNINGS": "error"}
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-eu", "-c", commands],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return [line.rstrip() for line in done.stdout.splitlines()]


def typed_and_printed(session: str) -> tuple[str, list[str]]:
    lines = session.splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(typed), [line.rstrip() for line in lines if not line.startswith("$ ")]


@pytest.mark.parametrize("session", [one for one in SESSIONS if "tokens.py" not in one], ids=lambda one: one[:40])
async def test_a_session_prints_what_the_page_shows(cluster: System, folder: Path, session: str) -> None:
    typed, printed = typed_and_printed(session)
    assert await shell(folder, cluster, typed) == printed


async def counted(folder: Path, system: System) -> dict[str, int]:
    """The tokens of each agent; the form of a line is the page's."""
    [session] = [one for one in SESSIONS if "tokens.py" in one]
    typed, printed = typed_and_printed(session)
    lines = await shell(folder, system, typed)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \S+ \d+", line) for line in (*lines, *printed)), lines
    found: dict[str, int] = {}
    for line in lines:
        _, agent, tokens = line.split()
        found[agent] = found.get(agent, 0) + int(tokens)
    return found


async def test_the_tokens_of_every_run_are_counted_once(cluster: System, folder: Path) -> None:
    ask = """python ask.py scripted '/tool ask_agent {"agent_id": "analyst", "message": "/usage 2 1"}'"""
    await shell(folder, cluster, ask)
    before = await counted(folder, cluster)
    await shell(folder, cluster, f"{ask}\npython ask.py analyst $'/usage 1000 1\\n/text x'")
    after = await counted(folder, cluster)
    assert after["analyst"] - before["analyst"] == 1001 + 3
    assert after["scripted"] > before["scripted"]
    bootstrap = cluster.ready()["kafka"]
    [*_, end] = [fact for fact in believed(await read_topic(bootstrap, EVENTS)) if fact.type == "run.completed"]
    assert end.key is not None and end.value is not None
    stale = {**end.headers, "ce_epoch": b"%d" % (end.epoch - 1), "ce_seq": b"%d" % (int(end.head("ce_seq")) + 1)}
    for headers in (end.headers, stale):
        await put(bootstrap, EVENTS, end.partition, end.key, end.value, list(headers.items()))
    assert await counted(folder, cluster) == after, "what came twice, or from a superseded dispatcher, was counted"


@pytest.mark.parametrize("program", ["ask.py", "ask_confluent.py"])
async def test_what_a_superseded_dispatcher_says_is_not_believed(cluster: System, folder: Path, program: str) -> None:
    """It refuses the command, again and again, while the true outcome is on its way."""
    thread, command = str(uuid.uuid4()), str(uuid.uuid4())
    fixed = f"import uuid\nids = iter({[thread, command]!r})\nuuid.uuid4 = lambda: next(ids)\n"
    (folder / program).write_text(fixed + PROGRAMS[program], "utf-8")
    bootstrap = cluster.ready()["kafka"]
    partition = partition_of(thread.encode(), 8)
    epoch = claims(await read_topic(bootstrap, EVENTS, partition), partition)[-1].offset
    headers = {
        "ce_type": "command.rejected",
        "ce_subject": thread,
        "ce_epoch": str(epoch - 1),
        "ce_time": "2026-01-01T00:00:00Z",
        "ce_causationid": command,
        "ce_workspaceid": cluster.ready()["workspace_id"],
    }
    body = b'{"command_type": "message.post", "code": "zombie", "message": "never"}'
    said = 0

    async def zombie() -> None:
        nonlocal said
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            while True:
                heads = [(name, text.encode()) for name, text in headers.items()]
                await producer.send_and_wait(EVENTS, body, thread.encode(), partition, headers=heads)
                said += 1

    task = asyncio.create_task(zombie())
    try:
        printed = await shell(folder, cluster, f'python {program} scripted "/text Alive."')
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert said > 50
    assert printed[0].startswith("message.posted")
    assert any("Alive." in line for line in printed)


def test_every_program_and_session_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 4
    assert len(SESSIONS) == PAGE.count("```console") - 1 == 5
    for name, text in PROGRAMS.items():
        assert any(f"python {name}" in session for session in SESSIONS), name
        assert "parley_" not in text, f"{name} imports something of Parley"
        compile(text, name, "exec")

"""docs/produce.md: its programs run as they stand there, as processes of their own, and print what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system import System

PAGE = (Path(__file__).parents[2] / "docs" / "produce.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
SESSIONS = [session for session in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) if "kafka-acls" not in session]
LIMIT_S = 90.0


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


async def test_the_tokens_of_every_run_are_counted_once(cluster: System, folder: Path) -> None:
    [session] = [one for one in SESSIONS if "tokens.py" in one]
    typed, printed = typed_and_printed(session)

    async def counted() -> dict[str, int]:
        """The tokens of each agent; the form of a line is the page's."""
        lines = await shell(folder, cluster, typed)
        form = r"\d{4}-\d\d-\d\d \S+ \d+"
        assert all(re.fullmatch(form, line) for line in (*lines, *printed)), lines
        found: dict[str, int] = {}
        for line in lines:
            _, agent, tokens = line.split()
            found[agent] = found.get(agent, 0) + int(tokens)
        return found

    asking = (
        'python ask.py scripted $\'/usage 300 40\\n/tool ask_agent {"agent_id": "analyst", "message": "/usage 2 1"}\''
    )
    await shell(folder, cluster, f"{asking}\npython ask.py analyst $'/usage 1000 1\\n/text x'")
    before = await counted()
    await shell(folder, cluster, f"{asking}\npython ask.py analyst $'/usage 1000 1\\n/text x'")
    after = await counted()
    added = {agent: after[agent] - before[agent] for agent in ("scripted", "analyst")}
    assert added["analyst"] == 1001 + 3
    assert added["scripted"] >= 340


def test_every_program_and_session_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 4
    assert len(SESSIONS) == PAGE.count("```console") - 1 == 5
    for name, text in PROGRAMS.items():
        assert any(f"python {name}" in session for session in SESSIONS), name
        assert "parley_" not in text, f"{name} imports something of Parley"
        compile(text, name, "exec")

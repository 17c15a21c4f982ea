"""`parley rebuild` and the way back, on both kinds of system, while clients read and write."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.support.system import PARLEY, System, eventually, new_thread


def _parley(system: System, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DATA": str(system.folder / "data"), "PARLEY_OBJECTS": ""}
    return subprocess.run([PARLEY, *words], env=env, capture_output=True, text=True, timeout=180, check=False)


async def test_a_rebuilt_view_takes_over_while_threads_go_on(system: System) -> None:
    async with system.client() as client:
        done = asyncio.Event()
        threads = [await new_thread(client) for _ in range(3)]
        answered = 0

        async def talk(thread: str) -> None:
            nonlocal answered
            while not done.is_set():
                path = f"/api/v1/chat/threads/{thread}/messages"
                said = await client.post(path, json={"content": "hello", "wait": True})
                assert said.status_code in (200, 201, 202), said.text
                page = await client.get(path)
                assert page.status_code == 200, page.text
                answered += 1

        async def work() -> None:
            try:
                done_once = await asyncio.to_thread(_parley, system, "rebuild", "--drop")
                assert done_once.returncode == 0, done_once.stdout + done_once.stderr
                assert "switched; the view of before is kept as parley_before" in done_once.stdout
                assert "differs" not in done_once.stdout
                refused = await asyncio.to_thread(_parley, system, "rebuild")
                assert refused.returncode == 1 and "--drop" in refused.stderr
                back = await asyncio.to_thread(_parley, system, "rebuild", "--back")
                assert back.returncode == 0 and "switched back" in back.stdout, back.stderr
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            for thread in threads:
                group.create_task(talk(thread))
            group.create_task(work())
        assert answered > 3
        for thread in threads:

            async def both_said(thread: str = thread) -> bool:
                page = (await client.get(f"/api/v1/chat/threads/{thread}/messages", params={"limit": 1})).json()
                return bool(page["items"])

            await eventually(both_said)


def test_where_no_parley_runs_it_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "DATA": str(tmp_path)}
    done = subprocess.run([PARLEY, "rebuild"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "no Parley runs on" in done.stderr
    both = subprocess.run([PARLEY, "rebuild", "--back", "--drop"], env=env, capture_output=True, text=True, check=False)
    assert both.returncode == 1 and "--back goes alone" in both.stderr


def test_historys_own_command_reads_its_arguments() -> None:
    words = [sys.executable, "-m", "parley_history", "rebuild", "--back", "--accept"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "[--accept] [--drop] [--back] [--processes=N]" in done.stderr

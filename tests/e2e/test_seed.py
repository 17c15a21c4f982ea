"""`parley seed` on a Parley that others started: a workspace, its keys and agents, once however often it is run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from pathlib import Path

from parley_events.keys import make_key
from tests.support.system import PARLEY, System, eventually

AGENT = "agents: [{id: seeded, name: Seeded, model: scripted}]"


def run_seed(system: System, agents: Path, workspace: str, key: str) -> subprocess.CompletedProcess[str]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
        "PARLEY_KAFKA": system.ready()["kafka"],
        "PARLEY_WORKSPACE_ID": workspace,
        "PARLEY_API_KEY": key,
        "PARLEY_KEY": make_key(workspace, b"a" * 32),
        "AGENTS": str(agents),
    }
    return subprocess.run([PARLEY, "seed"], env=env, capture_output=True, text=True, timeout=90, check=False)


async def test_a_workspace_is_there_once_and_what_changed_in_the_file_is_changed(
    cluster: System, tmp_path: Path
) -> None:
    workspace, agents = str(uuid.uuid4()), tmp_path / "agents.yaml"
    first, second = make_key(workspace, os.urandom(32)), make_key(workspace, os.urandom(32))

    async def served(key: str, version: int) -> bool:
        async with cluster.client(key=key) as client:
            answer = await client.get("/api/v1/agents")
        return answer.status_code == 200 and [(agent["id"], agent["version"]) for agent in answer.json()["items"]] == [
            ("seeded", version)
        ]

    agents.write_text(AGENT)
    for _ in range(2):
        done = await asyncio.to_thread(run_seed, cluster, agents, workspace, first)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"workspace {workspace}: 1 agents, 0 teams" in done.stdout and first not in done.stdout
    await eventually(lambda: served(first, 1))

    # Another key, and another agent: both keys are in, the agent is of a second version.
    agents.write_text(AGENT.replace("Seeded", "Reseeded"))
    done = await asyncio.to_thread(run_seed, cluster, agents, workspace, second)
    assert (done.returncode, done.stderr) == (0, "")
    await eventually(lambda: served(first, 2))
    await eventually(lambda: served(second, 2))

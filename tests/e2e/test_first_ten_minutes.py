"""A newcomer's first ten minutes, and what scripts are promised: starting, stopping, coming back, one clear line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx2
import psutil
import pytest

from parley_standalone.folder import Folder
from parley_standalone.settings import SHIPPED_AGENTS
from tests.e2e.conftest import MODEL
from tests.support.system import PARLEY, System, eventually, new_thread, start, stop, stream

TOP = Path(__file__).parents[2]
MESSAGES = "/api/v1/chat/threads/{}/messages"
KEYS = {
    *("base_url", "gateways", "api_key", "admin_key", "workspace", "workspace_id", "user", "kafka", "postgres", "pids"),
}
STOP_S = 15.0
"""Ten seconds are promised; the rest is for a machine that has much else to do."""
RESTART_S = 6.0
"""Two seconds are promised; likewise."""


def parley(data: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `parley` to its end."""
    return subprocess.run(
        [PARLEY, *words],
        env={**os.environ, "DATA": str(data), "PORT": "0", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def as_json(data: Path, *words: str) -> Any:
    done = parley(data, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that is said with exit status 1."""
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line


def screen(system: System) -> str:
    return (system.folder / "screen.txt").read_text()


def curl_line(system: System) -> str:
    """The line of the banner that is meant to be pasted; of the last start."""
    return str(re.findall(r"^ *(curl .*)$", screen(system), re.MULTILINE)[-1])


class Start(Protocol):
    def __call__(self, kind: str, folder: Path, prefix: Sequence[str] = (), **settings: str) -> System: ...


@pytest.fixture
def begin() -> Iterator[Start]:
    """Starts systems of the test's own; one that a failed test leaves running is killed."""
    begun: list[System] = []

    def start_one(kind: str, folder: Path, prefix: Sequence[str] = (), **settings: str) -> System:
        begun.append(start(kind, folder, prefix, **{**MODEL, **settings}))
        return begun[-1]

    yield start_one
    for system in begun:
        if system.process.poll() is None:
            left = family(system)
            kill_all(left)
            system.process.wait()
            wait_until_gone(left)


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(processes: list[psutil.Process]) -> None:
    until = time.monotonic() + 20
    while left := [process for process in processes if not is_gone(process)]:
        assert time.monotonic() < until, f"still running: {left}"
        time.sleep(0.05)


def family(system: System) -> list[psutil.Process]:
    """Every process of a running Parley."""
    top = psutil.Process(system.process.pid)
    return [top, *top.children(recursive=True)]


def stop_and_leave_nothing(system: System) -> None:
    """Ctrl-C: within the limit, with nothing left running and no READY."""
    running = family(system)
    try:
        stop(system, STOP_S)
        wait_until_gone(running)
    except BaseException:
        kill_all(running)
        raise
    assert not (system.folder / "ready.json").exists()
    assert not (system.folder / "data" / "ready.json").exists()


def modes_above(place: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of every folder above a place."""
    return {folder: (s.st_mode, s.st_uid, s.st_gid) for folder in place.parents for s in [folder.stat()]}


async def answer_to(system: System, content: str, gateway: int = 0, agent: str = "scripted") -> dict[str, Any]:
    """The answer of a new thread to a message, waited for."""
    async with system.client(gateway) as client:
        thread = await new_thread(client, agent)
        answer = await client.post(MESSAGES.format(thread), params={"wait": "20"}, json={"content": content})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def shown_by_bash(line: str, prefix: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*prefix, "bash", "-c", line], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- what the screen and READY say


def test_ready_says_all_that_was_promised_and_others_cannot_read_it(standalone: System) -> None:
    ready = standalone.ready()
    assert ready.keys() == KEYS
    assert ready["gateways"] == [ready["base_url"]]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", ready["base_url"])
    assert (ready["workspace"], ready["user"], ready["kafka"]) == ("default", "owner", None)
    assert ready["workspace_id"] == str(uuid.UUID(ready["workspace_id"]))
    assert ready["api_key"] != ready["admin_key"]
    assert ready["pids"]["standalone"] == [standalone.process.pid]
    assert "postgres" in psutil.Process(ready["pids"]["postgres"][0]).name()
    for file in (standalone.folder / "ready.json", standalone.folder / "data" / "secrets.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_ready_of_a_cluster_lists_the_workers_themselves(cluster: System) -> None:
    ready = cluster.ready()
    assert ready.keys() == KEYS
    assert re.fullmatch(r"127\.0\.0\.1:\d+", ready["kafka"])
    assert len(set(ready["gateways"])) == 2 and ready["gateways"][0] == ready["base_url"]
    pids = ready["pids"]
    assert {kind: len(found) for kind, found in pids.items()} == {
        "gateway": 2,
        "dispatcher": 2,
        "history": 2,
        "kafka": 1,
        "postgres": 1,
    }
    for kind in ("gateway", "dispatcher", "history"):
        for pid in pids[kind]:
            assert psutil.Process(pid).cmdline()[1:] == ["-m", f"parley_{kind}"]
            assert psutil.Process(pid).children() == []
    assert "kafka.Kafka" in psutil.Process(pids["kafka"][0]).cmdline()
    assert Path(psutil.Process(pids["postgres"][0]).cmdline()[0]).name == "postgres"


def test_the_screen_shows_the_banner_and_nothing_else_and_logs_are_files(system: System) -> None:
    lines = [line.strip() for line in screen(system).splitlines() if line.strip()]
    ready = system.ready()
    assert lines[0] == f"Parley is at {', '.join(ready['gateways'])}"
    assert lines[1] == f"key    {ready['api_key']}"
    assert lines[2] == f"docs   {ready['base_url']}/docs"
    assert lines[3] == f"logs   {system.folder}/data/logs"
    assert lines[4] == "Try it:"
    assert lines[5].startswith("curl ")
    assert lines[6:] == ["Ctrl-C stops it."]
    logs = {path.name for path in (system.folder / "data" / "logs").iterdir()}
    assert logs >= ({"parley.log"} if system.kind == "up" else {"gateway-1.log", "gateway-2.log", "dispatcher-2.log"})


def test_the_line_of_the_banner_streams_an_answer_when_pasted(system: System) -> None:
    frames = [json.loads(f) for f in re.findall(r"^data: (.*)$", shown_by_bash(curl_line(system)), re.MULTILINE)]
    assert frames[-1]["type"] == "complete"
    assert 'You said: "Hello, who is there?"' in "".join(f["content"] for f in frames if f["type"] == "text")


# ---- what is refused


def test_a_second_start_on_the_same_folder_is_refused_and_names_the_process(standalone: System) -> None:
    for kind in ("up", "cluster"):
        line = refusal(parley(standalone.folder / "data", kind, READY=str(standalone.folder / "ready.json")))
        assert f"runs on it as process {standalone.process.pid};" in line and "DATA=" in line
    assert standalone.ready()["pids"]["standalone"] == [standalone.process.pid]


def test_a_busy_port_is_one_line_that_names_the_setting(standalone: System, tmp_path: Path) -> None:
    port = standalone.ready()["base_url"].rpartition(":")[2]
    for kind in ("up", "cluster"):
        line = refusal(parley(tmp_path / "data", kind, PORT=port))
        assert line.startswith(f"parley: 127.0.0.1:{port} is in use: name another port with PORT=")


def test_a_folder_of_newer_code_is_refused(tmp_path: Path) -> None:
    Folder.open(tmp_path / "data").close()
    (tmp_path / "data" / "version").write_text("1000\n")
    assert "was written by a newer Parley (version 1000" in refusal(parley(tmp_path / "data", "up"))


def test_a_mistake_in_the_agents_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("agents:\n  - id: a\n    name: A\n    tools: [clok]\n")
    line = refusal(parley(tmp_path / "data", "up", AGENTS=str(file)))
    assert line == f"parley: {file}:4: agents.0.tools.0: there is no tool 'clok'"
    assert not (tmp_path / "data").exists()


def test_reset_asks_first_and_refuses_while_parley_runs(standalone: System, tmp_path: Path) -> None:
    data = tmp_path / "data"
    Folder.open(data).close()

    def reset(said: str, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
        words = ["make", "-s", "-C", str(TOP), "reset", f"DATA={place}", *more]
        return subprocess.run(words, input=said, capture_output=True, text=True, timeout=60, check=False)

    for said in ("n\n", ""):
        done = reset(said, data)
        assert "Delete everything that Parley keeps in" in done.stdout + done.stderr
        assert (data / "secrets.json").exists()
    assert reset("y\n", data).returncode == 0
    assert not data.exists()
    done = reset("", standalone.folder / "data", "YES=1")
    assert done.returncode != 0 and "stop it first; nothing was deleted" in done.stderr
    Folder.open(data).close()
    assert reset("", data, "YES=1").returncode == 0
    assert not data.exists()


# ---- the parley command against a running one


async def test_workspaces_and_keys_are_made_listed_and_revoked_from_the_command_line(standalone: System) -> None:
    data = standalone.folder / "data"
    made = as_json(data, "keys", "create", "--user", "ann", "--scopes", "chat,read", "--rate-limit", "1000/minute")
    assert (made["user"], made["scopes"], made["rate_limit"]) == ("ann", ["chat", "read"], "1000/minute")
    told = parley(data, "keys", "create", "--user", "bob")
    assert told.returncode == 0
    shown_key = told.stdout.splitlines()[0]
    listed = as_json(data, "keys", "list")
    assert {"ann", "bob", "owner"} <= {key["user"] for key in listed}
    everything = parley(data, "keys", "list").stdout + json.dumps(listed)
    assert made["id"] in everything and "1000/minute" in everything
    for secret in (made["key"], shown_key, standalone.ready()["api_key"]):
        assert secret not in everything
    for file in (data / "log").rglob("*"):
        assert made["key"].encode() not in file.read_bytes(), "a key is stored as its hash"

    async def status(client: httpx2.AsyncClient, wanted: int) -> bool:
        return (await client.get("/api/v1/chat/threads")).status_code == wanted

    async with standalone.client(key=made["key"]) as client:
        assert await eventually(lambda: status(client, 200))
        rotated = as_json(data, "keys", "rotate", made["id"])
        assert rotated["id"] == made["id"] and await eventually(lambda: status(client, 401), 10)
        assert parley(data, "keys", "rotate", "never").returncode == 1
    async with standalone.client(key=rotated["key"]) as client:
        assert await eventually(lambda: status(client, 200))
        assert as_json(data, "keys", "revoke", made["id"]) == {"id": made["id"], "revoked": True}
        assert await eventually(lambda: status(client, 401), 10)

    workspace = as_json(data, "workspaces", "create", "acme")
    assert workspace["name"] == "acme"
    theirs = as_json(data, "keys", "create", "--workspace", workspace["id"])
    assert theirs["workspace_id"] == workspace["id"]
    async with standalone.client(key=theirs["key"]) as client:

        async def agents() -> bool:
            shown = (await client.get("/api/v1/agents", params={"limit": "200"})).json()
            return {"assistant", "researcher", "analyst", "scripted"} <= {a["id"] for a in shown.get("items", [])}

        # Listing agents is for every key that may read.
        assert await eventually(agents)
    assert theirs["id"] in {key["id"] for key in as_json(data, "keys", "list", "--workspace", workspace["id"])}
    assert theirs["id"] not in {key["id"] for key in as_json(data, "keys", "list")}
    line = refusal(parley(data, "keys", "revoke", str(uuid.uuid4())))
    assert line.startswith("parley: refused (404): ")
    line = refusal(parley(standalone.folder / "nowhere", "keys", "list"))
    assert "no Parley runs on" in line


# ---- coming back


async def test_threads_messages_and_keys_survive_a_kill_and_a_restart(tmp_path: Path, begin: Start) -> None:
    system = begin("up", tmp_path)
    before = system.ready()
    made = as_json(tmp_path / "data", "keys", "create", "--user", "ann")
    answered = await answer_to(system, "/text before the kill", agent="assistant")
    running = family(system)
    system.process.kill()
    system.process.wait()
    wait_until_gone(running)
    assert (tmp_path / "ready.json").exists()
    system = begin("up", tmp_path)
    after = system.ready()
    same = ("api_key", "admin_key", "workspace", "workspace_id", "user", "postgres")
    assert [after[name] for name in same] == [before[name] for name in same]
    async with system.client() as client:
        kept = (await client.get(MESSAGES.format(answered["thread_id"]))).json()["items"]
        assert [message["content"] for message in kept] == ["/text before the kill", "before the kill"]
        again = await client.post(
            MESSAGES.format(answered["thread_id"]), params={"wait": "20"}, json={"content": "/text after it"}
        )
        assert again.json()["message"]["content"] == "after it"
        # The same file was applied again: nothing has changed, so there is no new version.
        assert again.json()["run"]["agent_version"] == answered["run"]["agent_version"] == 1
    async with system.client(key=made["key"]) as client:
        assert (await client.get("/api/v1/chat/threads")).status_code == 200
    stop_and_leave_nothing(system)


async def test_a_changed_agents_file_makes_a_new_version_and_the_run_says_which_one_answered(
    tmp_path: Path, begin: Start
) -> None:
    file = tmp_path / "agents.yaml"
    shutil.copy(SHIPPED_AGENTS, file)
    system = begin("up", tmp_path, AGENTS=str(file))
    first = await answer_to(system, "/show system", agent="assistant")
    assert first["run"]["agent_version"] == 1
    assert "You are a helpful assistant." in first["message"]["content"]
    stop(system, STOP_S)
    file.write_text(file.read_text().replace("You are a helpful assistant.", "You are a changed assistant."))
    system = begin("up", tmp_path, AGENTS=str(file))
    second = await answer_to(system, "/show system", agent="assistant")
    assert second["run"]["agent_version"] == 2
    assert "You are a changed assistant." in second["message"]["content"]
    assert (await answer_to(system, "/text hi", agent="analyst"))["run"]["agent_version"] == 1
    async with system.client() as client:
        run = (await client.get(f"/api/v1/chat/runs/{first['run']['id']}")).json()
        assert run["agent_version"] == 1, "what answered then is not rewritten"
    stop(system, STOP_S)


# ---- stopping


async def test_a_second_parley_runs_beside_the_first_and_ctrl_c_ends_it_with_a_stream_open(
    standalone: System, tmp_path: Path, begin: Start
) -> None:
    """It lies below folders that are closed to others, and leaves every one of them as it was."""
    closed = tmp_path / "closed" / "place"
    for folder in (closed.parent, closed):
        folder.mkdir(mode=0o700)
    before = modes_above(closed / "data")
    system = begin("up", closed)
    assert system.ready()["base_url"] != standalone.ready()["base_url"]
    assert (await answer_to(standalone, "/text one"))["message"]["content"] == "one"
    assert system.ready()["api_key"] != standalone.ready()["api_key"]
    async with system.client() as client:
        thread = await new_thread(client)
        async with stream(client, "POST", MESSAGES.format(thread), json={"content": "/stream 1000 100"}) as (_, frames):
            async for frame in frames:
                if frame.type == "text.delta":
                    break
            await asyncio.to_thread(stop_and_leave_nothing, system)
            with pytest.raises((httpx2.HTTPError, StopAsyncIteration)):
                while True:
                    await anext(frames)
    assert modes_above(closed / "data") == before
    # What it had under way goes on at the next start: nothing was lost.
    system = begin("up", closed)
    async with system.client() as client:

        async def goes_on() -> bool:
            page = await client.get(f"/api/v1/chat/threads/{thread}/events", headers={"Accept": "application/json"})
            return sum(item["type"] in ("model.called", "run.restarted") for item in page.json()["items"]) >= 2

        assert await eventually(goes_on)
    # A database that hangs cannot hold the stop.
    os.kill(system.pid("postgres"), signal.SIGSTOP)
    stop_and_leave_nothing(system)


# ---- no network, once installed


def without_network(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Words to put before a command, and variables, that take the network away from it; and Maven, which would ask."""
    maven = folder / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(f"#!/bin/sh\ntouch {folder}/maven-was-asked\nexit 1\n")
    maven.chmod(0o755)
    nowhere = {"PATH": f"{maven.parent}{os.pathsep}{os.environ['PATH']}", "PIP_INDEX_URL": "http://127.0.0.1:9"}
    prefix = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if sys.platform != "linux" or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        # Only root may; what can be asked for a package is taken away all the same.
        prefix = []
    return prefix, nowhere


def inside(system: System, prefix: list[str]) -> tuple[str, ...]:
    return ("nsenter", "-t", str(system.process.pid), "-n") if prefix else ()


def test_up_starts_without_a_network(tmp_path: Path, begin: Start) -> None:
    prefix, env = without_network(tmp_path)
    system = begin("up", tmp_path, prefix, **env)
    assert '"complete"' in shown_by_bash(curl_line(system), inside(system, prefix))
    assert not (tmp_path / "maven-was-asked").exists()
    stop_and_leave_nothing(system)


@pytest.mark.breaks
def test_a_cluster_starts_without_a_network_goes_on_without_a_part_and_stops_though_others_hang(
    tmp_path: Path, begin: Start
) -> None:
    prefix, env = without_network(tmp_path)
    system = begin("cluster", tmp_path, prefix, GATEWAYS="2", DISPATCHERS="2", **env)
    before = system.ready()
    dead = system.pid("dispatcher", 1)
    os.kill(dead, signal.SIGKILL)
    until = time.monotonic() + 20
    while f"dispatcher (process {dead}) died; see" not in screen(system):
        assert time.monotonic() < until, screen(system)
        time.sleep(0.05)
    # The other dispatcher takes over once the group misses the dead one; until then a message is accepted and waits.
    while '"complete"' not in (shown := shown_by_bash(curl_line(system), inside(system, prefix))):
        assert '"queued"' in shown and time.monotonic() < until + 60, shown
    assert "is started again" not in screen(system)
    assert not (tmp_path / "maven-was-asked").exists()
    assert system.ready() == before
    for kind in ("gateway", "history", "kafka", "postgres"):
        os.kill(system.pid(kind), signal.SIGSTOP)
    stop_and_leave_nothing(system)


# ---- RESTART=1


@pytest.mark.breaks
async def test_with_restart_every_part_that_is_killed_is_there_again_on_its_port(tmp_path: Path, begin: Start) -> None:
    system = begin("cluster", tmp_path, GATEWAYS="2", RESTART="1")
    for kind in ("gateway", "dispatcher", "history", "postgres", "kafka"):
        before = system.ready()
        dead = before["pids"][kind][0]
        os.kill(dead, signal.SIGKILL)
        killed = time.monotonic()
        while (now := system.ready())["pids"][kind][0] == dead:
            assert time.monotonic() - killed < RESTART_S, f"{kind} was not started again in time"
            await asyncio.sleep(0.02)
        assert psutil.pid_exists(now["pids"][kind][0])
        assert {**now, "pids": {**now["pids"], kind: before["pids"][kind]}} == before, "only its pid is new"
        assert f"{kind} (process {dead}) died and is started again" in screen(system)
        for gateway in (0, 1):

            async def answers(gateway: int = gateway, kind: str = kind) -> bool:
                text = f"{kind} {gateway}"
                return bool((await answer_to(system, f"/text {text}", gateway))["message"]["content"] == text)

            await eventually(answers, 60)
    stop_and_leave_nothing(system)

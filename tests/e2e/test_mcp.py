"""Tools of MCP servers, in a whole Parley: declared in `agents.yaml`, over stdio and over Streamable HTTP, and what
becomes of a run when such a server, or its dispatcher, dies under a call.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from parley_events.partition import partition_of
from tests.support.mcp_server import PNG
from tests.support.mcp_servers import SERVER, HttpServer, Ledger, over_http
from tests.support.processes import kill
from tests.support.runs import facts_of, follow, post
from tests.support.system import System, eventually, new_thread, start, stop
from tests.support.topics import owner_pid, read_topic

SECRET = "s3cret-t0ken"
UNKNOWN = "The outcome of this call is unknown"
FILE = """\
workspace: {{name: default, connectors: [web]}}
mcp_servers:
  - {{name: ledger, command: ["{python}", server.py, stdio], env: {{LEDGER: ledger.jsonl}}, timeout_s: {limit}}}
  - {{name: web, url: "{url}", headers: {{Authorization: "env:WEB_TOKEN"}}}}
agents:
  - {{id: scripted, name: Scripted, model: scripted, tools: ["*", "ledger/*"]}}
  - {{id: plain, name: Plain, model: scripted, tools: ["*"]}}
"""


@dataclass
class Shop:
    """A Parley whose agents have a ledger (stdio) and a web server's tools, and what those two really did."""

    system: System
    ledger: Ledger
    web: Ledger
    http: HttpServer

    async def run(self, content: str, agent: str = "scripted") -> tuple[list[dict[str, Any]], str]:
        """The calls of a run with their results, and how it ended."""
        async with self.system.client() as client:
            thread = await new_thread(client, agent)
        run = (await post(self.system, thread, content))["run_id"]
        frames = await follow(self.system, run)
        return [f.data["tool_call"] for f in frames if f.type == "tool.returned"], frames[-1].type


def begin(kind: str, folder: Path, limit_s: float, **settings: str) -> Iterator[Shop]:
    ledger, web = Ledger(folder / "ledger.jsonl"), Ledger(folder / "web.jsonl")
    shutil.copy(SERVER, folder / "server.py")
    with over_http(folder, web, f"Bearer {SECRET}") as http:
        file = folder / "agents.yaml"
        file.write_text(FILE.format(python=sys.executable, url=http.url, limit=limit_s))
        env = {"WEB_TOKEN": f"Bearer {SECRET}", "PARLEY_MCP_START_S": "30", "AGENTS": str(file), **settings}
        system = start(kind, folder, **env)
        yield Shop(system, ledger, web, http)
        assert stop(system) == 0
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]
    for log in (folder / "data" / "logs").iterdir():
        assert SECRET not in log.read_text(errors="replace"), log


@pytest.fixture(scope="module")
def standalone_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    yield from begin("up", tmp_path_factory.mktemp("mcp-up"), 3)


@pytest.fixture(scope="module")
def cluster_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    yield from begin("cluster", tmp_path_factory.mktemp("mcp-cluster"), 60, DISPATCHERS="2", RESTART="1")


async def test_a_run_calls_tools_of_both_servers_and_of_its_own(standalone_shop: Shop) -> None:
    script = '/tool ledger__pay {"amount": 5}\n/tool web__look {"at": "sea"}\n/tool calculator {"expression": "6*7"}'
    calls, end = await standalone_shop.run(script + "\n/text Done.")
    assert end == "run.completed"
    assert {call["name"]: call["result"] for call in calls} == {
        "ledger__pay": 'pay: {"amount": 5}',
        "web__look": 'look: {"at": "sea"}',
        "calculator": '{"result": 42}',
    }
    assert not any(call["is_error"] for call in calls)
    [paid] = standalone_shop.ledger.entries("pay")
    [looked] = standalone_shop.web.entries("look")
    assert paid["meta"]["parley/effect-key"] != looked["meta"]["parley/effect-key"]


async def test_an_agent_has_no_tool_that_it_was_not_given(standalone_shop: Shop) -> None:
    before = len(standalone_shop.ledger.entries())
    calls, end = await standalone_shop.run('/tool ledger__pay {"amount": 6}\n/tool web__look {}\n/text Done.', "plain")
    assert end == "run.completed"
    results = {call["name"]: call["result"] for call in calls}
    assert results == {"ledger__pay": "There is no tool 'ledger__pay'.", "web__look": "look: {}"}
    assert len(standalone_shop.ledger.entries()) == before


async def test_a_server_killed_in_a_call_is_started_again_for_the_next_and_the_call_is_not_repeated(
    standalone_shop: Shop,
) -> None:
    calls, end = await standalone_shop.run('/tool ledger__die {}\n/tool ledger__set {"to": 1}\n/text Done.')
    assert end == "run.completed"
    # What does no harm twice is called again, if the server died under it too.
    assert {call["name"]: call["status"] for call in calls} == {"ledger__die": "unknown", "ledger__set": "ok"}
    [died] = standalone_shop.ledger.entries("die")
    calls, _ = await standalone_shop.run('/tool ledger__pay {"amount": 7}\n/text Done.')
    assert calls[0]["status"] == "ok"
    assert standalone_shop.ledger.entries("pay")[-1]["pid"] != died["pid"]


async def test_a_tool_that_hangs_is_given_up_and_the_model_is_told_that_its_outcome_is_unknown(
    standalone_shop: Shop,
) -> None:
    [call], end = await standalone_shop.run("/tool ledger__hang {}\n/text Done.")
    assert (call["status"], end) == ("unknown", "run.completed")
    assert call["result"].startswith(UNKNOWN)
    assert len(standalone_shop.ledger.entries("hang")) == 1

    async def told() -> bool:
        return bool(standalone_shop.ledger.entries("cancelled"))

    await eventually(told)


async def test_a_tool_that_a_server_adds_can_be_called_in_the_next_run(standalone_shop: Shop) -> None:
    before, _ = await standalone_shop.run("/tool ledger__grown {}\n/text Done.")
    assert before[0]["result"] == "There is no tool 'ledger__grown'."
    await standalone_shop.run("/tool ledger__grow {}\n/text Done.")

    async def grown() -> bool:
        calls, _ = await standalone_shop.run("/tool ledger__grown {}\n/text Done.")
        return bool(calls[0]["result"] == "grown: {}")

    await eventually(grown)


async def test_a_server_that_is_away_costs_the_run_one_clear_result(standalone_shop: Shop) -> None:
    await standalone_shop.run("/tool web__look {}\n/text Done.")
    standalone_shop.http.kill()
    [call], end = await standalone_shop.run('/tool web__pay {"amount": 1}\n/text Done.')
    assert end == "run.completed"
    assert call["status"] == "error" and "cannot be reached: nothing was done" in call["result"]
    standalone_shop.http.start()

    async def back() -> bool:
        calls, _ = await standalone_shop.run("/tool web__look {}\n/text Done.")
        return bool(calls[0]["status"] == "ok")

    await eventually(back)
    assert standalone_shop.web.entries("pay") == []


async def test_images_of_a_tool_are_files_of_its_result_and_no_secret_is_on_the_log(cluster_shop: Shop) -> None:
    calls, end = await cluster_shop.run("/tool ledger__picture {}\n/tool web__look {}\n/text Done.")
    assert end == "run.completed" and {call["status"] for call in calls} == {"ok"}
    bootstrap = cluster_shop.system.ready()["kafka"]
    events = await read_topic(bootstrap, "parley.events")
    [image, _] = next(r.body["files"] for r in events if r.type == "tool.returned" and r.body["files"])
    assert (image["content_type"], image["size"]) == ("image/png", len(PNG))
    for record in [*events, *await read_topic(bootstrap, "parley.commands")]:
        assert SECRET.encode() not in (record.value or b"")


async def test_a_dispatcher_killed_in_a_call_takes_its_servers_along_and_nobody_repeats_the_call(
    cluster_shop: Shop,
) -> None:
    system = cluster_shop.system
    async with system.client() as client:
        thread = await new_thread(client)
    run = (await post(system, thread, '/tool ledger__hang {"n": 1}\n/text Done.'))["run_id"]

    async def hangs() -> list[dict[str, Any]]:
        return cluster_shop.ledger.entries("hang")

    [call] = await eventually(hangs)
    events = await read_topic(system.ready()["kafka"], "parley.events")
    kill(owner_pid(events, partition_of(thread.encode(), 8)))
    frames = await follow(system, run)
    assert frames[-1].type == "run.completed"
    [returned] = [f.data["tool_call"] for f in frames if f.type == "tool.returned"]
    assert returned["status"] == "unknown" and returned["result"].startswith(UNKNOWN)
    assert len(cluster_shop.ledger.entries("hang")) == 1
    assert not psutil.pid_exists(call["pid"])
    facts = await facts_of(system, thread)
    assert [fact["type"] for fact in facts].count("tool.called") == 1

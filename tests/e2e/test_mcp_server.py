"""Parley over MCP, as clients meet it: over HTTP, with the official client, on both kinds of system."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.mcp_client import connected, text_of
from tests.support.system import System, start, stop

PAGE = Path(__file__).parents[2] / "docs" / "mcp-server.md"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    ready = standalone.ready()
    env = {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", "KEY": ready["api_key"], "URL": ready["base_url"]}
    [known, lines] = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^export (\w+)=", known, re.MULTILINE)) == {"KEY", "URL"}
    [program] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    assert run(sys.executable, "-c", program).splitlines() == [
        "0000 0001 0002 0003 0004 ",
        "= 0000 0001 0002 0003 0004 ",
        "user assistant",
    ]
    listed, called = [json.loads(data) for data in re.findall(r"data: (.*)", run("bash", "-euc", lines))]
    assert "do" in {tool["name"] for tool in listed["result"]["tools"]}
    assert called["result"]["structuredContent"]["items"][0]["system_prompt"] == "You help me triage inbound leads"


async def test_a_message_streams_and_a_role_does_what_it_is_told(system: System) -> None:
    ready = system.ready()
    for modern, url in enumerate((ready["gateways"] * 2)[:2]):
        async with connected(url, ready["api_key"], modern=bool(modern)) as parley:
            thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]
            result = await parley.call("send_chat_message", thread_id=thread, content="/stream 20 20\n/tool clock")
            words = "".join(f"{number:04d} " for number in range(20))
            assert text_of(result) == words
            assert "".join(message or "" for _, message in parley.told) == words
            assert len(parley.told) > 3, "piece by piece"
            told = await parley.data("get_chat_thread", thread_id=thread)
            assert [message["role"] for message in told["messages"]] == ["user", "tool", "tool", "assistant"]
            node = {"structure_id": ready["workspace_id"], "role_id": "scripted"}
            script = '/tool save_artifact {"name": "a.md", "content": "x"}\n/text Saved.'
            done = await parley.data("do", **node, message=script)
            assert (done["summary"], done["artifacts"]) == ("Saved.", ["a.md"])
            late = await parley.call(
                "send_chat_message", thread_id=thread, content="/wait 3000\n/text late", wait_s=0.1
            )
            assert late.structured_content["status"] == "running"
            error = await parley.error("send_chat_message", thread_id=thread, content="/error 400")
            assert error["error"] == "model_400", "after the late one, which it was queued behind"
            messages = (await parley.data("get_chat_thread", thread_id=thread))["messages"]
            assert "late" in [message["content"] for message in messages]


async def test_a_call_whose_run_waits_says_what_for_and_the_run_goes_on_when_that_is_answered(system: System) -> None:
    ready = system.ready()
    async with connected(ready["base_url"], ready["api_key"]) as parley, system.client() as http:
        thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]
        script = '/tool publish {"text": "Rain."}\n/tool get_weather {"location": "Tokyo"}\n/text Done.'
        parked = await parley.data("send_chat_message", thread_id=thread, content=script)
        assert parked["status"] == "waiting"
        [approval] = [one for one in parked["waits_for"] if "approval_id" in one]
        [weather] = [one for one in parked["waits_for"] if "approval_id" not in one]
        assert (approval["tool_call"]["name"], weather["tool_call"]["name"]) == ("publish", "get_weather")
        chat = f"{ready['base_url']}/api/v1/chat"
        approved = await http.post(f"{chat}/approvals/{approval['approval_id']}", json={"decision": "approve"})
        assert approved.status_code == 200, approved.text
        url = f"{chat}/runs/{parked['run_id']}/tools/{weather['tool_call']['id']}?wait"
        given = await http.post(url, json={"content": "21 °C"})
        assert given.status_code == 200 and given.json()["run"]["status"] == "completed", given.text
        told = await parley.data("get_chat_thread", thread_id=thread)
        assert told["messages"][-1]["content"] == "Done."


async def test_a_stop_ends_open_calls_and_is_not_held_up_by_them(tmp_path: Path) -> None:
    system = start("up", tmp_path)
    ready = system.ready()
    async with connected(ready["base_url"], ready["api_key"]) as parley:
        thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]
        script = {"thread_id": thread, "content": "/text begun \n/wait 60000"}
        calling = asyncio.create_task(parley.call("send_chat_message", **script))
        async with asyncio.timeout(20):
            while not parley.told:
                await asyncio.sleep(0.02)
        assert await asyncio.to_thread(stop, system, 15) == 0
        [ended] = await asyncio.gather(calling, return_exceptions=True)
        assert isinstance(ended, BaseException) or ended.structured_content["status"] == "running"

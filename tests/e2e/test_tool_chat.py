"""The contract `tool_chat`, end to end on both kinds of system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import outputs
from tests.support.system import System, collect, eventually

CHAT = "/api/agents/scripted/chat"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    said, stream, client, read, cleared = outputs(standalone, "tool-chat.md", tmp_path)
    first, second = map(json.loads, said.replace("}{", "}\n{").split("\n"))
    assert (first["content"], second["content"]) == ("Hi there!", "On it.")
    assert first["conversation_id"] == second["conversation_id"]
    assert stream.count('"type":"start"') == 1 and stream.count('"type":"done"') == 2
    assert '"name":"get_weather"' in client and "It is clear." in client
    assert '"role":"system"' in read and "customer_id" in read and '"source":"web"' in read
    assert '"deleted":5' in cleared and '"total":0' in cleared


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_the_sample_client_of_the_page_prints_the_story(system: System) -> None:
    """It keeps no half of a line between two reads: each frame must come in one piece."""
    ready = system.ready()
    async with system.client() as client:
        sample = await asyncio.create_subprocess_exec(
            "node",
            str(Path(__file__).parent / "clients" / "tool_chat.mjs"),
            env={"PATH": os.environ["PATH"], "BASE": ready["base_url"], "KEY": ready["api_key"], "AGENT": "scripted"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            printed, errors = await sample.communicate()
        assert sample.returncode == 0, errors.decode()

        async def told() -> str:
            [asked, answer] = (await client.get(CHAT, params={"limit": 2})).json()["messages"]
            assert asked["content"] == "Tell me a story"
            return str(answer["content"])

        assert printed.decode() == await eventually(told) != ""


def test_the_lines_for_a_shell_of_the_contracts_own_page_are_answered(standalone: System, tmp_path: Path) -> None:
    """They bring no key: a file of curl's own does."""
    ready = standalone.ready()
    lines = (Path(__file__).parent / "clients" / "tool_chat.sh").read_text()
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {ready["api_key"]}"\nsilent\n')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines.replace("https://your-domain.com", ready["base_url"])],
        env={"PATH": os.environ["PATH"], "CURL_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "AGENT": "scripted"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, asked = map(json.loads, done.stdout.replace("}{", "}\n{").splitlines())
    assert "Hello!" in said["content"] and "What is my order status?" in asked["content"]
    assert said["role"] == asked["role"] == "assistant" and said["conversation_id"] != asked["conversation_id"]


async def test_a_conversation_is_read_in_pages_by_ids_that_rise(system: System) -> None:
    marker = uuid.uuid4().hex
    async with system.client() as client, system.client(-1) as other:
        made: dict[str, Any] = {}
        answers = []
        for n in range(3):
            body = {"message": f"/text {marker} {n}", **made}
            answer = (await (client, other)[n % 2].post(CHAT, json=body)).json()
            made = {"conversation_id": answer["conversation_id"]}
            answers.append(answer)
            assert answer["content"] == answer["response"] == f"{marker} {n}"
        page = (await client.get(CHAT, params=made)).json()
        numbers = [row["id"] for row in page["messages"]]
        assert numbers == sorted(set(numbers)) and all(0 < number < 2**53 for number in numbers)
        assert numbers[1::2] == [answer["id"] for answer in answers]
        assert page["meta"] == {"total": 6, "has_more": False}
        found: list[int] = []
        cursor: dict[str, Any] = {}
        while True:
            page = (await other.get(CHAT, params={**made, **cursor, "limit": 2})).json()
            found = [row["id"] for row in page["messages"]] + found
            cursor = {"before": found[0]}
            if not page["meta"]["has_more"]:
                break
        assert found == numbers
        frames = await collect(client, "POST", CHAT, json={"message": "/stream 5 10", "stream": True, **made})
        assert frames[0].data == {"type": "start", "id": frames[-1].data["message"]["id"]}
        text = "".join(frame.data["content"] for frame in frames if frame.type == "delta")
        assert frames[-1].data["message"]["content"] == text
        cleared = await other.request("DELETE", CHAT, params=made)
        assert cleared.json() == {"success": True, "deleted": 8}
        assert (await other.get(CHAT, params=made)).json()["meta"]["total"] == 0


async def test_the_client_runs_tools_and_posts_their_results_at_another_gateway(system: System) -> None:
    """Twice in one run, streamed and not; every answer is a message that the history has under its id."""
    marker = uuid.uuid4().hex
    weather = '/tool get_weather {"location": "%s"}'
    script = "\n".join((f"/text {marker} ", weather % "a", weather % "b", "/text B. ", weather % "c", "/text C."))
    async with system.client() as client, system.client(-1) as other:
        frames = await collect(client, "POST", CHAT, json={"message": script, "stream": True})
        first = frames[-1].data["message"]
        assert frames[-1].type == "done" and first["content"] == f"{marker} "
        calls = [call["id"] for call in first["tool_calls"]]
        assert [json.loads(call["function"]["arguments"])["location"] for call in first["tool_calls"]] == ["a", "b"]
        pending = await other.post(CHAT, json={"role": "tool", "tool_call_id": calls[0], "content": "rain"})
        assert (pending.status_code, pending.json()) == (202, {"pending": [calls[1]]})
        body = {"role": "tool", "tool_call_id": calls[1], "content": "sun"}
        second = (await other.post(CHAT, json=body, headers={"Idempotency-Key": marker})).json()
        assert second["content"] == "B. " and len(second["tool_calls"]) == 1
        again = await client.post(CHAT, json=body, headers={"Idempotency-Key": marker})
        assert again.json() == second and again.headers["idempotency-replayed"] == "true"
        body = {"role": "tool", "tool_call_id": second["tool_calls"][0]["id"], "content": "snow", "stream": True}
        last = (await collect(client, "POST", CHAT, json=body))[-1].data["message"]
        assert (last["content"], last["tool_calls"]) == ("C.", None)
        gone = await client.post(CHAT, json={**body, "stream": False})
        assert (gone.status_code, gone.json()["error"]["code"]) == (400, "invalid_message")
        conversation = {"conversation_id": first["conversation_id"]}
        rows = (await client.get(CHAT, params=conversation)).json()["messages"]
        second = {name: second[name] for name in first}
        assert [row for row in rows if row["role"] == "assistant"] == [first, second, last]
        assert [row["content"] for row in rows if row["role"] == "tool"] == ["rain", "sun", "snow"]
        whole = (await client.get(f"/api/v1/chat/threads/{first['conversation_id']}/messages")).json()["items"]
        assert [m["content"] for m in whole if m["role"] == "assistant"] == [f"{marker} B. C."]

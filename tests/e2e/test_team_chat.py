"""The contract `team_chat`, end to end on both kinds of system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.pages import outputs
from tests.support.sse import Frame
from tests.support.system import System, collect, eventually, stream

AGENT = "/agents/scripted"
LONG = "/text Wait. \n/wait 60000"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    said, streamed, tools, made, read, deleted, inbox, team, side_by_side = outputs(
        standalone, "team-chat.md", tmp_path
    )
    assert '"response":"I can help you with that."' in said and '"agent_name":"Scripted"' in said
    assert streamed.count("data: [DONE]") == 2 and streamed.count('"type":"done"') == 2
    assert '"status":"completed"' in streamed
    assert [tools.count(f'"type":"{kind}"') for kind in ("tool_call", "tool_result", "done")] == [1, 1, 1]
    assert '"title":"Plans"' in made and made.count('"title":"Great plans"') == 2
    assert read.count('"content":"Planned."') == 1 and read.count('"role":"user"') >= 3
    assert deleted.startswith("204") and '"not_found"' in deleted
    assert '"content":"Here you are."' in inbox
    assert '{"unread":0}' in inbox and inbox.endswith('{"messages":[],"unread":0}')
    assert team.count('"summary":"One idea."') == 2 and '"mode":"sequential"' in team and '"status":"completed"' in team
    assert team.count('"type":"text"') >= 3 and team.endswith("data: [DONE]")
    assert side_by_side.count('"type":"summary"') == side_by_side.count('"type":"done"') == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_the_sample_client_of_the_page_prints_each_token(system: System) -> None:
    """It keeps no half of a line between two reads: each frame must come in one piece."""
    ready = system.ready()
    async with system.client() as client:
        sample = await asyncio.create_subprocess_exec(
            "node",
            str(Path(__file__).parent / "clients" / "team_chat.mjs"),
            env={"PATH": os.environ["PATH"], "BASE": ready["base_url"], "KEY": ready["api_key"], "AGENT": "scripted"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            printed, errors = await sample.communicate()
        assert sample.returncode == 0, errors.decode()
        frames = [json.loads(line) for line in printed.decode().splitlines()]

        async def told() -> str:
            asked, answer = (await client.get(f"{AGENT}/history", params={"limit": 2})).json()["messages"]
            assert (asked["role"], asked["content"]) == ("user", "Hello!")
            return str(answer["content"])

        assert frames[-1] == {"type": "done", "content": ""}
        assert [frame["type"] for frame in frames[:-1]] == ["text"] * (len(frames) - 1)
        assert "".join(frame["content"] for frame in frames) == await eventually(told) != ""


async def conversation(client: httpx2.AsyncClient, title: str) -> dict[str, Any]:
    made = await client.post(f"{AGENT}/conversations", json={"title": title})
    assert made.status_code == 201
    return {"conversation_id": made.json()["id"]}


async def test_a_conversation_lives_and_dies_on_all_gateways(system: System) -> None:
    marker = uuid.uuid4().hex
    async with system.client() as client, system.client(-1) as other:
        here = await conversation(client, marker)
        for number in range(3):
            body = {"message": f"/text {marker} {number}", **here}
            answer = await (client, other)[number % 2].post(f"{AGENT}/chat", json=body)
            assert answer.status_code == 200
            assert answer.json() == {
                "response": f"{marker} {number}",
                "agent_id": "scripted",
                "agent_name": "Scripted",
                **here,
            }
        rows = (await client.get(f"{AGENT}/history", params=here)).json()["messages"]
        assert [row["role"] for row in rows] == ["user", "assistant"] * 3
        found: list[str] = []
        before: dict[str, Any] = {}
        while page := (await other.get(f"{AGENT}/history", params={**here, **before, "limit": 4})).json()["messages"]:
            found = [row["id"] for row in page] + found
            before = {"before": found[0]}
        assert found == [row["id"] for row in rows]
        named = f"{AGENT}/conversations/{here['conversation_id']}"
        assert (await other.put(named, json={"name": "another"})).json()["title"] == "another"
        [newest, *_] = (await other.get(f"{AGENT}/conversations")).json()["conversations"]
        assert (newest["id"], newest["title"]) == (here["conversation_id"], "another")
        async with stream(client, "POST", f"{AGENT}/chat/stream", json={"message": LONG, **here}) as (_, frames):
            assert (await anext(frames)).data == {"type": "text", "content": "Wait. "}
            assert (await other.delete(named)).status_code == 204
            rest = [frame.data async for frame in frames]
        assert rest == [{"type": "error", "content": "the run was cancelled"}, "[DONE]"]
        for gateway in (client, other):
            assert (await gateway.get(f"{AGENT}/history", params=here)).status_code == 404
            assert (await gateway.post(f"{AGENT}/chat", json={"message": "hi", **here})).status_code == 404
            listed = (await gateway.get(f"{AGENT}/conversations")).json()["conversations"]
            assert here["conversation_id"] not in [one["id"] for one in listed]


async def test_the_inbox_has_what_came_to_nobody_and_nothing_else(system: System) -> None:
    marker = uuid.uuid4().hex
    async with system.client() as client, system.client(-1) as other:
        assert (await client.post(f"{AGENT}/mark-read")).json() == {"unread": 0}
        here = await conversation(client, marker)
        answer = await client.post(f"{AGENT}/chat", json={"message": "/text Read.", **here})
        assert answer.status_code == 200
        assert (await client.get(f"{AGENT}/inbox")).json() == {"messages": [], "unread": 0}
        await collect(client, "POST", f"/api{AGENT}/chat/stream", json={"message": "/text Read, too.", **here})
        assert (await client.get(f"{AGENT}/inbox")).json() == {"messages": [], "unread": 0}

        late = await client.post(f"{AGENT}/chat", params={"wait": 0}, json={"message": f"/text {marker}", **here})
        assert late.status_code == 202

        async def unread() -> list[Any]:
            found = (await other.get(f"{AGENT}/inbox")).json()
            assert found["unread"] == len(found["messages"])
            messages: list[Any] = found["messages"]
            return messages

        [message] = await eventually(unread)
        assert (message["content"], message["conversation_id"]) == (marker, here["conversation_id"])
        events: list[Frame] = await collect(other, "GET", late.json()["events_url"])
        assert [frame.data for frame in events[-2:]] == [{"type": "done", "content": ""}, "[DONE]"]
        assert (await other.get(f"{AGENT}/inbox")).json() == {"messages": [], "unread": 0}

        async with other.stream("POST", f"{AGENT}/chat/stream", json={"message": "/stream 20 50", **here}) as left:
            run = left.headers["parley-run-id"]
            async for _ in left.aiter_lines():
                break
        assert len(await eventually(unread)) == 1, "who left has not read it"
        marked = await client.post(f"{AGENT}/mark-read", json={**here, "up_to": (await unread())[0]["id"]})
        assert marked.json() == {"unread": 0}
        assert (await client.get(f"{AGENT}/runs/{run}")).json()["status"] == "completed"

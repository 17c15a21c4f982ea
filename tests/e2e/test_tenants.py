"""Tenants on the real parts: every route of every contract, with every name of what is another's, over HTTP to
PostgreSQL's row policies. The scopes here are those that allow the most; `test_foreign` has all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.contract.dialects.foreign import STRANGERS, Stranger, Way, leak
from tests.support.system import System, eventually, new_thread

BASE = "/api/v1"
JSON = {"Accept": "application/json"}
FOREIGN_SCOPES = [("*",), ("*", "admin")]
SCOPES = [("*",), ("agent:assistant",), ("prompt:override",)]


async def made(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(BASE + path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def do(client: httpx2.AsyncClient, way: Way) -> tuple[int, bytes]:
    """The status and what is said; of a stream, that it began."""
    headers = {"Accept": "application/json, text/event-stream"} if way.path == "/mcp" else {}
    options: dict[str, Any] = {} if way.body is None else {"json": way.body}
    async with client.stream(way.method, way.path, params=way.params, headers=headers, **options) as response:
        if response.headers.get("content-type", "").startswith("text/event-stream") and way.path != "/mcp":
            return response.status_code, b""
        return response.status_code, await response.aread()


async def staged(system: System, admin: httpx2.AsyncClient, owner: httpx2.AsyncClient) -> dict[str, str]:
    """Something of everything: the names of it. The run waits for a person and for the client."""
    waits = {"tools": ["publish"], "approvals": ["publish"], "client_tools": [{"name": "get_weather"}]}
    agent = await made(admin, "/agents", {"name": "a secret agent", "system_prompt": "a secret", **waits})
    team = await made(admin, "/teams", {"name": "a secret team", "members": [agent["id"]]})
    key = await made(admin, "/keys", {"user": "nobody", "scopes": ["read"]})
    thread = await new_thread(owner, "scripted")
    file = {"name": "secret.txt", "content_base64": "YSBzZWNyZXQ=", "content_type": "text/plain"}
    parking = '/text a secret\n/tool publish {"text": "a secret"}\n/tool get_weather {"location": "a secret"}'
    message = {"content": parking, "attachments": [file], "metadata": {"a": "secret"}}
    posted = await owner.post(f"{BASE}/chat/threads/{thread}/messages", json=message)
    assert posted.status_code == 202, posted.text

    async def parked() -> list[str]:
        facts = (await owner.get(f"{BASE}/chat/threads/{thread}/events", headers=JSON)).json()["items"]
        return list(facts[-1].get("pending", ()))

    pending = await eventually(parked)
    [approval] = (await owner.get(f"{BASE}/chat/approvals?thread_id={thread}")).json()["items"]
    [stored] = (await owner.get(f"{BASE}/chat/threads/{thread}/files")).json()["items"]
    [question, *_] = (await owner.get(f"{BASE}/chat/threads/{thread}/messages")).json()["items"]
    asked = await owner.post("/teams/founders/chat?wait=0", json={"message": "a secret"})
    document = await made(owner, "/knowledge", {"title": "a secret", "content": "a secret"})
    return {
        "workspace": system.ready()["workspace_id"],
        "organisation": "default",
        "user": (await owner.get(f"{BASE}/chat/threads/{thread}")).json()["user_id"],
        "thread_id": thread,
        "session_id": thread,
        "conversation_id": thread,
        "message_id": question["id"],
        "run_of_team": asked.headers["parley-run-id"],
        "run_id": posted.json()["run_id"],
        "tool_call_id": next(call for call in pending if call != approval["tool_call"]["id"]),
        "approval_id": approval["id"],
        "rejected_id": "0-7",
        "record_id": "0-7",
        "name": "secret.txt",
        "sha256": stored["sha256"],
        "key_id": key["id"],
        "knowledge_id": document["id"],
        "hidden": agent["id"],
        "hidden_uuid": agent["uuid"],
        "team_id": team["id"],
        "team_uuid": team["uuid"],
    }


@pytest.mark.parametrize("stranger", STRANGERS, ids=[stranger.who for stranger in STRANGERS])
async def test_no_stranger_gets_at_anything(
    cluster: System, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    scopes = [one for one in stranger.scopes if one in (FOREIGN_SCOPES if stranger.foreign else SCOPES)]
    async with cluster.client(key=cluster.ready()["admin_key"]) as admin, cluster.client() as owner:
        places = await staged(cluster, admin, owner)
        before = await everything(owner, places)
        workspace = {}
        if stranger.foreign:
            workspace = {"workspace": (await made(admin, "/workspaces", {"name": f"of {stranger.who}"}))["id"]}
        places["own_organisation"] = workspace.get("workspace", "default")
        gate, tried = asyncio.Semaphore(8), Counter[int]()

        async def look(client: httpx2.AsyncClient, way: Way) -> int:
            async with gate:
                status, body = await do(client, way.filled(places))
            assert (why := leak(way, status, body, places)) is None, (why, way, status, body[:300])
            return status

        for some in [("*",), *scopes]:
            user = {**workspace, "user": stranger.user.format(**places), "scopes": list(some)}
            async with cluster.client(key=(await made(admin, "/keys", user))["key"]) as client:
                assert await eventually(lambda client=client: _let_in(client))
                if "own_thread" not in places:
                    places["own_thread"] = await new_thread(client, "assistant")
                    continue
                tried.update(await asyncio.gather(*(look(client, way) for way in stranger.ways)))
        assert sum(tried.values()) == len(scopes) * len(stranger.ways) > 0
        assert await everything(owner, places) == before, "something was done to it"
        with capsys.disabled():
            print(f"\n{stranger.who}: {sum(tried.values())} tried, 0 leaks ({dict(sorted(tried.items()))})")


async def everything(owner: httpx2.AsyncClient, places: dict[str, str]) -> list[str]:
    """What there is of it, as its owner sees it."""
    paths = (
        "chat/threads/{thread_id}/events?limit=200",
        "chat/approvals/{approval_id}",
        "knowledge/{knowledge_id}",
        "agents/{hidden}",
        "teams/{team_id}",
    )
    answers = [await owner.get(f"{BASE}/{path.format(**places)}", headers=JSON) for path in paths]
    assert all(answer.status_code == 200 for answer in answers)
    return [answer.text for answer in answers]


async def _let_in(client: httpx2.AsyncClient) -> bool:
    return (await client.get(f"{BASE}/agents")).status_code == 200

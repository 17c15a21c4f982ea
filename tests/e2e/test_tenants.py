"""Tenants on the real parts: every route of every contract, with every name of what is another's, over HTTP to
PostgreSQL's row policies. The scopes here are those that allow the most; `test_foreign` has all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.contract.dialects.foreign import STRANGERS, Way, leak
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
    parked = (await owner.post(f"{BASE}/chat/threads/{thread}/messages?wait", json=message)).json()
    assert parked["status"] == "waiting" and len(parked["pending"]) == 2, parked
    [approval] = (await owner.get(f"{BASE}/chat/approvals?thread_id={thread}")).json()["items"]
    [stored] = (await owner.get(f"{BASE}/chat/threads/{thread}/files")).json()["items"]
    document = await made(owner, "/knowledge", {"title": "a secret", "content": "a secret"})
    return {
        "workspace": system.ready()["workspace_id"],
        "organisation": "default",
        "thread_id": thread,
        "session_id": thread,
        "conversation_id": thread,
        "run_id": parked["run_id"],
        "tool_call_id": next(call for call in parked["pending"] if call != approval["tool_call"]["id"]),
        "approval_id": approval["id"],
        "rejected_id": "0-7",
        "name": "secret.txt",
        "sha256": stored["sha256"],
        "key_id": key["id"],
        "knowledge_id": document["id"],
        "hidden": agent["id"],
        "hidden_uuid": agent["uuid"],
        "team_id": team["id"],
        "team_uuid": team["uuid"],
    }


async def test_no_stranger_gets_at_anything(cluster: System, capsys: pytest.CaptureFixture[str]) -> None:
    system, ready = cluster, cluster.ready()
    async with system.client(key=ready["admin_key"]) as admin, system.client() as owner:
        places = await staged(system, admin, owner)
        thread = places["thread_id"]
        places["user"] = (await owner.get(f"{BASE}/chat/threads/{thread}")).json()["user_id"]
        before = (await owner.get(f"{BASE}/chat/threads/{thread}/events?limit=200", headers=JSON)).text
        theirs = await made(admin, "/workspaces", {"name": "theirs"})
        for stranger in STRANGERS:
            user = stranger.user.format(**places)
            own = {"workspace": theirs["id"]} if stranger.foreign else {}
            places["own_organisation"] = "theirs" if stranger.foreign else "default"
            places["own_thread"] = ""
            key = (await made(admin, "/keys", {**own, "user": user, "scopes": ["*"]}))["key"]
            async with system.client(key=key) as client:
                assert await eventually(lambda client=client: _let_in(client))
                places["own_thread"] = await new_thread(client, "assistant")
            tried, scopes = (
                Counter[int](),
                [one for one in stranger.scopes if one in (FOREIGN_SCOPES if stranger.foreign else SCOPES)],
            )
            for some in scopes:
                key = (await made(admin, "/keys", {**own, "user": user, "scopes": list(some)}))["key"]
                async with system.client(key=key) as client:
                    assert await eventually(lambda client=client: _let_in(client))
                    gate = asyncio.Semaphore(8)

                    async def look(
                        way: Way, client: httpx2.AsyncClient = client, gate: asyncio.Semaphore = gate
                    ) -> int:
                        async with gate:
                            status, body = await do(client, way.filled(places))
                        assert (why := leak(way, status, body, places)) is None, (why, way, status, body[:300])
                        return status

                    found = await asyncio.gather(*map(look, stranger.ways))
                    tried.update(found)
            assert sum(tried.values()) == len(scopes) * len(stranger.ways) > 0
            with capsys.disabled():
                print(f"\n{stranger.who}: {sum(tried.values())} tried, 0 leaks ({dict(sorted(tried.items()))})")
        after = (await owner.get(f"{BASE}/chat/threads/{thread}/events?limit=200", headers=JSON)).text
        assert after == before, "nothing was done to it"
        assert (await owner.get(f"{BASE}/agents/{places['hidden']}")).json()["version"] == 1
        assert (await owner.get(f"{BASE}/chat/approvals/{places['approval_id']}")).json()["status"] == "open"
        assert (await owner.get(f"{BASE}/knowledge/{places['knowledge_id']}")).status_code == 200


async def _let_in(client: httpx2.AsyncClient) -> bool:
    return (await client.get(f"{BASE}/agents")).status_code == 200

"""Tenants on the real parts: every route of every contract, with every scope that a key of another workspace can have,
and with another user's key, over HTTP to PostgreSQL's row policies."""

from __future__ import annotations

from asyncio import gather
from collections import Counter
from typing import Any

import httpx2

from tests.contract.dialects.test_rights import DEEDS, GRANTS, NAMED, ORG, OWN, Deed
from tests.support.system import System, eventually, new_thread

BASE = "/api/v1"


async def made(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(BASE + path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def do(client: httpx2.AsyncClient, deed: Deed, places: dict[str, str]) -> tuple[int, bytes]:
    """The status and what is said; of a stream, that it began."""
    node = {"structure_id": places["workspace"], "role_id": places["agent_id"]}
    body = {name: value.format(**places) if type(value) is str else value for name, value in (deed.body or {}).items()}
    options: dict[str, Any] = {}
    if deed.body is not None:
        options["json"] = {**body, **(node if deed.path.startswith(ORG) else {})}
    if deed.query:
        options["params"] = {**node, "agent_id": places["agent_id"]}
    async with client.stream(deed.method, deed.path.format(**places), **options) as response:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response.status_code, b""
        return response.status_code, await response.aread()


async def test_nobody_of_another_workspace_or_another_user_gets_at_anything(system: System) -> None:
    ready = system.ready()
    async with system.client(key=ready["admin_key"]) as admin, system.client() as owner:
        waits = {"tools": ["publish"], "approvals": ["publish"], "client_tools": [{"name": "get_weather"}]}
        agent = await made(admin, "/agents", {"name": "a secret agent", "system_prompt": "a secret", **waits})
        team = await made(admin, "/teams", {"name": "a secret team", "members": [agent["id"]]})
        key = await made(admin, "/keys", {"user": "nobody", "scopes": ["read"]})
        thread = await new_thread(owner, agent["id"])
        said = await owner.post(f"{BASE}/chat/threads/{thread}/messages?wait", json={"content": "/text a secret"})
        assert said.status_code == 200 and said.json()["run"]["status"] == "completed", said.text
        parking = '/text a secret\n/tool publish {"text": "a secret"}\n/tool get_weather {"location": "a secret"}'
        parked = (await owner.post(f"{BASE}/chat/threads/{thread}/messages?wait", json={"content": parking})).json()
        assert parked["status"] == "waiting" and len(parked["pending"]) == 2, parked
        [approval] = (await owner.get(f"{BASE}/chat/approvals?thread_id={thread}")).json()["items"]
        document = await made(owner, "/knowledge", {"title": "a secret", "content": "a secret"})
        before = (await owner.get(f"{BASE}/chat/threads/{thread}/events?limit=200", headers=JSON)).text
        places = {
            "workspace": ready["workspace_id"],
            "thread_id": thread,
            "run_id": parked["run_id"],
            "tool_call_id": next(call for call in parked["pending"] if call != approval["tool_call"]["id"]),
            "approval_id": approval["id"],
            "rejected_id": "0-7",
            "name": "n",
            "key_id": key["id"],
            "agent_id": agent["id"],
            "agent_uuid": agent["uuid"],
            "team_id": team["id"],
            "team_uuid": team["uuid"],
            "knowledge_id": document["id"],
            "session_id": thread,
            "organisation": "default",
        }
        theirs = await made(admin, "/workspaces", {"name": "theirs"})
        keys = {
            scopes: (await made(admin, "/keys", {"workspace": theirs["id"], "user": "eve", "scopes": list(scopes)}))[
                "key"
            ]
            for scopes in GRANTS
        }
        deeds = [*DEEDS, *(deed for deed in NAMED if "11111111" not in deed.path + str(deed.body))]
        statuses = Counter[int]()

        async def try_all(scopes: tuple[str, ...], secret: str) -> None:
            async with system.client(key=secret) as eve:
                assert await eventually(lambda: _let_in(eve))
                for deed in deeds:
                    status, body = await do(eve, deed, places)
                    statuses[status] += 1
                    where = (scopes, deed, status, body[:300])
                    assert status < 500 and status != 401 and b"secret" not in body, where
                    if status < 300:
                        assert deed.path.partition("?")[0] in OWN, where
                        for name in (
                            places["workspace"],
                            thread,
                            agent["uuid"],
                            team["uuid"],
                            key["id"],
                            document["id"],
                        ):
                            assert name.encode() not in body, (name, where)

        # At the same time: a 404 waits until all is decided that may have made the thing.
        await gather(*(try_all(scopes, secret) for scopes, secret in keys.items()))
        assert sum(statuses.values()) == len(GRANTS) * len(deeds) and min(statuses[403], statuses[404]) > 200, statuses

        bob = await made(admin, "/keys", {"user": "bob", "scopes": ["*"]})
        async with system.client(key=bob["key"]) as client:
            assert await eventually(lambda: _let_in(client))

            async def try_one(deed: Deed) -> None:
                status, body = await do(client, deed, places)
                assert status == 404 and b"secret" not in body, (deed, status, body[:300])

            await gather(
                *(
                    try_one(deed)
                    for deed in DEEDS
                    if ("{thread_id}" in deed.path or "{run_id}" in deed.path) and deed.needs != "later"
                )
            )
            listed = (await client.get(f"{BASE}/chat/threads")).json()
            assert (listed["items"], listed["total"]) == ([], 0)
        after = (await owner.get(f"{BASE}/chat/threads/{thread}/events?limit=200", headers=JSON)).text
        assert after == before, "nothing was done to it"
        assert (await owner.get(f"{BASE}/agents/{agent['id']}")).json()["version"] == 1
        assert (await owner.get(f"{BASE}/chat/approvals/{approval['id']}")).json()["status"] == "open"
        assert (await owner.get(f"{BASE}/knowledge/{document['id']}")).status_code == 200


JSON = {"Accept": "application/json"}


async def _let_in(client: httpx2.AsyncClient) -> bool:
    return (await client.get(f"{BASE}/agents")).status_code == 200

"""Administration: workspaces, keys, and what is read of agents and teams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.keys import key_hash
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import WORKSPACE, World, world

BASE = "/api/v1"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        yield made


async def admin(here: World, method: str, path: str, gateway: int = 0, **options: Any) -> Exchange:
    return await ask(here.gateways[gateway][0], method, BASE + path, key=options.pop("key", here.admin_key), **options)


async def test_a_workspace_gets_the_agents_and_teams_of_the_first_one(here: World) -> None:
    made = await admin(here, "POST", "/workspaces", body={"name": "second"})
    assert made.status == 201 and set(made.json()) == {"id", "name"} and made.json()["name"] == "second"
    key = await admin(here, "POST", "/keys", body={"workspace": made.json()["id"], "user": "bob", "scopes": ["*"]})
    assert key.status == 201
    assert (key.json()["workspace"], key.json()["workspace_id"]) == ("second", made.json()["id"])
    theirs = await admin(here, "GET", "/agents", key=key.json()["key"])
    ours = await admin(here, "GET", "/agents", key=here.key)
    assert [a["id"] for a in theirs.json()["items"]] == [a["id"] for a in ours.json()["items"]]
    assert not {a["uuid"] for a in theirs.json()["items"]} & {a["uuid"] for a in ours.json()["items"]}
    assert [t["id"] for t in (await admin(here, "GET", "/teams", key=key.json()["key"])).json()["items"]] == ["pair"]


async def test_a_workspace_that_was_half_made_is_finished_by_the_same_request(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway died after the first command: a retry under the key sends the rest, and nothing twice."""
    options: dict[str, Any] = {"body": {"name": "second"}, "headers": {"Idempotency-Key": "k"}}
    real, calls = here.core.sender.ask, 0

    async def dies(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionAbortedError("here the gateway dies")
        return await real(*args)

    monkeypatch.setattr(here.core.sender, "ask", dies)
    assert (await admin(here, "POST", "/workspaces", **options)).status == 500
    monkeypatch.undo()
    again = await admin(here, "POST", "/workspaces", **options)
    assert again.status == 201 and again.headers["idempotency-replayed"] == "true"
    third = await admin(here, "POST", "/workspaces", **options)
    assert third.body == again.body
    stream = ids.workspace_stream(again.json()["id"])
    await here.eventually(lambda: len(here.past.facts.get(stream, [])) >= 4)
    types = [fact.type for _, fact in here.past.facts[stream]]
    assert types == ["workspace.created", "agent.changed", "agent.changed", "team.changed"]


async def test_a_key_is_shown_once_and_let_in_at_once_on_every_gateway(here: World) -> None:
    await here.application()
    made = await admin(here, "POST", "/keys", body={"user": "bob", "scopes": ["chat", "read", "chat"]})
    body = made.json()
    assert made.status == 201
    assert TIME.fullmatch(body.pop("created_at"))
    secret = body.pop("key")
    assert body == {
        "id": body["id"],
        "workspace": "default",
        "workspace_id": WORKSPACE,
        "user": "bob",
        "scopes": ["chat", "read"],
        "rate_limit": None,
    }
    await here.eventually(lambda: key_hash(secret) in here.gateways[1][0].state.core.auth._known)
    assert (await admin(here, "GET", "/chat/threads", gateway=1, key=secret)).status == 200
    listed = await admin(here, "GET", "/keys")
    assert listed.status == 200 and secret not in listed.body.decode() and key_hash(secret) not in listed.body.decode()
    assert {item["id"] for item in listed.json()["items"]} == {"api", "admin", body["id"]}
    facts = [fact.body for _, fact in here.past.facts[ids.workspace_stream(WORKSPACE)]]
    assert all(secret not in fact.model_dump_json() for fact in facts), "only its hash is on the log"


async def test_a_key_that_is_rotated_lets_the_new_secret_in_alone(here: World) -> None:
    made = (await admin(here, "POST", "/keys", body={"user": "bob", "scopes": ["*"]})).json()
    rotated = await admin(here, "POST", f"/keys/{made['id']}/rotate")
    assert rotated.status == 200 and rotated.json()["id"] == made["id"]
    assert (await admin(here, "GET", "/chat/threads", key=made["key"])).status == 401
    assert (await admin(here, "GET", "/chat/threads", key=rotated.json()["key"])).status == 200
    gone = await admin(here, "DELETE", f"/keys/{made['id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert (await admin(here, "GET", "/chat/threads", key=rotated.json()["key"])).status == 401
    assert made["id"] not in {item["id"] for item in (await admin(here, "GET", "/keys")).json()["items"]}
    for method, path in (("DELETE", f"/keys/{made['id']}"), ("POST", "/keys/never/rotate"), ("DELETE", "/keys/a%00b")):
        assert (await admin(here, method, path.replace("%00", "\0"))).status == 404, path


async def test_a_key_for_an_agent_or_a_team_may_be_asked_for_by_uuid(here: World) -> None:
    agent, team = ids.agent_uuid(WORKSPACE, "scripted"), ids.agent_uuid(WORKSPACE, "pair")
    scopes = [f"agent:{agent}", "agent:scripted", f"team:{team}", "agent:to-come"]
    made = await admin(here, "POST", "/keys", body={"user": "bob", "scopes": scopes})
    assert made.json()["scopes"] == ["agent:scripted", "team:pair", "agent:to-come"]
    options: dict[str, Any] = {"key": made.json()["key"], "body": {"agent_id": agent}}
    assert (await admin(here, "POST", "/chat/threads", **options)).status == 201


async def test_a_repeated_request_for_a_key_gives_the_same_key(here: World) -> None:
    """Derived from what only this system knows, so that any gateway can give it again and none stores it."""
    await here.application()
    options: dict[str, Any] = {"body": {"user": "bob", "scopes": ["*"]}, "headers": {"Idempotency-Key": "k"}}
    first, again = [await admin(here, "POST", "/keys", gateway=n, **options) for n in (0, 1)]
    assert first.status == again.status == 201 and first.body == again.body
    assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    other = await admin(here, "POST", "/keys", body={"user": "eve", "scopes": ["*"]}, headers={"Idempotency-Key": "k"})
    assert (other.status, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    path = f"/keys/{first.json()['id']}/rotate"
    rotated, once_more = [await admin(here, "POST", path, gateway=n, headers={"Idempotency-Key": "r"}) for n in (0, 1)]
    assert rotated.body == once_more.body and rotated.json()["key"] != first.json()["key"]
    assert (await admin(here, "GET", "/chat/threads", key=rotated.json()["key"])).status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"user": "bob", "scopes": []}, "bad_scope"),
        ({"user": "bob", "scopes": ["everything"]}, "bad_scope"),
        ({"user": "bob", "scopes": ["agent:"]}, "bad_scope"),
        ({"user": "bob", "scopes": ["agent:a b"]}, "bad_scope"),
        ({"user": "", "scopes": ["*"]}, "invalid_request"),
        ({"scopes": ["*"]}, "invalid_request"),
        ({"user": "bob", "scopes": "*"}, "invalid_request"),
        ({"user": "bob", "scopes": ["*"], "workspace": "elsewhere"}, "bad_workspace"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(here: World, body: Any, code: str) -> None:
    refused = await admin(here, "POST", "/keys", body=body)
    assert (refused.status, refused.json()["error"]["code"]) == (400, code)
    assert len((await admin(here, "GET", "/keys")).json()["items"]) == 2


async def test_only_the_first_workspaces_admin_reaches_beyond_its_own(here: World) -> None:
    made = (await admin(here, "POST", "/workspaces", body={"name": "second"})).json()
    options = {"workspace": made["id"], "user": "boss", "scopes": ["*", "admin"]}
    boss = (await admin(here, "POST", "/keys", body=options)).json()
    for method, path, body in (
        ("POST", "/workspaces", {"name": "third"}),
        ("POST", "/keys", {"workspace": WORKSPACE, "user": "x", "scopes": ["*"]}),
    ):
        assert (await admin(here, method, path, key=boss["key"], body=body)).status == 403
    for method, path in (("GET", "/keys"), ("DELETE", "/keys/api"), ("POST", "/keys/api/rotate")):
        foreign = await admin(here, method, path, key=boss["key"], params={"workspace": WORKSPACE})
        assert foreign.status == 403, path
        if method != "GET":
            assert (await admin(here, method, path, key=boss["key"])).status == 404, "it is not in its own workspace"
    own = await admin(here, "GET", "/keys", key=boss["key"])
    assert [item["user"] for item in own.json()["items"]] == ["boss"]
    theirs = await admin(here, "GET", "/keys", params={"workspace": made["id"]})
    assert theirs.body == own.body, "the first one's admin sees them, too"
    nobody = await admin(here, "POST", "/keys", body={**options, "workspace": "99999999-2222-4333-8444-555555555555"})
    assert nobody.status == 404
    assert (await admin(here, "GET", "/chat/threads")).status == 200, "nothing was revoked"


async def test_agents_and_teams_are_shown_to_any_key_by_id_and_uuid(here: World) -> None:
    first = await admin(here, "GET", "/agents", key=here.key, params={"limit": "1"})
    body = first.json()
    assert first.status == 200 and set(body) == {"items", "next_cursor", "total"}
    assert [a["id"] for a in body["items"]] == ["assistant"] and body["total"] == 2
    following = await admin(here, "GET", "/agents", params={"limit": "1", "cursor": body["next_cursor"]})
    assert [a["id"] for a in following.json()["items"]] == ["scripted"] and following.json()["next_cursor"] is None
    [agent] = body["items"]
    assert set(agent) >= {
        "id", "uuid", "name", "description", "model", "system_prompt", "temperature", "tools", "limits", "version"
    }  # fmt: skip
    for name in ("assistant", agent["uuid"], agent["uuid"].upper()):
        assert (await admin(here, "GET", f"/agents/{name}", key=here.key)).json() == agent
    [team] = (await admin(here, "GET", "/teams", key=here.key)).json()["items"]
    assert set(team) == {"id", "uuid", "name", "members", "mode", "lead", "version"}
    for name in ("pair", team["uuid"]):
        assert (await admin(here, "GET", f"/teams/{name}", key=here.key)).json() == team
    for path in ("/agents/nobody", "/teams/nobody", "/teams/assistant"):
        assert (await admin(here, "GET", path)).status == 404, path
    garbage = await admin(here, "GET", "/agents", params={"cursor": "garbage"})
    assert (garbage.status, garbage.json()["error"]["code"]) == (400, "bad_cursor")


async def test_a_changed_agent_is_seen_from_the_position_on_that_changed_it(here: World) -> None:
    stream = ids.workspace_stream(WORKSPACE)
    spec = here.core.workspaces
    agent = (await spec.get(WORKSPACE)).agents["scripted"].spec
    here.past.held.clear()
    fact = here.dispatcher.append(
        stream, f.AgentChanged(agent_version=2, spec=agent.model_copy(update={"name": "New"})), workspace_id=WORKSPACE
    )
    here.past.asked.clear()
    reading = asyncio.create_task(
        admin(here, "GET", "/agents/scripted", params={"min_position": f"{stream}@{fact.seq}"})
    )
    await here.eventually(lambda: any(path.endswith("/agents") for path in here.past.asked[-3:]))
    assert not reading.done(), "it waits for the view"
    here.past.held.set()
    assert (await reading).json()["version"] == 2
    bad = await admin(here, "GET", "/teams", params={"min_position": "soon"})
    assert (bad.status, bad.json()["error"]["code"]) == (400, "bad_position")


async def test_what_is_not_decided_in_time_is_accepted_and_not_called_done() -> None:
    async with world(sockets=False, outcome_s=0.1) as here:
        await here.core.workspaces.get(WORKSPACE)
        here.dispatcher.deaf = True
        key = {"user": "bob", "scopes": ["*"]}
        late = [
            await admin(here, "POST", "/workspaces", body={"name": "second"}),
            await admin(here, "POST", "/keys", body=key),
            await admin(here, "POST", "/keys/api/rotate"),
            await admin(here, "DELETE", "/keys/api"),
        ]
        assert [answer.status for answer in late] == [202] * 4
        assert late[1].json()["key"], "its only copy"

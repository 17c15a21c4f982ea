"""Agents and teams over HTTP: made, changed, deleted, and every version of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.keys import make_key
from parley_events.reads import AgentView
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import WORKSPACE, World, world

BASE = "/api/v1"
OTHER = "22222222-2222-4333-8444-555555555555"
STREAM = ids.workspace_stream(WORKSPACE)


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        yield made


async def admin(here: World, method: str, path: str, gateway: int = 0, **options: Any) -> Exchange:
    return await ask(here.gateways[gateway][0], method, BASE + path, key=options.pop("key", here.admin_key), **options)


def places(refused: Exchange) -> list[str]:
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_request"), refused.body
    return [field["field"] for field in refused.json()["error"]["details"]["fields"]]


AGENT = {
    "id": "cook",
    "name": "Cook",
    "description": "Cooks.",
    "roles": ["kitchen"],
    "model": "scripted",
    "system_prompt": "You cook.",
    "context": "There is an oven.",
    "temperature": 0.5,
    "tools": ["clock"],
    "approvals": ["clock", {"tool": "weather", "question": "Really?", "who": ["ann"], "expires_s": 60}],
    "client_tools": [{"name": "weather", "description": "Looks out of the window."}],
    "limits": {"steps": 3},
    "unheard_of": 1,
}


async def test_an_agent_is_made_changed_and_deleted_and_its_versions_stay(here: World) -> None:
    made = await admin(here, "POST", "/agents", body=AGENT)
    assert made.status == 201
    body = made.json()
    filled_in = ("limits", "approvals", "client_tools", "unheard_of")
    assert {name: body[name] for name in AGENT if name not in filled_in} == {
        name: value for name, value in AGENT.items() if name not in filled_in
    }
    assert [(terms["tool"], terms["who"], terms["expires_s"]) for terms in body["approvals"]] == [
        ("clock", [], 86_400), ("weather", ["ann"], 60)
    ]  # fmt: skip
    assert body["client_tools"][0]["input_schema"] == {"type": "object"}
    assert body["limits"] == {"steps": 3, "seconds": 3600, "max_tokens": 8192} and body["version"] == 1
    assert body["uuid"] == ids.agent_uuid(WORKSPACE, "cook")
    assert (await admin(here, "GET", "/agents/cook")).json() == body
    plain = (await admin(here, "GET", f"/agents/{body['uuid']}", key=here.key)).json()
    assert plain == {name: value for name, value in body.items() if name in plain}
    assert not plain.keys() & {"base_url", "api_key", "context"}, "not for everybody"

    changed = await admin(here, "PATCH", "/agents/cook", body={"temperature": None, "tools": ["clock", "calculator"]})
    assert changed.status == 200
    assert changed.json() == {**body, "temperature": None, "tools": ["clock", "calculator"], "version": 2}
    same = await admin(here, "PATCH", f"/agents/{body['uuid']}", body={"name": "Cook", "id": "other"})
    assert (same.status, same.json()["version"]) == (200, 2), "nothing was changed"

    for number, expected in ((1, body), (2, changed.json())):
        one = await admin(here, "GET", "/agents/cook", params={"version": str(number)})
        assert (one.status, one.json()) == (200, expected), number
    versions = await admin(here, "GET", "/agents/cook/versions", key=here.key)
    assert [item["version"] for item in versions.json()["items"]] == [2, 1] and versions.json()["total"] == 2
    assert all(item["created_at"] for item in versions.json()["items"])
    for version, status in (("3", 404), ("0", 400), ("x", 400), ("9" * 30, 400)):
        assert (await admin(here, "GET", "/agents/cook", params={"version": version})).status == status, version

    gone = await admin(here, "DELETE", "/agents/cook")
    assert (gone.status, gone.body) == (204, b"")
    for method, path in (
        ("GET", "/agents/cook"),
        ("GET", "/agents/cook/versions"),
        ("PATCH", "/agents/cook"),
        ("DELETE", "/agents/cook"),
    ):
        assert (await admin(here, method, path, body={"name": "x"} if method == "PATCH" else b"")).status == 404, path
    again = await admin(here, "POST", "/agents", body=AGENT)
    assert (again.status, again.json()["version"]) == (201, 3), "the next version, not one that was there"


async def test_a_team_is_made_changed_and_deleted_and_needs_its_agents(here: World) -> None:
    team = {"id": "kitchen", "name": "Kitchen", "members": ["assistant", "scripted"], "mode": "debate"}
    made = await admin(here, "POST", "/teams", body=team)
    assert made.status == 201
    assert made.json() == {**team, "lead": None, "version": 1, "uuid": ids.agent_uuid(WORKSPACE, "kitchen")}
    changed = await admin(here, "PATCH", "/teams/kitchen", body={"lead": "scripted", "members": ["assistant"]})
    assert changed.json() == {**made.json(), "lead": "scripted", "members": ["assistant"], "version": 2}
    refused = await admin(here, "PATCH", "/teams/kitchen", body={"members": ["assistant", "ghost"], "lead": "nobody"})
    assert places(refused) == ["members.1", "lead"]
    assert places(await admin(here, "POST", "/teams", body={**team, "id": "x", "members": ["ghost"]})) == ["members.0"]
    assert places(await admin(here, "POST", "/teams", body={**team, "id": "x", "members": []})) == ["members"]
    kept = await admin(here, "DELETE", "/agents/scripted")
    assert (kept.status, kept.json()["error"]["code"]) == (409, "in_use")
    versions = await admin(here, "GET", f"/teams/{made.json()['uuid']}/versions", key=here.key)
    assert [item["mode"] for item in versions.json()["items"]] == ["debate"] * 2
    assert (await admin(here, "GET", "/teams/kitchen", params={"version": "1"})).json() == made.json()
    assert (await admin(here, "DELETE", "/teams/kitchen")).status == 204
    assert (await admin(here, "GET", "/teams/kitchen")).status == 404
    assert (await admin(here, "DELETE", "/agents/scripted")).status == 204


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"id": "a b"}, "id"),
        ({"id": "x" * 101}, "id"),
        ({"model": ""}, "model"),
        ({"tools": "clock"}, "tools"),
        ({"tools": [1]}, "tools.0"),
        ({"tools": ["nothing"]}, "tools.0"),
        ({"tools": ["clock", "ledger/pay"]}, "tools.1"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"limits": {"steps": 0}}, "limits.steps"),
        ({"thinking": "a lot"}, "thinking"),
        ({"thinking": 9000}, "thinking"),
        ({"base_url": "ftp://x", "model": "m"}, "base_url"),
        ({"base_url": "http://u:p@x", "model": "m"}, "base_url"),
        ({"base_url": "http://x"}, "model"),
        ({"api_key": "sk-123"}, "api_key"),
        ({"api_key": "env:PARLEY_INTERNAL_TOKEN"}, "api_key"),
        ({"api_key": "env:anthropic_api_key"}, "api_key"),
        ({"client_tools": [{"name": "w", "expires_s": 0}]}, "client_tools.0.expires_s"),
        ({"approvals": [], "client_tools": [{"name": "a b"}]}, "client_tools.0.name"),
        ({"approvals": [], "client_tools": [{"name": "w"}, {"name": "w"}]}, "client_tools.1.name"),
        (
            {"approvals": [], "client_tools": [{"name": "w", "input_schema": {"type": "string"}}]},
            "client_tools.0.input_schema",
        ),
        ({"approvals": ["nothing"]}, "approvals.0"),
        ({"approvals": ["ledger/pay"]}, "approvals.0"),
        ({"approvals": [{"tool": "clock", "expire_s": 5}]}, "approvals.0.expire_s"),
        ({"approvals": [{"tool": "clock", "who": [""]}]}, "approvals.0.who.0"),
    ],
)
async def test_an_agent_that_makes_no_sense_is_not_made(here: World, fields: dict[str, Any], place: str) -> None:
    heard = len(here.dispatcher.heard)
    assert places(await admin(here, "POST", "/agents", body={**AGENT, **fields})) == [place]
    if "id" not in fields:
        assert places(await admin(here, "PATCH", "/agents/scripted", body=fields)) == [place]
    assert len(here.dispatcher.heard) == heard, "nothing of it reached the log"


async def test_what_is_there_is_not_made_again_and_without_an_id_there_is_one(here: World) -> None:
    refused = await admin(here, "POST", "/agents", body={**AGENT, "id": "scripted"})
    assert (refused.status, refused.json()["error"]["code"]) == (409, "exists")
    made = await admin(here, "POST", "/agents", body={"name": "Nameless"})
    assert made.status == 201 and ids.is_uuid(made.json()["id"])
    assert (await admin(here, "GET", f"/agents/{made.json()['id']}")).json() == made.json()
    large = await admin(here, "POST", "/agents", body={"name": "L", "unheard_of": "x" * 2**20})
    assert (large.status, large.json()["error"]["code"]) == (413, "too_large")


async def test_of_the_limits_only_what_is_named_is_changed_and_what_was_wrong_before_hinders_nothing(
    here: World,
) -> None:
    """A workspace that got its agents from the file may have none of the MCP servers that they name."""
    stream = ids.workspace_stream(WORKSPACE)
    spec = AgentView.model_validate({"id": "x", "uuid": "x", "version": 1, "spec": {"agent_id": "x", "name": "X"}}).spec
    spec = spec.model_copy(update={"tools": ("ledger/*",), "agent_id": "given"})
    here.dispatcher.append(stream, f.AgentChanged(agent_version=1, spec=spec), workspace_id=WORKSPACE)
    changed = await admin(here, "PATCH", "/agents/given", body={"limits": {"steps": 7}, "name": "Given"})
    assert changed.status == 200, changed.body
    changed = await admin(here, "PATCH", "/agents/given", body={"limits": {"seconds": 9}})
    assert changed.json()["limits"] == {"steps": 7, "seconds": 9, "max_tokens": 8192}
    assert places(await admin(here, "PATCH", "/agents/given", body={"tools": ["ledger/*", "x/y"]})) == ["tools.1"]
    assert places(await admin(here, "PATCH", "/agents/given", body={"limits": {"steps": 0}})) == ["limits.steps"]
    assert places(await admin(here, "PATCH", "/agents/given", body={"limits": None})) == ["limits"]


async def test_two_changes_at_once_of_different_fields_both_stand(here: World) -> None:
    await here.application()
    await admin(here, "POST", "/agents", body=AGENT)
    changes: list[dict[str, Any]] = [
        {"name": "New"},
        {"description": "New."},
        {"system_prompt": "New!"},
        {"roles": ["new"]},
    ]
    done = await asyncio.gather(
        *(admin(here, "PATCH", "/agents/cook", number % 2, body=change) for number, change in enumerate(changes))
    )
    assert [x.status for x in done] == [200] * 4
    found = (await admin(here, "GET", "/agents/cook")).json()
    assert {**found, **changes[0], **changes[1], **changes[2], **changes[3]} == found and found["version"] == 5


async def test_what_another_gateway_made_a_moment_ago_is_waited_for_in_every_contract(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id from a 2xx is never 404: this gateway has not heard of it yet, but the log has it."""
    app = await here.application()
    await admin(here, "POST", "/agents", body=AGENT)
    core = here.gateways[1][0].state.core
    known = await core.workspaces.get(WORKSPACE)
    await here.eventually(lambda: known.named("cook"))
    requests: list[tuple[str, str, Any]] = [
        ("GET", f"{BASE}/agents/cook", b""),
        ("GET", f"{BASE}/agents/cook/versions", b""),
        ("PATCH", f"{BASE}/agents/cook", {"name": "Chef"}),
        ("POST", f"{BASE}/chat/threads", {"agent_id": "cook"}),
        ("POST", "/api/org/chat/message/sync", {"structure_id": WORKSPACE, "role_id": "cook", "message": "hi"}),
        ("POST", "/api/v3/organizations/default/ai/agents/cook/chat", {"message": "hi"}),
        ("POST", "/api/agents/cook/chat", {"message": "hi"}),
        ("POST", "/mcp", _tool("create_chat_thread", {"agent_id": "cook"})),
        ("POST", "/mcp", _tool("do", {"structure_id": WORKSPACE, "role_id": "cook", "message": "hi"})),
    ]
    for method, path, body in requests:
        late = known.agents.pop("cook")

        async def heard(position: str, timeout_s: float, late: Any = late) -> None:
            assert position.count(".") == 1
            known.put(late)

        monkeypatch.setattr(core.hub, "come_to", heard)
        accept = {"Accept": "application/json, text/event-stream"} if path == "/mcp" else {}
        found = await ask(app, method, path, key=here.admin_key, body=body, headers=accept)
        assert found.status in (200, 201), (path, found.body)
        assert b'"isError":true' not in found.body, (path, found.body)
        known.put(late)
    assert (await admin(here, "GET", "/agents/nobody", 1)).status == 404


def _tool(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


async def test_only_the_operator_says_where_calls_go_and_with_which_secret(here: World) -> None:
    """Otherwise a tenant could have any variable of the dispatcher sent to an address of its own."""
    own = {"base_url": "http://models:1", "api_key": "env:MODEL_KEY", "model": "m"}
    made = await admin(here, "POST", "/agents", body={**AGENT, **own})
    assert made.status == 201 and {name: made.json()[name] for name in own} == own
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign})
    given = AgentView.model_validate({"id": "x", "uuid": "x", "version": 1, "spec": {"agent_id": "x", "name": "X"}})
    spec = given.spec.model_copy(update={**own, "agent_id": "given"})
    stream = ids.workspace_stream(OTHER)
    here.dispatcher.append(stream, f.AgentChanged(agent_version=1, spec=spec), workspace_id=OTHER)
    for field in ("base_url", "api_key"):
        fields = {"model": "m", field: own[field]}
        refused = await admin(here, "POST", "/agents", key=foreign, body={**AGENT, **fields})
        assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden"), field
        for change in (None, f"{own[field]}2"):
            refused = await admin(here, "PATCH", "/agents/given", key=foreign, body={field: change})
            assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden"), (field, change)
    kept = await admin(here, "PATCH", "/agents/given", key=foreign, body={"name": "Mine", **own})
    assert kept.status == 200 and {name: kept.json()[name] for name in own} == own, "what it was given it keeps"


async def test_a_new_workspace_gets_what_the_file_says_and_nothing_that_was_made_here(here: World) -> None:
    await admin(here, "POST", "/agents", body=AGENT)
    await admin(here, "PATCH", "/agents/scripted", body={"system_prompt": "our secret"})
    await admin(here, "POST", "/teams", body={"id": "mine", "name": "Mine", "members": ["cook"]})
    made = (await admin(here, "POST", "/workspaces", body={"name": "second"})).json()
    key = {"workspace": made["id"], "user": "bob", "scopes": ["*", "admin"]}
    theirs = (await admin(here, "POST", "/keys", body=key)).json()["key"]
    agents = (await admin(here, "GET", "/agents", key=theirs)).json()["items"]
    assert {agent["id"]: agent["system_prompt"] for agent in agents} == {"assistant": "", "scripted": ""}
    assert [team["id"] for team in (await admin(here, "GET", "/teams", key=theirs)).json()["items"]] == ["pair"]


async def test_what_is_not_decided_in_time_is_accepted_and_not_called_done() -> None:
    async with world(sockets=False, outcome_s=0.1) as here:
        await here.core.workspaces.get(WORKSPACE)
        here.dispatcher.deaf = True
        late = [
            await admin(here, "POST", "/agents", body=AGENT),
            await admin(here, "PATCH", "/agents/scripted", body={"name": "x"}),
            await admin(here, "DELETE", "/agents/scripted"),
        ]
        assert [(answer.status, answer.json()["id"]) for answer in late] == [
            (202, "cook"), (202, "scripted"), (202, "scripted")
        ]  # fmt: skip


async def test_a_long_prompt_is_kept_whole_and_one_too_long_is_refused(here: World) -> None:
    """Every gateway holds every agent of a workspace that it has met."""
    await here.application()
    long = "é" * 60_000
    made = await admin(here, "POST", "/agents", body={**AGENT, "system_prompt": long})
    assert made.status == 201, made.body[:300]
    assert (await admin(here, "GET", "/agents/cook", 1)).json()["system_prompt"] == long
    heard = len(here.dispatcher.heard)
    for method, path in (("POST", "/agents"), ("PATCH", "/agents/cook"), ("PATCH", "/agents/scripted")):
        refused = await admin(here, method, path, body={"name": "L", "context": "x" * 12_000, "system_prompt": long})
        assert (refused.status, refused.json()["error"]["code"]) == (413, "too_large"), path
    assert len(here.dispatcher.heard) == heard

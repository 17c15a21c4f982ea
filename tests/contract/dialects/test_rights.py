"""Who may do what: every route with every scope, with no key or a bad one, and with what belongs to somebody else."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pytest

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.keys import make_key
from parley_gateway.administration.routes import PATHS as ADMINISTRATION
from parley_gateway.dialects import DIALECTS
from parley_gateway.dialects.org_agents.routes import AI
from parley_gateway.dialects.org_agents.routes import PATHS as ORG_AGENTS
from parley_gateway.dialects.org_chat.routes import PATHS as ORG_CHAT
from parley_gateway.dialects.team_chat.routes import everywhere as team_chat
from parley_gateway.dialects.threads.routes import ELSEWHERE
from parley_gateway.dialects.threads.routes import PATHS as THREADS
from parley_gateway.dialects.tool_chat.routes import CHAT as TOOLS
from parley_gateway.dialects.tool_chat.routes import PATHS as TOOL_CHAT
from parley_gateway.mcp import PATH as MCP
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import frame_of
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, tool_block, world

PAGE = Path(__file__).parents[3] / "docs" / "administration.md"
OTHER = "22222222-2222-4333-8444-555555555555"
CHAT = "/api/v1/chat"
ORG = "/api/org"


class Deed(NamedTuple):
    """A request. `needs`: chat or read of the agent `scripted`, `all` (read of everything), `edit` (what every agent
    knows), `approve`, `see` (read or approve), admin, or nothing."""

    method: str
    path: str
    needs: str
    body: dict[str, Any] | None = None
    query: bool = False

    def template(self) -> tuple[str, str]:
        return self.method, self.path


TEAM = "/agents/{agent_id}"
TEAM_CHAT = [
    Deed("POST", f"{TEAM}/chat", "chat", {"message": "hi"}),
    *(
        deed._replace(path=below + deed.path)
        for below in ("", "/api")
        for deed in (
            Deed("POST", f"{TEAM}/chat/stream", "chat", {"message": "hi"}),
            Deed("GET", f"{TEAM}/runs/{{run_id}}", "read"),
            Deed("GET", f"{TEAM}/runs/{{run_id}}/events", "read"),
            Deed("GET", f"{TEAM}/history", "read"),
            Deed("GET", f"{TEAM}/conversations", "read"),
            Deed("POST", f"{TEAM}/conversations", "chat", {"title": "t"}),
            Deed("PUT", f"{TEAM}/conversations/{{conversation_id}}", "chat", {"title": "t"}),
            Deed("GET", f"{TEAM}/inbox", "read"),
            Deed("POST", f"{TEAM}/mark-read", "chat", {}),
            Deed("DELETE", f"{TEAM}/conversations/{{conversation_id}}", "chat"),
        )
    ),
]
TEAMS = [
    deed._replace(path=below + deed.path)
    for below in ("", "/api")
    for deed in (
        Deed("POST", "/teams/{team_id}/chat", "chat with team", {"message": "hi"}),
        Deed("POST", "/teams/{team_id}/chat/stream", "chat with team", {"message": "hi"}),
        Deed("GET", "/teams/{team_id}/runs/{run_id}", "read of team"),
        Deed("GET", "/teams/{team_id}/runs/{run_id}/events", "read of team"),
    )
]
OF_A_TEAM = {deed.path for deed in TEAMS}
DEEDS = [
    Deed("POST", f"{CHAT}/threads", "chat", {"agent_id": "scripted"}),
    Deed("GET", f"{CHAT}/threads", "read", query=True),
    Deed("GET", f"{CHAT}/threads/{{thread_id}}", "read"),
    Deed("PATCH", f"{CHAT}/threads/{{thread_id}}", "chat", {"title": "t"}),
    Deed("GET", f"{CHAT}/threads/{{thread_id}}/messages", "read"),
    Deed("POST", f"{CHAT}/threads/{{thread_id}}/messages", "chat", {"content": "hi"}),
    Deed("GET", f"{CHAT}/threads/{{thread_id}}/files", "read"),
    Deed("GET", f"{CHAT}/threads/{{thread_id}}/files/{{name}}", "read"),
    Deed("GET", f"{CHAT}/threads/{{thread_id}}/events", "read"),
    Deed("GET", f"{CHAT}/events", "all"),
    Deed("GET", f"{CHAT}/runs/{{run_id}}", "read"),
    Deed("GET", f"{CHAT}/runs/{{run_id}}/events", "read"),
    Deed("POST", f"{CHAT}/runs/{{run_id}}/cancel", "chat"),
    Deed("POST", f"{CHAT}/runs/{{run_id}}/tools/{{tool_call_id}}", "chat", {"content": "21 °C"}),
    Deed("POST", f"{CHAT}/runs/{{run_id}}/tools/{{tool_call_id}}/settle", "chat", {"happened": True}),
    Deed("POST", f"{CHAT}/runs/cancel", "chat", {"agent_id": "scripted"}),
    Deed("GET", f"{CHAT}/approvals", "see", query=True),
    Deed("GET", f"{CHAT}/approvals/{{approval_id}}", "see"),
    Deed("POST", f"{CHAT}/approvals/{{approval_id}}", "approve", {"decision": "approve"}),
    Deed("POST", f"{CHAT}/threads/{{thread_id}}/cancel", "chat"),
    Deed("POST", f"{CHAT}/threads/{{thread_id}}/fork", "chat", {"title": "t"}),
    Deed("POST", "/api/v1/knowledge", "edit", {"title": "t", "content": "c"}),
    Deed("GET", "/api/v1/knowledge", "all"),
    Deed("GET", "/api/v1/knowledge/{knowledge_id}", "all"),
    Deed("DELETE", "/api/v1/knowledge/{knowledge_id}", "edit"),
    Deed("POST", "/mcp", "nothing", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
    Deed("POST", f"{ORG}/chat/message", "chat", {"message": "hi"}),
    Deed("POST", f"{ORG}/chat/message/sync", "chat", {"message": "hi"}),
    Deed("GET", f"{ORG}/chat/history", "read", query=True),
    Deed("GET", f"{ORG}/chat/runs/{{run_id}}", "read"),
    Deed("GET", f"{ORG}/chat/runs/{{run_id}}/events", "read"),
    Deed("GET", f"{ORG}/log", "all", query=True),
    Deed("GET", f"{ORG}/chat/artifacts", "read", query=True),
    Deed("GET", f"{ORG}/chat/artifacts/{{name}}", "read", query=True),
    Deed("POST", f"{AI}/agents/{{agent_id}}/chat", "chat", {"message": "hi"}),
    Deed("GET", f"{AI}/agents/{{agent_id}}/chat/runs/{{run_id}}/events", "read"),
    Deed("GET", f"{AI}/agents/{{agent_id}}/sessions/{{session_id}}", "read"),
    Deed("GET", f"{AI}/sessions/{{session_id}}", "read"),
    Deed("GET", "/ai/chat/executions/{run_id}", "read"),
    Deed("GET", "/api/v3/ai/chat/executions/{run_id}", "read"),
    Deed("GET", "/api/v3/organizations/{organisation}/ai/chat/executions/{run_id}", "read"),
    Deed("GET", TOOLS, "read"),
    Deed("POST", TOOLS, "chat", {"message": "hi"}),
    Deed("GET", f"{TOOLS}/runs/{{run_id}}/events", "read"),
    *TEAM_CHAT,
    *TEAMS,
    Deed("POST", "/api/v1/workspaces", "admin", {"name": "w"}),
    Deed("POST", "/api/v1/keys", "admin", {"user": "u", "scopes": ["chat"]}),
    Deed("GET", "/api/v1/keys", "admin"),
    Deed("POST", "/api/v1/keys/{key_id}/rotate", "admin"),
    Deed("DELETE", "/api/v1/keys/{key_id}", "admin"),
    Deed("GET", "/api/v1/rejected", "admin"),
    Deed("GET", "/api/v1/rejected/{rejected_id}", "admin"),
    Deed("POST", "/api/v1/rejected/{rejected_id}/redrive", "admin"),
    Deed("GET", "/api/v1/history/stopped", "admin"),
    Deed("POST", "/api/v1/history/stopped/{record_id}/skip", "admin", {"reason": "it is spoilt"}),
    Deed("GET", "/api/v1/history/skipped", "admin"),
    Deed("DELETE", TOOLS, "chat"),
    Deed("GET", "/api/v1/agents", "nothing"),
    Deed("GET", "/api/v1/agents/{agent_id}", "nothing"),
    Deed("GET", "/api/v1/agents/{agent_id}/versions", "nothing"),
    Deed("GET", "/api/v1/teams", "nothing"),
    Deed("GET", "/api/v1/teams/{team_id}", "nothing"),
    Deed("GET", "/api/v1/teams/{team_id}/versions", "nothing"),
    Deed("POST", "/api/v1/agents", "admin", {"name": "A"}),
    Deed("PATCH", "/api/v1/agents/{agent_id}", "admin", {"name": "A"}),
    Deed("DELETE", "/api/v1/agents/{agent_id}", "admin"),
    Deed("POST", "/api/v1/teams", "admin", {"name": "T", "members": ["assistant"]}),
    Deed("PATCH", "/api/v1/teams/{team_id}", "admin", {"name": "T"}),
    Deed("DELETE", "/api/v1/teams/{team_id}", "admin"),
    Deed("DELETE", f"{CHAT}/threads/{{thread_id}}", "chat"),
]
"""Every route there is; the last one takes the thread away."""

GRANTS: dict[tuple[str, ...], set[str]] = {
    ("*",): {"chat", "read", "all", "edit", "approve", "see", "chat with team", "read of team"},
    ("*", "admin"): {
        "chat",
        "read",
        "all",
        "edit",
        "approve",
        "see",
        "admin",
        "chat with team",
        "read of team",
    },
    ("chat",): {"chat", "chat with team"},
    ("read",): {"read", "all", "see", "read of team"},
    ("chat", "read"): {"chat", "read", "all", "see", "chat with team", "read of team"},
    ("agent:scripted",): {"chat", "read", "see"},
    ("agent:assistant",): set(),
    ("read", "agent:scripted"): {"chat", "read", "all", "see", "read of team"},
    ("chat", "agent:scripted"): {"chat", "read", "see", "chat with team"},
    ("chat", "agent:assistant"): {"chat", "chat with team"},
    ("team:pair",): {"chat with team", "read of team"},
    ("prompt:override",): set(),
    ("approve",): {"approve", "see"},
    ("chat", "approve"): {"chat", "approve", "see", "chat with team"},
    ("admin",): {"admin", "edit"},
}
"""What scopes allow with what belongs to the agent `scripted`, or to the team `pair`."""


class Scene(NamedTuple):
    """A world with a thread of `scripted`, a run in it, and a run in the node's shared chat."""

    here: World
    places: dict[str, str]

    async def do(self, deed: Deed, key: str | None, **headers: str) -> Exchange:
        node = {"structure_id": WORKSPACE, "role_id": "scripted"}
        if deed.path == "/mcp":
            headers["Accept"] = "application/json, text/event-stream"
        options: dict[str, Any] = {"key": key, "headers": headers}
        if deed.body is not None:
            options["body"] = {**deed.body, **(node if deed.path.startswith(ORG) else {})}
        if deed.query:
            options["params"] = {**node, "agent_id": "scripted"}
        places = self.places | ({"run_id": self.places["run_of_team"]} if deed.path in OF_A_TEAM else {})
        path, _, asked = deed.path.format(**places).partition("?")
        options["params"] = {**options.get("params", {}), **dict(parse_qsl(asked))}
        app = self.here.gateways[0][0]
        if path == f"{CHAT}/events":
            # It begins now: only what is said from here on could come.
            async with exchange(app, deed.method, path, **options) as x:
                await x.until(lambda x: x.sends)
                return x
        if not path.endswith("threads/" + self.places["thread_id"] + "/events"):
            return await ask(app, deed.method, path, **options)
        async with exchange(app, deed.method, path, **options) as x:
            await x.until(lambda x: x.over or x.parts)
            return x


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with world(sockets=False) as here:
        here.dispatcher.play = parked_once
        yield await staged(here)


async def parked_once(d: Dispatcher, posted: Fact) -> None:
    """A run with everything that somebody may answer, which ends without an answer; a team's with nothing."""
    call = d.called(posted)
    if posted.body.play is not None:  # type: ignore[attr-defined]
        d.completed(posted)
        return
    tools = (
        tool_block("publish", call, {"text": "a secret"}),
        tool_block("get_weather", call, {"location": "a secret"}),
    )
    d.returned(posted, call, Block(kind="text", text="ok"), *tools)
    d.asked(posted, call, "publish", {"text": "a secret"})
    d.handed(posted, call, "get_weather", {"location": "a secret"}, index=1)
    d.completed(posted)


async def staged(here: World) -> Scene:
    app = here.gateways[0][0]
    thread = (await ask(app, "POST", f"{CHAT}/threads", key=here.key, body={"agent_id": "scripted"})).json()["id"]
    said = await ask(
        app,
        "POST",
        f"{CHAT}/threads/{thread}/messages",
        key=here.key,
        body={"content": "a secret"},
        params={"wait": ""},
    )
    kept = (await ask(app, "POST", "/agents/scripted/conversations", key=here.key, body={"title": "a secret"})).json()
    asked = await ask(app, "POST", "/teams/pair/chat", key=here.key, body={"message": "a secret"})
    document = {"title": "t", "content": "a secret"}
    added = (await ask(app, "POST", "/api/v1/knowledge", key=here.key, body=document)).json()["id"]
    places = {"thread_id": thread, "run_id": said.json()["run"]["id"], "approval_id": f"{thread}.p5", "name": "n"}
    places |= {"session_id": thread, "organisation": "default"}
    places |= {"run_of_team": asked.headers["parley-run-id"]}
    places |= {"tool_call_id": "call-3-get_weather", "conversation_id": kept["id"]}
    return Scene(
        here,
        places
        | {
            "key_id": "api",
            "agent_id": "scripted",
            "team_id": "pair",
            "knowledge_id": added,
            "rejected_id": "0-7",
            "record_id": "0-7",
        },
    )


async def new_key(here: World, scopes: tuple[str, ...], user: str = "ann") -> tuple[str, str]:
    body = {"user": user, "scopes": list(scopes)}
    made = await ask(here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body=body)
    return made.json()["id"], made.json()["key"]


def code_of(found: Exchange) -> str:
    error = found.json()["error"]
    return str(error["code"] if isinstance(error, dict) else error)


def test_every_route_is_here() -> None:
    served = {(method, CHAT + path) for path, methods in THREADS.items() for method in methods}
    served |= {(method, path) for path, methods in ELSEWHERE.items() for method in methods}
    served |= {("POST", MCP)}
    served |= {(method, ORG + path) for path, methods in ORG_CHAT.items() for method in methods}
    served |= {(method, "/api/v1" + path) for path, methods in ADMINISTRATION.items() for method in methods}
    served |= {
        (method, path) for paths in (ORG_AGENTS, TOOL_CHAT, team_chat()) for path in paths for method in paths[path]
    }
    assert {deed.template() for deed in DEEDS} == served
    assert len(DIALECTS) == 5


def test_the_page_says_what_each_route_needs() -> None:
    words = {
        "nothing": "any key",
        "all": "read of all",
        "see": "read or approve",
        "edit": "`*` or admin",
    }
    rows = "\n".join(f"| `{d.method} {d.path}` | {words.get(d.needs, d.needs)} |" for d in DEEDS)
    table = f"\n| route | needs |\n|---|---|\n{rows}\n"
    page = PAGE.read_text()
    if os.environ.get("PARLEY_WRITE_PAGES"):
        page = re.sub(r"(<!-- rights -->).*?(<!-- /rights -->)", lambda m: m[1] + table + m[2], page, flags=re.DOTALL)
        PAGE.write_text(page)
    [shown] = re.findall(r"<!-- rights -->(.*?)<!-- /rights -->", page, re.DOTALL)
    assert shown == table, "run this test once with PARLEY_WRITE_PAGES=1"


async def test_no_route_answers_without_a_good_key(scene: Scene) -> None:
    gone, revoked = await new_key(scene.here, ("*", "admin"))
    await ask(scene.here.gateways[0][0], "DELETE", f"/api/v1/keys/{gone}", key=scene.here.admin_key)
    unknown = make_key(WORKSPACE, b"x" * 32)
    nowhere = make_key("99999999-2222-4333-8444-555555555555", b"x" * 32)
    heard = len(scene.here.dispatcher.heard)
    for deed in DEEDS:
        for key in (None, "x", revoked, unknown, nowhere):
            found = await scene.do(deed, key)
            assert (found.status, code_of(found)) == (401, "unauthorized"), (deed, key)
            assert found.headers["www-authenticate"] == "Bearer"
    assert len(scene.here.dispatcher.heard) == heard, "nothing of it reached the log"


@pytest.mark.parametrize("scopes", list(GRANTS), ids="+".join)
async def test_a_scope_allows_what_it_says_on_every_route(scene: Scene, scopes: tuple[str, ...]) -> None:
    key_id, key = await new_key(scene.here, scopes)
    scene.places["key_id"] = (await new_key(scene.here, ("chat",)))[0]
    for deed in DEEDS:
        heard = len(scene.here.dispatcher.heard)
        found = await scene.do(deed, key)
        if deed.needs == "nothing" or deed.needs in GRANTS[scopes]:
            assert found.status not in (401, 403) and found.status < 500, (deed, found.status, found.body)
        else:
            assert (found.status, code_of(found)) == (403, "forbidden"), (deed, found.status, found.body)
            assert len(scene.here.dispatcher.heard) == heard, deed
    assert key_id


async def test_a_key_for_one_agent_lists_that_agents_threads_alone(scene: Scene) -> None:
    app, here = scene.here.gateways[0][0], scene.here
    for agent in ("assistant", "scripted", None):
        await ask(app, "POST", f"{CHAT}/threads", key=here.key, body={"agent_id": agent})
    for scopes in (("agent:scripted",), ("chat", "agent:scripted")):
        _, key = await new_key(here, scopes)
        for params in ({}, {"agent_id": "scripted"}):
            listed = await ask(app, "GET", f"{CHAT}/threads", key=key, params=params)
            assert [item["agent_id"] for item in listed.json()["items"]] == ["scripted"] * 3, scopes
        for params in ({"agent_id": "assistant"}, {"agent_id": "nobody"}):
            assert (await ask(app, "GET", f"{CHAT}/threads", key=key, params=params)).status == 403
    _, both = await new_key(here, ("agent:scripted", "agent:assistant"))
    assert (await ask(app, "GET", f"{CHAT}/threads", key=both)).status == 403, "it must say which"
    assert (await ask(app, "GET", f"{CHAT}/threads", key=both, params={"agent_id": "assistant"})).status == 200


async def test_another_users_thread_is_not_there(scene: Scene) -> None:
    _, bob = await new_key(scene.here, ("*",), "bob")
    for deed in DEEDS:
        if any(one in deed.path for one in ("{thread_id}", "{run_id}", "{session_id}", "{conversation_id}")):
            found = await scene.do(deed, bob)
            assert (found.status, code_of(found)) == (404, "not_found"), (deed, found.body)
    assert (await scene.do(DEEDS[1], bob)).json()["items"] == []
    _, boss = await new_key(scene.here, ("*", "admin"), "boss")
    assert (await scene.do(DEEDS[2], boss)).status == 200, "an admin of the workspace sees it"


async def test_who_may_approve_sees_what_is_asked_in_the_workspace_and_nobody_else(scene: Scene) -> None:
    """An approval names nobody: whoever has the scope. One that names users: they, and admins. One's own: always."""
    app, here = scene.here.gateways[0][0], scene.here
    d, thread = here.dispatcher, scene.places["thread_id"]
    [posted] = [fact for fact in d.written[thread] if fact.type == "message.posted"]
    named = d.asked(posted, 3, "publish", {"text": "for carol"}, who=("carol",))
    free = scene.places["approval_id"]
    await here.eventually(lambda: d.state(thread).seq == len(here.past.facts[thread]))
    keys = {
        "ann, who reads": ("ann", ("read",)),
        "bob, who approves": ("bob", ("approve",)),
        "carol, who approves": ("carol", ("approve",)),
        "carol, who reads": ("carol", ("read",)),
        "dave, an admin": ("dave", ("*", "admin")),
    }
    sees = {
        "ann, who reads": {free, named},
        "bob, who approves": {free},
        "carol, who approves": {free, named},
        "carol, who reads": set(),
        "dave, an admin": {free, named},
    }
    for name, (user, scopes) in keys.items():
        _, key = await new_key(here, scopes, user)
        listed = await ask(app, "GET", f"{CHAT}/approvals", key=key)
        assert {item["id"] for item in listed.json()["items"]} == sees[name], name
        assert listed.json()["total"] == len(sees[name])
        for approval in (free, named):
            found = await ask(app, "GET", f"{CHAT}/approvals/{approval}", key=key)
            assert found.status == (200 if approval in sees[name] else 404), (name, approval)
        heard = len(d.heard)
        answered = await ask(app, "POST", f"{CHAT}/approvals/{named}", key=key, body={"decision": "deny"})
        if "approve" not in scopes and "*" not in scopes:
            assert (answered.status, len(d.heard)) == (403, heard), name
        else:
            # The run has ended: who may answer is told so.
            assert code_of(answered) in ("not_open", "forbidden"), (name, answered.body)


async def test_tenants_never_meet(scene: Scene) -> None:
    """The key of another workspace, with every right there, on every route and every thing of this one."""
    here, app = scene.here, scene.here.gateways[0][0]
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    assert (await ask(app, "GET", f"{CHAT}/threads", key=foreign)).json()["items"] == []
    before = {stream: len(facts) for stream, facts in here.past.facts.items() if OTHER not in stream}
    own = {"api", "admin"}
    for deed in DEEDS:
        found = await scene.do(deed, foreign)
        if deed.template() == ("POST", f"{CHAT}/threads"):
            continue
        if "{organisation}" in deed.path:
            assert (found.status, code_of(found)) == (403, "forbidden"), (deed, found.status, found.body)
        elif any(name in deed.path for name in ("{thread_id}", "{run_id}", "{approval_id}")) or deed.path.startswith(
            ORG
        ):
            assert (found.status, code_of(found)) == (404, "not_found"), (deed, found.status, found.body)
        elif deed.path == "/api/v1/workspaces":
            assert found.status == 403
        elif "{key_id}" in deed.path or "{knowledge_id}" in deed.path:
            assert found.status == 404, deed
        if found.body:
            assert b"secret" not in found.body, deed
            assert WORKSPACE.encode() not in found.body, deed
        if deed.template() == ("GET", "/api/v1/keys"):
            assert {item["id"] for item in found.json()["items"]} & own == {"admin"}, "its own admin key"
            assert {item["workspace"] for item in found.json()["items"]} == {"other"}
    after = {stream: len(facts) for stream, facts in here.past.facts.items() if stream in before}
    assert after == before, "nothing of this workspace has changed"
    assert here.core.hub.listening == 0
    for path in ("/api/v1/keys", "/api/v1/keys/api/rotate"):
        method = "POST" if path.endswith("rotate") else "GET"
        named = await ask(app, method, path, key=foreign, params={"workspace": WORKSPACE})
        assert named.status == 403, path
    uuids = {a["uuid"] for a in (await ask(app, "GET", "/api/v1/agents", key=here.key)).json()["items"]}
    for uuid in uuids:
        assert (await ask(app, "GET", f"/api/v1/agents/{uuid}", key=foreign)).status == 404
        made = await ask(app, "POST", f"{CHAT}/threads", key=foreign, body={"agent_id": uuid})
        assert (made.status, code_of(made)) == (404, "unknown_agent")


async def test_the_same_idempotency_key_of_two_users_or_tenants_is_two(scene: Scene) -> None:
    here, app = scene.here, scene.here.gateways[0][0]
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    _, bob = await new_key(here, ("*",), "bob")
    _, second = await new_key(here, ("*",), "ann")
    found = [
        (await ask(app, "POST", f"{CHAT}/threads", key=key, body={"title": key[-4:]}, headers={"Idempotency-Key": "k"}))
        for key in (here.key, bob, foreign)
    ]
    assert [x.status for x in found] == [201] * 3
    assert len({x.json()["id"] for x in found}) == 3
    same = await ask(
        app, "POST", f"{CHAT}/threads", key=second, body={"title": here.key[-4:]}, headers={"Idempotency-Key": "k"}
    )
    assert same.body == found[0].body, "the user is the same"


async def test_a_listed_structure_of_one_workspace_is_another_chat_in_another(scene: Scene) -> None:
    here, app = scene.here, scene.here.gateways[0][0]
    structure = "6f6c1f6e-0000-4000-8000-000000000001"
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, (structure,))
    node = {"structure_id": structure, "role_id": "scripted"}
    for key, text in ((here.key, "of ours"), (foreign, "of theirs")):
        said = await ask(app, "POST", f"{ORG}/chat/message", key=key, body={**node, "message": text})
        assert frame_of(said.parts[-1]).type == "complete"
        rows = await ask(app, "GET", f"{ORG}/chat/history", key=key, params=node)
        assert [row["content"] for row in rows.json() if row["role"] == "user"] == [text]

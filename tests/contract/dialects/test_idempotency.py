"""`Idempotency-Key` on every POST there is, by the table of routes: however often and wherever it is asked, one effect
and one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parley_events.codec import Fact
from parley_events.facts import ApprovalRequested, ToolCalled
from parley_gateway.dialects.org_agents.routes import CHAT as CHAT_OF_ORG_AGENTS
from parley_gateway.dialects.tool_chat.routes import CHAT as TOOLS
from tests.contract.dialects.test_rights import DEEDS, TEAM, TEAMS, Deed, Scene, code_of, staged
from tests.support.asgi import Exchange, ask
from tests.support.sse import frame_of
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, silence, tool_block, world

TIMES = 20
ELSEWHERE = {
    "/mcp",
    "/api/v1/rejected/{rejected_id}/redrive",
    "/api/v1/history/stopped/{record_id}/skip",
}
"""Tried where they are: a call over MCP has its key in its `_meta`, too; sending again needs what was set aside, and
skipping what cannot be folded."""
POSTS = [deed for deed in DEEDS if deed.method == "POST" and deed.path not in ELSEWHERE]
OTHER_BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/chat/threads": {"agent_id": "scripted", "title": "another"},
    "/api/v1/chat/threads/{thread_id}/fork": {"title": "another"},
    "/api/v1/chat/threads/{thread_id}/messages": {"content": "another"},
    "/api/v1/chat/runs/{run_id}/tools/{tool_call_id}": {"content": "another"},
    "/api/v1/chat/runs/{run_id}/tools/{tool_call_id}/settle": {"happened": False},
    "/api/v1/chat/approvals/{approval_id}": {"decision": "deny"},
    "/api/v1/knowledge": {"title": "t", "content": "another"},
    "/api/org/chat/message": {"message": "another"},
    "/api/org/chat/message/sync": {"message": "another"},
    CHAT_OF_ORG_AGENTS: {"message": "another"},
    TOOLS: {"message": "another"},
    f"{TEAM}/chat": {"message": "another"},
    **{f"{below}{TEAM}/chat/stream": {"message": "another"} for below in ("", "/api")},
    **{f"{below}{TEAM}/conversations": {"title": "another"} for below in ("", "/api")},
    **{deed.path: {"message": "another"} for deed in TEAMS if deed.method == "POST"},
    "/api/v1/workspaces": {"name": "another"},
    "/api/v1/keys": {"user": "another", "scopes": ["chat"]},
    "/api/v1/agents": {"name": "another"},
    "/api/v1/teams": {"name": "another", "members": ["assistant"]},
}
"""Another body for every POST of which anything is kept under the key."""
CANCEL_MANY = "/api/v1/chat/runs/cancel"
MARK_READ = {f"{TEAM}/mark-read", f"/api{TEAM}/mark-read"}
AGAIN = {CANCEL_MANY, *MARK_READ}
"""What finds nothing left to do when it is asked again, and so repeats nothing."""
NOTHING_KEPT = {
    "/api/v1/chat/runs/{run_id}/cancel",
    "/api/v1/chat/threads/{thread_id}/cancel",
    "/api/v1/keys/{key_id}/rotate",
    CANCEL_MANY,
    *MARK_READ,
}
EFFECTS = {
    "/api/v1/chat/threads": "thread.created",
    "/api/v1/chat/threads/{thread_id}/fork": "thread.forked",
    "/api/v1/chat/threads/{thread_id}/messages": "message.posted",
    "/api/v1/chat/runs/{run_id}/cancel": "run.cancelling",
    "/api/v1/chat/runs/{run_id}/tools/{tool_call_id}": "tool.answered",
    "/api/v1/chat/runs/{run_id}/tools/{tool_call_id}/settle": "tool.settled",
    "/api/v1/chat/runs/cancel": "run.cancelling",
    "/api/v1/chat/approvals/{approval_id}": "approval.answered",
    "/api/v1/chat/threads/{thread_id}/cancel": "thread.cancelling",
    "/api/v1/knowledge": "knowledge.added",
    "/api/org/chat/message": "message.posted",
    "/api/org/chat/message/sync": "message.posted",
    CHAT_OF_ORG_AGENTS: "message.posted",
    TOOLS: "message.posted",
    f"{TEAM}/chat": "message.posted",
    **{f"{below}{TEAM}/chat/stream": "message.posted" for below in ("", "/api")},
    **{f"{below}{TEAM}/conversations": "thread.created" for below in ("", "/api")},
    **{deed.path: "message.posted" for deed in TEAMS if deed.method == "POST"},
    **dict.fromkeys(MARK_READ, "thread.read"),
    "/api/v1/workspaces": "workspace.created",
    "/api/v1/keys": "key.created",
    "/api/v1/keys/{key_id}/rotate": "key.rotated",
    "/api/v1/agents": "agent.changed",
    "/api/v1/teams": "team.changed",
}
"""The fact that each makes."""


def test_every_post_is_here() -> None:
    assert {deed.path for deed in POSTS} == set(EFFECTS) == set(OTHER_BODIES) | NOTHING_KEPT


def effects(scene: Scene, kind: str) -> int:
    """How many facts of a type the log has."""
    return sum(fact.type == kind for facts in scene.here.past.facts.values() for _, fact in facts)


async def post(scene: Scene, deed: Deed, gateway: int, body: dict[str, Any] | None = None, key: str = "k") -> Exchange:
    node = {"structure_id": WORKSPACE, "role_id": "scripted"} if deed.path.startswith("/api/org") else {}
    given = deed.body if body is None else body
    options: dict[str, Any] = {} if given is None else {"body": {**given, **node}}
    path = deed.path.format(**scene.places)
    app = scene.here.gateways[gateway][0]
    return await ask(app, "POST", path, key=scene.here.admin_key, headers={"Idempotency-Key": key}, **options)


async def parked(d: Dispatcher, posted: Fact) -> None:
    """A run that waits for a person and for the client, with a call of which nobody knows what came."""
    call = d.called(posted)
    d.returned(posted, call, *(tool_block(name, call, {}) for name in ("publish", "get_weather", "pay")))
    d.use(posted, call, "pay", {}, "", index=2, status="unknown")
    d.asked(posted, call, "publish", {})
    d.handed(posted, call, "get_weather", {}, index=1)
    d.parked(posted, f"call-{call}-publish", f"call-{call}-get_weather", waits_for="approval")


def asked_in(here: World, thread: str, unknown: bool) -> dict[str, str]:
    """The ids by which that is answered, or settled."""
    bodies = [fact.body for fact in here.dispatcher.written[thread]]
    [approval] = [body.approval_id for body in bodies if isinstance(body, ApprovalRequested)]
    [call] = [
        body.tool_call_id
        for body in bodies
        if isinstance(body, ToolCalled) and body.name == ("pay" if unknown else "get_weather")
    ]
    return {"approval_id": approval, "tool_call_id": call}


def told(found: Exchange) -> tuple[int, Any]:
    """What an answer says. A stream says its texts and facts; how it cuts a text, and when pieces came, is its own."""
    if not found.headers["content-type"].startswith("text/event-stream"):
        return found.status, found.body
    closed = found.body.endswith(b"data: [DONE]\n\n")
    frames = [frame_of(part).data for part in found.parts if part.startswith((b"id:", b"data: {"))]
    text = "".join(frame["content"] for frame in frames if frame["type"] == "text")
    return found.status, (text, closed, [frame for frame in frames if frame["type"] != "text"])


@pytest.mark.parametrize("deed", POSTS, ids=lambda deed: deed.path)
async def test_twenty_at_once_on_two_gateways_have_one_effect_and_equal_answers(deed: Deed) -> None:
    async with world(sockets=False) as here:
        scene = await staged(here)
        await here.application()
        if deed.path.endswith("/cancel") or EFFECTS[deed.path].startswith(("tool.", "approval.")):
            here.dispatcher.play = silence if deed.path.endswith("/cancel") else parked
            url = f"/api/v1/chat/threads/{scene.places['thread_id']}/messages"
            said = (await ask(here.gateways[0][0], "POST", url, key=here.key, body={"content": "hi"})).json()
            scene.places["run_id"] = said["run_id"]
            if here.dispatcher.play is parked:
                await here.eventually(lambda: effects(scene, "run.waiting") == 1)
                scene.places.update(asked_in(here, scene.places["thread_id"], deed.path.endswith("/settle")))
        before = effects(scene, EFFECTS[deed.path])
        found = await asyncio.gather(*(post(scene, deed, number % 2) for number in range(TIMES)))
        assert {x.status for x in found} <= {200, 201, 202}, [x.body for x in found]
        assert all(told(x) == told(found[0]) for x in found), "they are told the same"
        replayed = [x for x in found if x.headers.get("idempotency-replayed") == "true"]
        assert len(replayed) == (0 if deed.path in AGAIN else TIMES - 1)
        assert effects(scene, EFFECTS[deed.path]) == before + 1

        third = await here.application()
        assert third is here.gateways[2][0], "a gateway that has never heard of it"
        again = await post(scene, deed, 2)
        assert told(again) == told(found[0])
        assert (again.headers.get("idempotency-replayed") == "true") == (deed.path not in AGAIN)

        if deed.path in OTHER_BODIES:
            other = await post(scene, deed, 0, OTHER_BODIES[deed.path])
            assert (other.status, code_of(other)) == (409, "idempotency_conflict"), other.body
        assert effects(scene, EFFECTS[deed.path]) == before + 1
        for bad in ("", " ", "x" * 256, "é"):
            refused = await post(scene, deed, 0, key=bad)
            assert (refused.status, code_of(refused)) == (400, "bad_idempotency_key"), bad


async def test_what_was_refused_is_refused_again_in_the_same_words() -> None:
    async with world(sockets=False) as here:
        scene = await staged(here)
        await here.application()
        for deed, body in (
            (next(d for d in POSTS if d.path == "/api/v1/agents"), {"id": "scripted", "name": "S"}),
            (next(d for d in POSTS if d.path == "/api/v1/teams"), {"name": "T", "members": ["ghost"]}),
        ):
            before = effects(scene, EFFECTS[deed.path])
            found = await asyncio.gather(*(post(scene, deed, number % 2, body) for number in range(6)))
            assert len({(x.status, x.body) for x in found}) == 1 and found[0].status in (400, 409)
            assert sum(x.headers.get("idempotency-replayed") == "true" for x in found) == 5
            assert effects(scene, EFFECTS[deed.path]) == before

"""The routes of `org_agents`: thin. `inbound` makes commands, `core` sends and follows, `outbound` words answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from parley_events.ids import agent_uuid
from parley_events.reads import AgentView, MessagePage, RunView, ThreadView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.org_agents import inbound, outbound, wire
from parley_gateway.errors import Problem, instead, not_found
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    endpoint,
    idempotency_key,
    min_position,
    query,
    query_wait,
    resume_point,
    traceparent,
)

BASE = "/api/v3"
AI = "/api/v3/organizations/{organisation}/ai"
CHAT = f"{AI}/agents/{{agent_id}}/chat"
WAIT_S = 300.0
PAGE = 50
"""How many messages of a session are read and written at a time."""


async def _chat(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    who.to_chat(agent.id)
    asked = await body_of(request, wire.NewMessage, core.settings.body_mb)
    wait_s = query_wait(request, WAIT_S)
    key = idempotency_key(request)
    body = inbound.post_message(who, asked, agent, core.settings.session_idle_s)
    if asked.session_id is None:
        session_id = core.sender.thread_id(who, f"session.open {agent.id}", key)
    else:
        session_id = inbound.session_id(asked.session_id)
        inbound.isolated(who, await core.end_user(who, session_id, "session"), asked.user_id)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "message.post", session_id, key),
        session_id,
        body,
        inbound.meaning(asked),
        fresh=asked.session_id is None and key is None,
        traceparent=traceparent(request),
    )
    follow = not asked.later
    try:
        said = await core_.say(core, who, command, follow=follow, pieces=bool(asked.stream))
    except Problem as problem:
        if problem.code in ("not_found", "invalid"):
            # All that a message can contradict is the agent to whom the session is bound.
            raise instead(not_found("session with this agent"), problem) from None
        raise
    headers = {"Parley-Run-Id": said.run_id, **(REPLAYED if said.outcome.repeated else {})}
    named = request.path_params["agent_id"]
    accepted = outbound.accepted(named, agent.spec.name, session_id, said.run_id, asked.user_id)
    if not asked.later or asked.stream:
        accepted["eventsUrl"] = (
            f"{quote(request.scope['path'])}/runs/{said.run_id}/events{outbound.as_user(asked.user_id)}"
        )
    if not follow or said.outcome.pending:
        return answer(202, accepted, headers)
    feed = await core_.feed_of(core, who, said, restarts=False)
    if asked.stream:
        return core_.stream(core, feed, outbound.Frames(session_id, said.run_id), headers)
    run, shown = await core_.told(feed, said.run_id, session_id, WAIT_S if wait_s is None else wait_s)
    if run.ended_seq is None:
        return answer(202, accepted, headers)
    return answer(200, outbound.whole(shown, session_id, headers), headers)


async def _events(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    run, thread = await _run(core, request, who)
    if run.agent_id != agent.id:
        raise not_found("run of this agent")
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=False)
    return core_.stream(core, feed, outbound.Frames(thread.id, run.id), {"Parley-Run-Id": run.id})


async def _execution(core: Core, request: Request, who: Principal) -> Response:
    if "organisation" in request.path_params:
        await _organisation(core, request, who)
    run, _ = await _run(core, request, who)
    story = outbound.Story()
    if run.status in ("completed", "waiting"):
        for fact in await core_.facts_of(core, who, run):
            story.fold(fact)
    found = outbound.execution(run, agent_uuid(who.workspace_id, run.agent_id), story)
    return answer(200, found, {"Parley-Run-Id": run.id})


async def _run(core: Core, request: Request, who: Principal) -> tuple[RunView, ThreadView]:
    """The run that the path names, and its session."""
    run, thread = await core.reads.run_in(who, request.path_params["run_id"], min_position(request))
    inbound.isolated(who, thread.end_user, query(request, "userId"))
    return run, thread


async def _session(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who) if "agent_id" in request.path_params else None
    if agent is None:
        await _organisation(core, request, who)
    position = min_position(request)
    thread = await core.reads.thread(who, request.path_params["session_id"].lower(), position, "session")
    inbound.isolated(who, thread.end_user, query(request, "userId"))
    named = None if thread.agent_id is None else agent_uuid(who.workspace_id, thread.agent_id)
    if agent is not None:
        inbound.bound(thread, agent)
        named = request.path_params["agent_id"]
    head = orjson.dumps({"sessionId": thread.id, "agentId": named, "userId": thread.end_user})
    first = await _messages(core, who, thread.id, None, position)
    return StreamingResponse(_written(core, who, thread.id, head, first), 200, media_type="application/json")


async def _written(core: Core, who: Principal, session_id: str, head: bytes, page: MessagePage) -> AsyncIterator[bytes]:
    """A session with its whole history, a page at a time: however long it is, little of it is held."""
    yield head[:-1] + b',"messages":['
    comma = b""
    while True:
        if page.items:
            yield comma + b",".join(orjson.dumps(outbound.message(view)) for view in page.items)
            comma = b","
        if page.next_cursor is None:
            break
        page = await _messages(core, who, session_id, page.next_cursor, None)
    yield b"]}"


async def _messages(
    core: Core, who: Principal, session_id: str, cursor: str | None, position: str | None
) -> MessagePage:
    params = {"limit": PAGE, "order": "asc", "roles": "user,assistant", "cursor": cursor}
    return await core.reads.messages(who, session_id, params, position)


async def _organisation(core: Core, request: Request, who: Principal) -> None:
    inbound.organisation(await core.workspaces.get(who.workspace_id), request.path_params["organisation"])


async def _agent(core: Core, request: Request, who: Principal) -> AgentView:
    """The agent that the path names, in the organisation that it names."""
    await _organisation(core, request, who)
    name = request.path_params["agent_id"]
    return inbound.agent(await core.workspaces.knowing(who.workspace_id, name), name)


POLLED = "/ai/chat/executions/{run_id}"

PATHS: dict[str, dict[str, Handler]] = {
    CHAT: {"POST": _chat},
    f"{CHAT}/runs/{{run_id}}/events": {"GET": _events},
    f"{AI}/sessions/{{session_id}}": {"GET": _session},
    f"{AI}/agents/{{agent_id}}/sessions/{{session_id}}": {"GET": _session},
    POLLED: {"GET": _execution},
    f"/api/v3{POLLED}": {"GET": _execution},
    f"/api/v3/organizations/{{organisation}}{POLLED}": {"GET": _execution},
}
"""Every path, with its methods."""


def routes(core: Core) -> list[Route]:
    """The routes of the dialect."""
    return [endpoint(core, path, methods, flat=False) for path, methods in PATHS.items()]

"""The routes of `tool_chat`: thin. `inbound` makes commands, `core` sends and follows, `outbound` words the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.commands import ClearThread
from parley_events.reads import AgentView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said, Until
from parley_gateway.delivered import Delivered
from parley_gateway.dialects.tool_chat import inbound, outbound, wire
from parley_gateway.errors import Problem, instead, invalid, not_found
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    endpoint,
    idempotency_key,
    min_position,
    query,
    query_limit,
    query_wait,
    resume_point,
    traceparent,
)
from parley_gateway.marks import answers

BASE = "/api/agents"
CHAT = "/api/agents/{agent_id}/chat"
WAIT_S = 300.0
CLEARED_AT_ONCE = 16
"""How many conversations are cleared at the same time."""


# ---- reading


async def _get(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    who.to_read(agent.id)
    before = inbound.number(query(request, "before"), "before")
    after = inbound.number(query(request, "after"), "after")
    if before is not None and after is not None:
        raise invalid("before and after cannot be given together", "bad_cursor")
    position = min_position(request)
    params = {
        **await _conversations(core, request, who, agent, who.to_read),
        "tools": "true" if query(request, "include") == "tools" else None,
        "before": before,
        "after": after,
        "limit": query_limit(request),
    }
    page = await core.reads.numbered(who, params, position)
    meta = {"total": page.total, "has_more": page.has_more}
    return answer(200, {"messages": [outbound.row(view) for view in page.items], "meta": meta})


async def _conversations(
    core: Core, request: Request, who: Principal, agent: AgentView, may: Callable[[str | None], None]
) -> dict[str, str]:
    """Whose messages are meant: those of the conversation that the query names, else of all that the user has with the
    agent."""
    asked = query(request, "conversation_id")
    if asked is None:
        return {"user_id": who.user_id, "agent_id": agent.id}
    return {"thread_id": await _conversation(core, who, agent, asked, may, min_position(request))}


async def _conversation(
    core: Core,
    who: Principal,
    agent: AgentView,
    asked: str,
    may: Callable[[str | None], None],
    position: str | None = None,
) -> str:
    """The id of a conversation with the agent, for a key that may do with it what it is about to: one that is open to
    any agent needs a key that is bound to none."""
    view = await core.reads.visible(who, asked, position, "conversation")
    found = inbound.conversation(view, agent)
    may(view.agent_id)
    return found


# ---- saying


async def _post(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    who.to_chat(agent.id)
    try:
        asked = await body_of(request, wire.NewMessage, core.settings.body_mb)
    except Problem as problem:
        if problem.status != 400:
            raise
        raise Problem("invalid_message", problem.message, 400, problem.details, problem.headers) from None
    wait_s = query_wait(request, WAIT_S)
    said = await (_result if asked.role == "tool" else _message)(core, request, who, agent, asked)
    headers = {"Parley-Run-Id": said.run_id} if said.run_id else {}
    if said.outcome.repeated:
        headers |= REPLAYED
    if said.outcome.receipt.get("pending"):
        if said.listener is not None:
            core.hub.leave(said.listener)
        return answer(202, {"pending": said.outcome.receipt["pending"]}, headers)
    named = request.path_params["agent_id"]
    open_ = {"conversation_id": said.thread_id, "status": "queued" if said.queued else "running"}
    if said.run_id:
        open_ |= {"run_id": said.run_id, "events_url": f"{BASE}/{quote(named, safe='')}/chat/runs/{said.run_id}/events"}
    if said.outcome.pending:
        return answer(202, open_, headers)
    feed = Until(await core_.feed_of(core, who, said, restarts=False), outbound.Parts(said.thread_id).ends)
    parts = outbound.Parts(said.thread_id)

    def read() -> None:
        core.marks.read(who, said.thread_id, parts.ended_seq)

    if asked.stream:
        return core_.stream(core, feed, parts, headers, read)
    _, shown = await core_.told(feed, said.run_id, said.thread_id, WAIT_S if wait_s is None else wait_s)
    parts.tell(shown)
    if parts.error is not None:
        raise Problem(parts.error["code"], parts.error["message"], 500, parts.error.get("details"), headers)
    if parts.message is None:
        return answer(202, open_, headers)
    return Delivered(answer(200, outbound.answered(parts.message, named, agent.spec.name), headers), read)


async def _message(core: Core, request: Request, who: Principal, agent: AgentView, asked: wire.NewMessage) -> Said:
    key = idempotency_key(request)
    body = inbound.post_message(who, asked, agent)
    if asked.conversation_id is None:
        thread_id = core.sender.thread_id(who, f"conversation.open {agent.id}", key)
    else:
        thread_id = inbound.conversation_id(asked.conversation_id)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "message.post", thread_id, key),
        thread_id,
        body,
        inbound.meaning(asked),
        fresh=asked.conversation_id is None and key is None,
        traceparent=traceparent(request),
    )
    try:
        return await core_.say(core, who, command, follow=True, pieces=bool(asked.stream))
    except Problem as problem:
        if problem.code in ("not_found", "invalid"):
            # All that a message can contradict is the agent to whom the conversation is bound.
            raise instead(not_found("conversation with this agent"), problem) from None
        raise


async def _result(core: Core, request: Request, who: Principal, agent: AgentView, asked: wire.NewMessage) -> Said:
    body = inbound.answer_tool(who, asked)
    if asked.conversation_id is not None:
        thread_id = await _conversation(core, who, agent, asked.conversation_id, who.to_chat)
    else:
        call = await core.reads.client_call(who, agent.id, body.tool_call_id)
        if call is None:
            raise _not_waited_for()
        thread_id, body = call.thread_id, body.model_copy(update={"run_id": call.run_id})
    target = f"{thread_id} {body.tool_call_id}"
    command = core.sender.command(
        who,
        core.sender.command_id(who, "tool.answer", target, idempotency_key(request)),
        thread_id,
        body,
        inbound.meaning(asked),
        traceparent=traceparent(request),
    )
    try:
        return await core_.reply(core, who, command, pieces=bool(asked.stream))
    except Problem as problem:
        if problem.code in ("not_found", "not_open", "invalid"):
            raise instead(_not_waited_for(), problem) from None
        raise


def _not_waited_for() -> Problem:
    return invalid("tool_call_id names no call that waits for a result", "invalid_message")


async def _events(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    run, thread = await core.reads.run_in(who, request.path_params["run_id"], min_position(request))
    if run.agent_id != agent.id:
        raise not_found("run of this agent")
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=False)
    until, parts = Until(feed, outbound.Parts(thread.id).ends), outbound.Parts(thread.id)

    def read() -> None:
        core.marks.read(who, thread.id, parts.ended_seq)

    headers = {"Parley-Run-Id": run.id}
    return core_.stream(core, until, parts, headers, read if answers(who, run, thread) else None)


# ---- clearing


async def _delete(core: Core, request: Request, who: Principal) -> Response:
    agent = await _agent(core, request, who)
    who.to_chat(agent.id)
    asked = await _conversations(core, request, who, agent, who.to_chat)
    deleted = (await core.reads.numbered_now(who, {**asked, "limit": 1})).total
    places = asyncio.Semaphore(CLEARED_AT_ONCE)

    async def clear(thread_id: str) -> bool:
        async with places:
            body = ClearThread(principal=who.asker)
            command = core.sender.command(who, core.new_uuid(), thread_id, body, traceparent=traceparent(request))
            return (await core.sender.ask(who, command)).pending

    named = asked.get("thread_id")
    threads = [named] if named is not None else [one async for one in _spoken_in(core, who, agent)]
    pending = await asyncio.gather(*(clear(thread_id) for thread_id in threads))
    return answer(202 if any(pending) else 200, {"success": True, "deleted": deleted})


async def _spoken_in(core: Core, who: Principal, agent: AgentView) -> AsyncIterator[str]:
    """The user's conversations with the agent in which there is something to clear."""
    for archived in ("false", "true"):
        params = {"user_id": who.user_id, "agent_id": agent.id, "archived": archived, "limit": 200, "cursor": None}
        while True:
            page = await core.reads.threads(who, params, None)
            for view in page.items:
                if view.message_count and view.end_user is None:
                    yield view.id
            if page.next_cursor is None:
                break
            params["cursor"] = page.next_cursor


async def _agent(core: Core, request: Request, who: Principal) -> AgentView:
    name = request.path_params["agent_id"]
    return inbound.agent(await core.workspaces.knowing(who.workspace_id, name), name)


PATHS: dict[str, dict[str, Handler]] = {
    CHAT: {"GET": _get, "POST": _post, "DELETE": _delete},
    f"{CHAT}/runs/{{run_id}}/events": {"GET": _events},
}
"""Every path, with its methods."""


def routes(core: Core) -> list[Route]:
    """The routes of the dialect."""
    return [endpoint(core, path, methods, flat=False) for path, methods in PATHS.items()]

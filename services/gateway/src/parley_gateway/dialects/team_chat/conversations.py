"""The conversations of a user with an agent: what was said in them; listing, making, naming and deleting them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from parley_events.clock import rfc3339
from parley_events.commands import DeleteThread
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.team_chat import inbound, outbound, wire
from parley_gateway.dialects.team_chat.access import (
    AGENT,
    address,
    agent_of,
    below_api,
    conversation_of,
    named,
    place_of,
)
from parley_gateway.errors import Behind, Unavailable
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    idempotency_key,
    min_position,
    query,
    query_limit,
    traceparent,
)


async def _history(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_read(agent.id)
    limit, position = query_limit(request, 20), min_position(request)
    asked, before = query(request, "conversation_id"), query(request, "before")
    if asked is None:
        channels = [inbound.DEFAULT, *([inbound.OPENED_BELOW_API] if below_api(request) else [])]
        params: dict[str, Any] = {"user_id": who.user_id, "agent_id": agent.id, "channel": channels, "limit": limit}
    else:
        view = await conversation_of(core, who, agent, asked, who.to_read, position)
        params = {"thread_id": view.id, "limit": limit}
    if before is not None:
        params["before"] = (await place_of(core, who, agent, before, asked, "before", who.to_read)).number
    page = await core.reads.said(who, params, position)
    return answer(200, {"messages": [outbound.message(view) for view in page.items]})


async def _list(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_read(agent.id)
    limit = query_limit(request, 200)
    params = {
        "user_id": who.user_id,
        "agent_id": agent.id,
        "archived": "false",
        "limit": limit,
        "cursor": query(request, "cursor"),
    }
    page = await core.reads.threads(who, params, min_position(request))
    headers = {}
    if page.next_cursor is not None:
        again = urlencode({"limit": limit, "cursor": page.next_cursor})
        headers["Link"] = f'<{address(request)}/conversations?{again}>; rel="next"'
    shown = [outbound.conversation(view, named(request)) for view in page.items if view.end_user is None]
    return answer(200, {"conversations": shown}, headers)


async def _create(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_chat(agent.id)
    asked = await body_of(request, wire.NewConversation, core.settings.body_mb)
    key = idempotency_key(request)
    operation = f"conversation.create {agent.id}"
    thread_id = core.sender.thread_id(who, operation, key)
    command = core.sender.command(
        who,
        core.sender.command_id(who, operation, thread_id, key),
        thread_id,
        inbound.create_conversation(who, asked, agent),
        inbound.title(asked),
        fresh=key is None,
        traceparent=traceparent(request),
    )
    outcome = await core.sender.ask(who, command)
    core.bind(thread_id, agent.id)
    if outcome.pending:
        return answer(202, {"id": thread_id, "status": "accepted"})
    made = outbound.new_conversation(thread_id, named(request), inbound.title(asked), rfc3339(outcome.time_ms))
    return answer(201, made, REPLAYED if outcome.repeated else None)


async def _rename(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_chat(agent.id)
    asked = await body_of(request, wire.NewConversation, core.settings.body_mb)
    body = inbound.rename_conversation(who, asked)
    view = await conversation_of(core, who, agent, request.path_params["conversation_id"], who.to_chat)
    command = core.sender.command(who, core.new_uuid(), view.id, body, traceparent=traceparent(request))
    outcome = await core.sender.ask(who, command)
    if not outcome.pending:
        try:
            view = await core.history.thread(who.workspace_id, view.id, [outcome.position], 5000)
            return answer(200, outbound.conversation(view, named(request)))
        except (Unavailable, Behind):
            # The change is on the log; what the conversation looks like now cannot be read.
            pass
    return answer(202, {"id": view.id, "status": "accepted"})


async def _delete(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_chat(agent.id)
    view = await conversation_of(core, who, agent, request.path_params["conversation_id"], who.to_chat)
    body = DeleteThread(principal=who.asker)
    command = core.sender.command(who, core.new_uuid(), view.id, body, traceparent=traceparent(request))
    if (await core.sender.ask(who, command)).pending:
        return answer(202, {"id": view.id, "status": "accepted"})
    return Response(status_code=204)


PATHS: dict[str, dict[str, Handler]] = {
    f"{AGENT}/history": {"GET": _history},
    f"{AGENT}/conversations": {"GET": _list, "POST": _create},
    f"{AGENT}/conversations/{{conversation_id}}": {"PUT": _rename, "DELETE": _delete},
}

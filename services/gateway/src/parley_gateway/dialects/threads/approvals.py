"""The routes of approvals. A key with the scope `approve` sees and answers those of the whole workspace, except where
an approval names other users; every key sees those of the threads that it may read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import inbound, outbound, wire
from parley_gateway.dialects.threads.access import agent_named, command_of
from parley_gateway.errors import Behind, Missing, Unavailable, invalid
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    min_position,
    query,
    query_limit,
)
from parley_gateway.reads import thread_of_approval

STATUSES = ("open", "approved", "denied", "expired", "closed")


async def _list(core: Core, request: Request, who: Principal) -> Response:
    status = query(request, "status")
    if status is not None and status not in STATUSES:
        raise invalid(f"status must be one of {', '.join(STATUSES)}")
    agent_id = query(request, "agent_id")
    if agent_id is not None:
        agent_id = (await agent_named(core, who, agent_id)).id
    if not who.may_approve:
        if agent_id is None and len(who.agents) == 1 and not who.may_read(None):
            (agent_id,) = who.agents
        who.to_read(agent_id)
    params = {
        "status": status,
        "thread_id": query(request, "thread_id"),
        "agent_id": agent_id,
        "user_id": who.user_id if who.may_read(agent_id) and not who.admin else None,
        "answerer": who.user_id if who.may_approve and not who.admin else None,
        "limit": query_limit(request),
        "cursor": query(request, "cursor"),
    }
    page = await core.reads.approvals(who, params, min_position(request))
    items = [outbound.approval(view) for view in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


async def _get(core: Core, request: Request, who: Principal) -> Response:
    view = await core.reads.approval(who, request.path_params["approval_id"], min_position(request))
    return answer(200, outbound.approval(view))


async def _answer(core: Core, request: Request, who: Principal) -> Response:
    who.to_approve()
    approval_id = request.path_params["approval_id"]
    thread_id = thread_of_approval(approval_id)
    asked = await body_of(request, wire.Answer, core.settings.body_mb)
    body = inbound.answer_approval(who, approval_id, asked)
    command = command_of(core, request, who, thread_id, approval_id, body, asked.model_dump())
    outcome = await core.sender.ask(who, command)
    headers = REPLAYED if outcome.repeated else None
    accepted = {"id": approval_id, "thread_id": thread_id, "position": outcome.position}
    if outcome.pending:
        return answer(202, accepted, headers)
    try:
        view = await core.history.approval(who.workspace_id, approval_id, [outcome.position], 5000)
    except (Unavailable, Behind, Missing):
        # It was answered; how it stands now cannot be read, or its thread went away.
        return answer(202, accepted, headers)
    return answer(200, {**outbound.approval(view), "position": outcome.position}, headers)


PATHS: dict[str, dict[str, Handler]] = {
    "/approvals": {"GET": _list},
    "/approvals/{approval_id}": {"GET": _get, "POST": _answer},
}
"""Every path of approvals below the base, with its methods."""

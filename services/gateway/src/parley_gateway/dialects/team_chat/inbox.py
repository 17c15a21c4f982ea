"""The inbox: what agents have said in a user's conversations beyond what was read, and how it is marked as read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from parley_events.commands import MarkRead
from parley_events.positions import StreamPosition, parse_position
from parley_events.reads import AgentView, UnreadThread
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.team_chat import outbound, wire
from parley_gateway.dialects.team_chat.access import AGENT, agent_of, conversation_of, place_of
from parley_gateway.errors import Problem
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    idempotency_key,
    min_position,
    query_limit,
    traceparent,
)
from parley_gateway.send import Outcome

PAGE = 200
AT_ONCE = 16
"""How many conversations are marked at the same time."""


async def _inbox(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_read(agent.id)
    params = {"user_id": who.user_id, "agent_id": agent.id, "limit": query_limit(request)}
    await core.marks.settle(who.key_id)
    inbox = await core.reads.inbox(who, params, min_position(request))
    return answer(200, {"messages": [outbound.unread(view) for view in inbox.items], "unread": inbox.unread})


async def _mark_read(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    who.to_chat(agent.id)
    asked = await body_of(request, wire.Mark, core.settings.body_mb)
    key = idempotency_key(request)
    await core.marks.settle(who.key_id)

    async def mark(thread_id: str, up_to: int) -> Outcome:
        command_id = core.sender.command_id(who, "thread.mark_read", thread_id, key)
        body, meaning = MarkRead(principal=who.asker, up_to=up_to), asked.model_dump()
        command = core.sender.command(who, command_id, thread_id, body, meaning, traceparent=traceparent(request))
        return await core.sender.ask(who, command)

    place = await _meant(core, who, agent, asked)
    outcomes = await _mark_all(core, who, agent, mark) if place is None else [await mark(*place)]
    if any(outcome.pending for outcome in outcomes):
        return answer(202, {"status": "accepted"})
    params = {"user_id": who.user_id, "agent_id": agent.id, "limit": 1}
    inbox = await core.reads.inbox(who, params, None, [outcome.position for outcome in outcomes[-PAGE:]])
    repeated = place is not None and outcomes[0].repeated
    return answer(200, {"unread": inbox.unread}, REPLAYED if repeated else None)


async def _meant(core: Core, who: Principal, agent: AgentView, asked: wire.Mark) -> tuple[str, int] | None:
    """The conversation that is meant, and the seq up to which; None: all that there are."""
    within = asked.conversation_id
    view = None if within is None else await conversation_of(core, who, agent, within, who.to_chat)
    if asked.up_to is not None:
        place = await place_of(core, who, agent, asked.up_to, within, "up_to", who.to_chat)
        # What a thread took over from another came before its own first fact.
        return place.thread_id, max(place.seq, 0)
    if view is None:
        return None
    position = parse_position(view.position)
    assert isinstance(position, StreamPosition)
    return view.id, position.seq


async def _mark_all(
    core: Core, who: Principal, agent: AgentView, mark: Callable[[str, int], Awaitable[Outcome]]
) -> Sequence[Outcome]:
    """Mark every conversation with something unread, up to its newest answer that the log has by now."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: UnreadThread) -> Outcome | None:
        async with places:
            try:
                return await mark(item.thread_id, item.answered_seq)
            except Problem as problem:
                if problem.code != "not_found":  # it was deleted meanwhile
                    raise
                return None

    outcomes: list[Outcome] = []
    params = {"user_id": who.user_id, "agent_id": agent.id, "limit": PAGE, "after": ""}
    while True:
        page = await core.reads.unread_now(who, params)
        outcomes += [outcome for outcome in await asyncio.gather(*map(one, page.items)) if outcome is not None]
        if len(page.items) < PAGE:
            return outcomes
        params["after"] = page.items[-1].thread_id


PATHS: dict[str, dict[str, Handler]] = {
    f"{AGENT}/inbox": {"GET": _inbox},
    f"{AGENT}/mark-read": {"POST": _mark_read},
}

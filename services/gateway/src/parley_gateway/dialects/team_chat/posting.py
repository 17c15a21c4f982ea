"""Posting a message, to an agent or to a team: into the conversation that it names, else into the default one.

Everybody has one default conversation with each agent and each team. It has a derived id, so that nobody must look it
up; where it was deleted, the next one in a row of such ids takes its place. Above it: `routes` and `teams`.
"""

from __future__ import annotations

from starlette.requests import Request

from parley_events.commands import PostMessage
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said
from parley_gateway.dialects.team_chat import inbound, wire
from parley_gateway.errors import Problem, Unavailable, instead, not_found
from parley_gateway.http import REPLAYED, idempotency_key, traceparent

MOST_RENEWED = 100
"""How many deleted default conversations in a row are passed over in one request."""


async def post(
    core: Core,
    request: Request,
    who: Principal,
    asked: wire.NewMessage,
    body: PostMessage,
    default: inbound.Default,
    *,
    pieces: bool,
) -> Said:
    """Post the message; a Problem 404 where the conversation that it names is not with whom it is sent to."""
    key = idempotency_key(request)

    async def to(thread_id: str) -> Said:
        command_id = core.sender.command_id(who, "message.post", thread_id, key)
        command = core.sender.command(
            who, command_id, thread_id, body, asked.model_dump(), traceparent=traceparent(request)
        )
        return await core_.say(core, who, command, follow=True, pieces=pieces)

    if asked.conversation_id is not None:
        try:
            return await to(inbound.conversation_id(asked.conversation_id))
        except Problem as problem:
            if problem.code in ("not_found", "invalid"):
                # All that a message can contradict is the agent or team to whom the conversation is bound.
                raise instead(not_found(f"conversation with this {default.whom}"), problem) from None
            raise
    first = default.nth(0)
    for _ in range(MOST_RENEWED):
        renewed = core.renewed.get(first, 0)
        try:
            return await to(default.nth(renewed))
        except Problem as problem:
            if problem.code != "not_found":
                raise
        # It is the user's own, so it was deleted, and all before it.
        core.renew(first, max(renewed + 1, await core.reads.deleted(who, default.mine)))
    raise Unavailable("too many conversations were deleted; try again")


def headers(said: Said) -> dict[str, str]:
    """The headers of the answer to a message."""
    return {"Parley-Run-Id": said.run_id, **(REPLAYED if said.outcome.repeated else {})}

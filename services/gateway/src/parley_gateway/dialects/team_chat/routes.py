"""The routes of `team_chat`: chat, stream and runs; `conversations` and `inbox` have the rest.

Thin: `inbound` makes commands, `core` sends and follows, `outbound` words the answers.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.reads import AgentView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said
from parley_gateway.delivered import Delivered
from parley_gateway.dialects.team_chat import conversations, inbound, inbox, outbound, wire
from parley_gateway.dialects.team_chat.access import AGENT, API, BASE, WAIT_S, agent_of, events_url, named
from parley_gateway.errors import Problem, Unavailable, instead, not_found
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
from parley_gateway.marks import answers

MOST_RENEWED = 100
"""How many deleted default conversations in a row are passed over in one request."""


async def _chat(core: Core, request: Request, who: Principal) -> Response:
    agent, asked, wait_s = await _asked(core, request, who)
    said = await _say(core, request, who, agent, asked, pieces=False)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False)
    run, _ = await core_.told(feed, said.run_id, said.thread_id, wait_s)
    if run.ended_seq is None:
        return _accepted(request, said, run.status if run.posted_seq else "queued" if said.queued else "running")
    headers = _headers(said)
    found = outbound.answered(run.view(), named(request), agent.spec.name, headers)
    return Delivered(answer(200, found, headers), lambda: core.marks.read(who, said.thread_id, run.ended_seq))


async def _stream(core: Core, request: Request, who: Principal) -> Response:
    agent, asked, _ = await _asked(core, request, who)
    said = await _say(core, request, who, agent, asked, pieces=True)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False)
    frames = _frames(request)

    def read() -> None:
        core.marks.read(who, said.thread_id, frames.ended_seq)

    return core_.stream(core, feed, frames, _headers(said), read)


async def _asked(core: Core, request: Request, who: Principal) -> tuple[AgentView, wire.NewMessage, float]:
    """Who is asked, what, and for how long the answer may be waited for."""
    agent = await agent_of(core, request, who)
    who.to_chat(agent.id)
    asked = await body_of(request, wire.NewMessage, core.settings.body_mb)
    wait_s = query_wait(request, WAIT_S)
    return agent, asked, WAIT_S if wait_s is None else wait_s


async def _say(
    core: Core, request: Request, who: Principal, agent: AgentView, asked: wire.NewMessage, *, pieces: bool
) -> Said:
    """Post the message to the conversation that it names, else to the default one: the next where that was deleted."""
    body = inbound.post_message(who, asked, agent)
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
                # All that a message can contradict is the agent to whom the conversation is bound.
                raise instead(not_found("conversation with this agent"), problem) from None
            raise
    first = inbound.default_conversation(who, agent, 0)
    for _ in range(MOST_RENEWED):
        renewed = core.renewed.get(first, 0)
        try:
            return await to(inbound.default_conversation(who, agent, renewed))
        except Problem as problem:
            if problem.code != "not_found":
                raise
        # It is the user's own, so it was deleted, and all before it.
        deleted = await core.reads.deleted(who, {"agent_id": agent.id, "channel": inbound.DEFAULT})
        core.renew(first, max(renewed + 1, deleted))
    raise Unavailable("too many conversations were deleted; try again")


def _headers(said: Said) -> dict[str, str]:
    return {"Parley-Run-Id": said.run_id, **(REPLAYED if said.outcome.repeated else {})}


def _accepted(request: Request, said: Said, status: str) -> Response:
    url = events_url(request, said.run_id)
    return answer(202, outbound.accepted(said.run_id, said.thread_id, status, url), _headers(said))


def _frames(request: Request) -> outbound.Frames:
    return outbound.Frames(tools=query(request, "events") == "all")


# ---- runs: for who got a 202, or was cut off


async def _run(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    run, thread = await core.reads.run_in(who, request.path_params["run_id"], min_position(request))
    if run.agent_id != agent.id:
        raise not_found("run of this agent")
    found = outbound.run(run, named(request), agent.spec.name, events_url(request, run.id))
    response = answer(200, found, {"Parley-Run-Id": run.id})
    if run.status != "completed" or not answers(who, run, thread):
        return response
    return Delivered(response, lambda: core.marks.read(who, thread.id, run.ended_seq))


async def _events(core: Core, request: Request, who: Principal) -> Response:
    agent = await agent_of(core, request, who)
    run, thread = await core.reads.run_in(who, request.path_params["run_id"], min_position(request))
    if run.agent_id != agent.id:
        raise not_found("run of this agent")
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=False)
    frames = _frames(request)

    def read() -> None:
        core.marks.read(who, thread.id, frames.ended_seq)

    headers = {"Parley-Run-Id": run.id}
    return core_.stream(core, feed, frames, headers, read if answers(who, run, thread) else None)


PATHS: dict[str, dict[str, Handler]] = {
    f"{AGENT}/chat": {"POST": _chat},
    f"{AGENT}/chat/stream": {"POST": _stream},
    f"{AGENT}/runs/{{run_id}}": {"GET": _run},
    f"{AGENT}/runs/{{run_id}}/events": {"GET": _events},
    **conversations.PATHS,
    **inbox.PATHS,
}
"""Every path, with its methods."""
OF_OTHERS = frozenset({f"{AGENT}/chat"})
"""What is not served here below `/api`: the address is that of `tool_chat`, whose answers have these fields, too."""


def everywhere() -> dict[str, dict[str, Handler]]:
    """Every path, below `/api` too."""
    return PATHS | {API + path: methods for path, methods in PATHS.items() if path not in OF_OTHERS}


def routes(core: Core) -> list[Route]:
    """The routes of the dialect."""
    return [endpoint(core, path, methods, flat=False) for path, methods in everywhere().items()]


__all__ = ["BASE", "PATHS", "everywhere", "routes"]

"""The routes of `team_chat`: chat, stream and runs; `conversations`, `inbox` and `teams` have the rest.

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
from parley_gateway.dialects.team_chat import conversations, inbound, inbox, outbound, teams, wire
from parley_gateway.dialects.team_chat.access import AGENT, API, BASE, WAIT_S, agent_of, events_url, named
from parley_gateway.dialects.team_chat.posting import headers, post
from parley_gateway.errors import not_found
from parley_gateway.http import (
    Handler,
    answer,
    body_of,
    endpoint,
    min_position,
    query,
    query_wait,
    resume_point,
)
from parley_gateway.marks import answers


async def _chat(core: Core, request: Request, who: Principal) -> Response:
    agent, asked, wait_s = await _asked(core, request, who)
    said = await _say(core, request, who, agent, asked, pieces=False)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False)
    run, _ = await core_.told(feed, said.run_id, said.thread_id, wait_s)
    if run.ended_seq is None:
        return _accepted(request, said, run.status if run.posted_seq else "queued" if said.queued else "running")
    found = outbound.answered(run.view(), named(request), agent.spec.name, headers(said))
    return Delivered(answer(200, found, headers(said)), lambda: core.marks.read(who, said.thread_id, run.ended_seq))


async def _stream(core: Core, request: Request, who: Principal) -> Response:
    agent, asked, _ = await _asked(core, request, who)
    said = await _say(core, request, who, agent, asked, pieces=True)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False)
    frames = _frames(request)

    def read() -> None:
        core.marks.read(who, said.thread_id, frames.ended_seq)

    return core_.stream(core, feed, frames, headers(said), read)


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
    body, default = inbound.post_message(who, asked, agent), inbound.default_conversation(who, agent)
    return await post(core, request, who, asked, body, default, pieces=pieces)


def _accepted(request: Request, said: Said, status: str) -> Response:
    url = events_url(request, said.run_id)
    return answer(202, outbound.accepted(said.run_id, said.thread_id, status, url), headers(said))


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
    **teams.PATHS,
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

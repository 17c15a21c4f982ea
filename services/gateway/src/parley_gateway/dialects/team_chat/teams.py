"""The routes of teams: a message that all members answer, streamed or at once, and the runs of such messages.

Thin: `inbound` makes commands, `core` sends and follows, `plays` words the answers. Siblings: `routes`, `conversations`
and `inbox`, for single agents.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from parley_events.facts import MessagePosted
from parley_events.reads import RunView, TeamView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said
from parley_gateway.dialects.team_chat import inbound, outbound, plays, wire
from parley_gateway.dialects.team_chat.access import API, WAIT_S, below_api
from parley_gateway.dialects.team_chat.posting import headers, post
from parley_gateway.errors import not_found
from parley_gateway.http import (
    Handler,
    answer,
    body_of,
    min_position,
    query_wait,
    resume_point,
)

TEAM = "/teams/{team_id}"


async def _chat(core: Core, request: Request, who: Principal) -> Response:
    wait_s = query_wait(request, WAIT_S)
    said = await _say(core, request, who, pieces=False)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False, inside=True)
    run, shown = await core_.told(feed, said.run_id, said.thread_id, WAIT_S if wait_s is None else wait_s)
    if run.ended_seq is None:
        return _accepted(request, said, run.status if run.posted_seq else "queued" if said.queued else "running")
    story = plays.told(shown, said.run_id)
    found = plays.answered(story, said.thread_id, await _names(core, who), headers(said))
    return answer(200, found, headers(said))


async def _stream(core: Core, request: Request, who: Principal) -> Response:
    said = await _say(core, request, who, pieces=True)
    if said.outcome.pending:
        return _accepted(request, said, "queued")
    feed = await core_.feed_of(core, who, said, restarts=False, inside=True)
    return core_.stream(core, feed, plays.Frames(said.run_id), headers(said))


async def _say(core: Core, request: Request, who: Principal, *, pieces: bool) -> Said:
    """Post the message to the conversation that it names, else to the user's default one with the team."""
    team = await _team(core, request, who)
    who.to_chat(None, team.id)
    asked = await body_of(request, wire.NewTeamMessage, core.settings.body_mb)
    workspace = await core.workspaces.get(who.workspace_id)
    if asked.conversation_id is not None and not who.may_chat(None):
        # A key that is bound to teams: the conversation decides, so it must be known.
        found = await core.reads.visible(who, asked.conversation_id, None, "conversation")
        who.to_chat(found.agent_id, found.team_id)
    body, default = inbound.post_to_team(who, asked, team, workspace), inbound.default_conversation(who, team)
    return await post(core, request, who, asked, body, default, pieces=pieces)


async def _names(core: Core, who: Principal) -> plays.Names:
    workspace = await core.workspaces.get(who.workspace_id)
    return {agent.id: agent.spec.name for agent in workspace.agents.values()}


def _accepted(request: Request, said: Said, status: str) -> Response:
    found = outbound.accepted(said.run_id, said.thread_id, status, _events_url(request, said.run_id))
    return answer(202, found, headers(said))


def _events_url(request: Request, run_id: str) -> str:
    team = quote(request.path_params["team_id"], safe="")
    return f"{API if below_api(request) else ''}/teams/{team}/runs/{run_id}/events"


# ---- runs: for who got a 202, or was cut off


async def _run(core: Core, request: Request, who: Principal) -> Response:
    run = await _run_of(core, request, who)
    story = plays.Story(run.id)
    for fact in await core_.facts_of(core, who, run):
        story.fold(fact)
    url = _events_url(request, run.id)
    found = plays.run(run, story, await _names(core, who), url)
    return answer(200, found, {"Parley-Run-Id": run.id})


async def _events(core: Core, request: Request, who: Principal) -> Response:
    run = await _run_of(core, request, who)
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=False, inside=True)
    return core_.stream(core, feed, plays.Frames(run.id), {"Parley-Run-Id": run.id})


async def _run_of(core: Core, request: Request, who: Principal) -> RunView:
    """The run that the path names, if the team answers in it."""
    team = await _team(core, request, who)
    run = await core.reads.run(who, request.path_params["run_id"], min_position(request))
    begun, _ = await core.history.facts(who.workspace_id, run.thread_id, run.posted_seq - 1, 1)
    body = begun[0].body if begun else None
    if not isinstance(body, MessagePosted) or body.play is None or body.play.team_id != team.id:
        raise not_found("run of this team")
    return run


async def _team(core: Core, request: Request, who: Principal) -> TeamView:
    name = request.path_params["team_id"]
    return inbound.team(await core.workspaces.knowing_team(who.workspace_id, name), name)


PATHS: dict[str, dict[str, Handler]] = {
    f"{TEAM}/chat": {"POST": _chat},
    f"{TEAM}/chat/stream": {"POST": _stream},
    f"{TEAM}/runs/{{run_id}}": {"GET": _run},
    f"{TEAM}/runs/{{run_id}}/events": {"GET": _events},
}
"""Every path of teams, with its methods."""

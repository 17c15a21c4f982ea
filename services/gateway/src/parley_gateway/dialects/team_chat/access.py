"""What a path of `team_chat` names, and for whom: what its routes share."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import Request

from parley_events.reads import AgentView, MessageView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.team_chat import inbound
from parley_gateway.errors import Problem

BASE = "/agents"
AGENT = "/agents/{agent_id}"
API = "/api"
"""The same paths are served below it."""
WAIT_S = 300.0


def below_api(request: Request) -> bool:
    path: str = request.scope["path"]
    return path.startswith(f"{API}/")


def named(request: Request) -> str:
    """The agent's id as it was asked with."""
    name: str = request.path_params["agent_id"]
    return name


def address(request: Request) -> str:
    """Where the agent's paths begin, for this client."""
    return f"{API if below_api(request) else ''}{BASE}/{quote(named(request), safe='')}"


def events_url(request: Request, run_id: str) -> str:
    return f"{address(request)}/runs/{run_id}/events"


async def agent_of(core: Core, request: Request, who: Principal) -> AgentView:
    """The agent that the path names; a Problem 404."""
    return inbound.agent(await core.workspaces.knowing(who.workspace_id, named(request)), named(request))


May = Callable[[str | None], None]
"""What a key must be able to do with an agent (None: with any); a Problem 403."""


async def conversation_of(
    core: Core,
    who: Principal,
    agent: AgentView,
    asked: str,
    may: May,
    position: str | None = None,
) -> ThreadView:
    """A conversation with the agent, for a key that may do with it what it is about to (`may`): one that is open to any
    agent needs a key that is bound to none."""
    found = inbound.conversation(await core.reads.visible(who, asked, position, "conversation"), agent)
    may(found.agent_id)
    return found


async def place_of(
    core: Core, who: Principal, agent: AgentView, message_id: str, within: str | None, name: str, may: May
) -> MessageView:
    """The message that the parameter `name` names: of the conversation `within`, which the key is known to see, else of
    any that it may have with the agent. A Problem 400."""
    found = inbound.conversation_of(message_id, within, name)
    try:
        if within is None:
            await conversation_of(core, who, agent, found, may)
        return await core.reads.message(who, found, message_id)
    except Problem as problem:
        if problem.status == 404:
            raise inbound.no_message(name) from None
        raise

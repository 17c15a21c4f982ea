"""Who may do what with which thread, and what a path names: what the routes of `threads` share."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from parley_events.codec import Command
from parley_events.commands import CommandBody
from parley_events.ids import is_uuid
from parley_events.reads import AgentView
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import inbound
from parley_gateway.errors import not_found
from parley_gateway.http import idempotency_key, traceparent

BASE = "/api/v1/chat"
WAIT_S = 30.0
"""How long `?wait` holds when it is given without a number."""


def thread_id_of(request: Request) -> str:
    """The thread that the path names; a Problem 404 where that is no thread's id."""
    thread_id: str = request.path_params["thread_id"]
    if not is_uuid(thread_id):
        raise not_found("thread")
    return thread_id


def command_of(
    core: Core, request: Request, who: Principal, thread_id: str, target: str, body: CommandBody, meaning: Any = None
) -> Command:
    """The command that a request makes; its `Idempotency-Key` covers what is asked (the body's type) of `target`."""
    command_id = core.sender.command_id(who, body.type, target, idempotency_key(request))
    return core.sender.command(who, command_id, thread_id, body, meaning, traceparent=traceparent(request))


async def agent_named(core: Core, who: Principal, name: str) -> AgentView:
    """The agent of the workspace with this id or UUID; Problem 404."""
    agent = (await core.workspaces.knowing(who.workspace_id, name)).named(name)
    if agent is None:
        raise inbound.unknown_agent(name)
    return agent


async def may_change(core: Core, who: Principal, thread_id: str) -> None:
    """A Problem 403 unless the key may chat in the thread. Whose the thread is, the dispatcher looks at."""
    if (who.agents or who.teams) and not who.may_chat(None):
        thread = await core.reads.thread(who, thread_id)
        who.to_chat(thread.agent_id, thread.team_id)
    else:
        who.to_chat(None)

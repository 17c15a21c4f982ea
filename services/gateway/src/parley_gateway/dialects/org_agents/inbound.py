"""From what clients of `org_agents` send to commands. Pure."""

from __future__ import annotations

import uuid

from parley_events.body import Json, ThreadSeed
from parley_events.commands import PostMessage
from parley_events.reads import AgentView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.dialects.org_agents.wire import NewMessage
from parley_gateway.errors import Problem, forbidden, invalid, not_found
from parley_gateway.http import check_text
from parley_gateway.workspaces import Workspace

CHANNEL = "org_agents"


def organisation(workspace: Workspace, asked: str) -> None:
    """A Problem 403 unless it is the workspace's id or name."""
    if asked not in (workspace.id, workspace.name) and asked.lower() != workspace.id:
        raise forbidden("this key belongs to another organisation")


def agent(workspace: Workspace, asked: str) -> AgentView:
    """The agent with this id or UUID; a Problem 404."""
    found = workspace.named(asked)
    if found is None:
        raise Problem("unknown_agent", f"there is no agent {asked!r} in this organisation", 404)
    return found


def session_id(asked: str) -> str:
    """A session's id in its usual form; a Problem 400 unless it is a UUID."""
    try:
        return str(uuid.UUID(asked))
    except ValueError:
        raise invalid("sessionId must be a UUID") from None


def isolated(principal: Principal, end_user: str | None, asked: str | None) -> None:
    """A Problem 404 unless a session that is kept for `end_user` may be used by the one who asks."""
    if end_user is not None and asked != end_user and not principal.admin:
        raise not_found("session for this user")


def bound(view: ThreadView, asked: AgentView) -> None:
    """A Problem 404 unless the session is one with the agent."""
    if view.agent_id != asked.id:
        raise not_found("session with this agent")


def post_message(principal: Principal, asked: NewMessage, answering: AgentView, idle_s: int) -> PostMessage:
    """Opens a session where the message names none. Nobody is there to run a tool, nor to approve of one while the
    client waits for the answer."""
    seed = ThreadSeed(
        user_id=principal.user_id,
        agent_id=answering.id,
        channel=CHANNEL,
        idle_s=idle_s or None,
        end_user=asked.user_id,
    )
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message"),
        agent_id=answering.id,
        agent_version=answering.version,
        system_append=asked.system,
        open=seed if asked.session_id is None else None,
        unattended=("client_tool",) if asked.later else ("approval", "client_tool"),
    )


def meaning(asked: NewMessage) -> Json:
    """What a repeated message must be equal in: how it is answered may differ."""
    return asked.model_dump(exclude={"stream", "later"})

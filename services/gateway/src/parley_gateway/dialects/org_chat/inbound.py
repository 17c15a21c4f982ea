"""From what clients of `org_chat` send to commands. Pure."""

from __future__ import annotations

import uuid

from parley_events.body import Attachment, ThreadSeed
from parley_events.commands import PostMessage
from parley_events.ids import derived_uuid
from parley_events.reads import AgentView
from parley_gateway.auth import Principal
from parley_gateway.dialects.org_chat.wire import NewMessage
from parley_gateway.errors import invalid, not_found
from parley_gateway.http import check_text
from parley_gateway.workspaces import Workspace

CHANNEL = "org_chat"


def structure(workspace: Workspace, asked: str | None) -> str:
    """The id of a structure of the workspace, in its usual form: its own id, or one that its settings list."""
    try:
        found = str(uuid.UUID(asked or ""))
    except ValueError:
        raise invalid("structure_id must be a UUID", "invalid_structure_id") from None
    if found != workspace.id and found not in {listed.lower() for listed in workspace.structures}:
        raise not_found("structure")
    return found


def node(workspace: Workspace, role_id: str | None) -> AgentView:
    """The agent that holds a role."""
    if not role_id:
        raise invalid("role_id is missing")
    agent = workspace.in_role(role_id)
    if agent is None:
        raise not_found("role in this structure")
    return agent


def default_thread(workspace_id: str, structure_id: str, agent_id: str) -> str:
    """The one thread of a node; all members of the workspace share it."""
    return derived_uuid(CHANNEL, workspace_id, structure_id, agent_id)


def post_message(
    principal: Principal, asked: NewMessage, agent: AgentView, attachments: tuple[Attachment, ...] = ()
) -> PostMessage:
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message", may_be_empty=bool(attachments)),
        attachments=attachments,
        agent_id=agent.id,
        agent_version=agent.version,
        open=ThreadSeed(user_id=None, agent_id=agent.id, channel=CHANNEL),
    )

"""From what clients of `team_chat` send to commands. Pure."""

from __future__ import annotations

import re

from parley_events.body import ThreadSeed
from parley_events.commands import CreateThread, PostMessage, UpdateThread
from parley_events.ids import derived_uuid, is_uuid, thread_of
from parley_events.reads import AgentView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.dialects.team_chat.wire import NewConversation, NewMessage
from parley_gateway.errors import Problem, invalid, not_found
from parley_gateway.http import check_text
from parley_gateway.workspaces import Workspace

CHANNEL = "team_chat"
"""Of conversations that clients made."""
DEFAULT = "team_chat.default"
"""Of the one in which a message goes that names none: one per user and agent."""
OPENED_BELOW_API = "tool_chat"
"""Below `/api` a message that is sent to `…/chat` opens a conversation of this channel, since the address is that
contract's."""

_MESSAGE_ID = re.compile(r"[0-9a-f-]{36}\.[amt][0-9a-f]{1,40}")


def agent(workspace: Workspace, asked: str) -> AgentView:
    """The agent with this id or UUID; a Problem 404."""
    found = workspace.named(asked)
    if found is None:
        raise Problem("unknown_agent", f"there is no agent {asked!r} in this workspace", 404)
    return found


def default_conversation(principal: Principal, asked: AgentView, renewed: int) -> str:
    """The id of the user's default conversation with the agent. `renewed`: how many before it were deleted."""
    parts = (CHANNEL, principal.workspace_id, principal.user_id, asked.id)
    return derived_uuid(*parts, *((str(renewed),) if renewed else ()))


def conversation_id(asked: str) -> str:
    """The id of a conversation, as it was asked with; a Problem 404 when none can have it."""
    if not is_uuid(asked):
        raise not_found("conversation")
    return asked


def conversation(view: ThreadView, asked: AgentView) -> ThreadView:
    """A conversation that may be had with the agent; a Problem 404."""
    if view.agent_id not in (None, asked.id):
        raise not_found("conversation with this agent")
    return view


def conversation_of(message_id: str, within: str | None, name: str) -> str:
    """The id of the conversation in which the message is; a Problem 400 when it is in none, or not `within` it."""
    found = thread_of(message_id) if _MESSAGE_ID.fullmatch(message_id) else None
    if found is None or within not in (None, found):
        raise no_message(name)
    return found


def no_message(name: str) -> Problem:
    return invalid(f"{name} names no message of the conversation", "bad_cursor")


def post_message(principal: Principal, asked: NewMessage, answering: AgentView) -> PostMessage:
    """Opens the default conversation where the message names none."""
    seed = ThreadSeed(user_id=principal.user_id, agent_id=answering.id, channel=DEFAULT)
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message"),
        agent_id=answering.id,
        agent_version=answering.version,
        open=seed if asked.conversation_id is None else None,
    )


def create_conversation(principal: Principal, asked: NewConversation, with_: AgentView) -> CreateThread:
    seed = ThreadSeed(user_id=principal.user_id, agent_id=with_.id, title=title(asked), channel=CHANNEL)
    return CreateThread(principal=principal.asker, seed=seed)


def rename_conversation(principal: Principal, asked: NewConversation) -> UpdateThread:
    if title(asked) is None:
        raise invalid("title is missing")
    return UpdateThread(principal=principal.asker, title=title(asked), changes=("title",))


def title(asked: NewConversation) -> str | None:
    return asked.name if asked.title is None else asked.title

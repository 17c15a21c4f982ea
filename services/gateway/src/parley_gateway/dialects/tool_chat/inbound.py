"""From what clients of `tool_chat` send to commands. Pure."""

from __future__ import annotations

from parley_events.body import Json, ThreadSeed
from parley_events.commands import AnswerTool, PostMessage
from parley_events.ids import is_uuid
from parley_events.reads import AgentView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.dialects.tool_chat.wire import NewMessage
from parley_gateway.errors import Problem, invalid, not_found
from parley_gateway.http import check_text
from parley_gateway.workspaces import Workspace

CHANNEL = "tool_chat"
_MOST_NUMBER = 2**53


def agent(workspace: Workspace, asked: str) -> AgentView:
    """The agent with this id or UUID; a Problem 404."""
    found = workspace.named(asked)
    if found is None:
        raise Problem("unknown_agent", f"there is no agent {asked!r} in this workspace", 404)
    return found


def conversation(view: ThreadView, asked: AgentView) -> str:
    """The id of a conversation that may be had with the agent; a Problem 404."""
    if view.agent_id not in (None, asked.id):
        raise not_found("conversation with this agent")
    return view.id


def conversation_id(asked: str) -> str:
    """The id of a conversation, as it was asked with; a Problem 404 when none can have it."""
    if not is_uuid(asked):
        raise not_found("conversation")
    return asked


def post_message(principal: Principal, asked: NewMessage, answering: AgentView) -> PostMessage:
    """Opens a conversation where the message names none."""
    if asked.message is None:
        raise invalid("message is missing", "invalid_message")
    if asked.system_prompt is not None:
        principal.to_override()
    seed = ThreadSeed(user_id=principal.user_id, agent_id=answering.id, channel=CHANNEL)
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message"),
        agent_id=answering.id,
        agent_version=answering.version,
        context=asked.context,
        system_prompt=asked.system_prompt,
        metadata=asked.metadata or {},
        open=seed if asked.conversation_id is None else None,
    )


def answer_tool(principal: Principal, asked: NewMessage) -> AnswerTool:
    if asked.tool_call_id is None or asked.content is None:
        raise invalid("the result of a tool needs tool_call_id and content", "invalid_message")
    return AnswerTool(
        principal=principal.asker,
        tool_call_id=asked.tool_call_id,
        result=check_text(asked.content, "content", may_be_empty=True),
        is_error=bool(asked.is_error),
    )


def meaning(asked: NewMessage) -> Json:
    """What a repeated message must be equal in: how it is answered may differ."""
    return asked.model_dump(exclude={"stream"})


def number(text: str | None, name: str) -> int | None:
    """A message's id as a cursor; a Problem 400 when it is none."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and int(text) <= _MOST_NUMBER):
        raise invalid(f"{name} must be a message's id", "bad_cursor")
    return int(text)

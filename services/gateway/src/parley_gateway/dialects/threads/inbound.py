"""From what clients of `threads` send to commands. Pure."""

from __future__ import annotations

from parley_events.body import Attachment, ThreadSeed
from parley_events.commands import (
    AnswerApproval,
    AnswerTool,
    CreateThread,
    PostMessage,
    SettleTool,
    UpdateThread,
)
from parley_events.reads import AgentView
from parley_gateway.auth import Principal
from parley_gateway.dialects.threads.wire import Answer, NewMessage, NewThread, Settlement, ThreadChanges, ToolResult
from parley_gateway.errors import Problem, invalid, unsupported
from parley_gateway.http import check_text


def unknown_agent(name: str) -> Problem:
    return Problem("unknown_agent", f"there is no agent {name!r} in this workspace", 404)


def create_thread(principal: Principal, asked: NewThread, agent: AgentView | None) -> CreateThread:
    """`agent` is the one that `asked` names."""
    return CreateThread(
        principal=principal.asker,
        seed=ThreadSeed(
            user_id=principal.user_id,
            agent_id=agent.id if agent else None,
            title=asked.title,
            system_prompt=asked.system_prompt,
            context=asked.context,
            metadata=asked.metadata or {},
        ),
    )


def update_thread(principal: Principal, asked: ThreadChanges) -> UpdateThread | None:
    """None when nothing is to be changed."""
    changes = tuple(name for name in ("title", "pinned", "archived", "metadata") if name in asked.model_fields_set)
    for name in changes:
        if name != "title" and getattr(asked, name) is None:
            raise invalid(f"{name} cannot be null")
    if not changes:
        return None
    return UpdateThread(
        principal=principal.asker,
        title=asked.title,
        pinned=asked.pinned,
        archived=asked.archived,
        metadata=asked.metadata,
        changes=changes,
    )


def post_message(
    principal: Principal, asked: NewMessage, agent: AgentView | None, attachments: tuple[Attachment, ...] = ()
) -> PostMessage:
    """`agent` is who is known to answer, with its newest version; None: the dispatcher finds out."""
    if asked.knowledge_ids:
        raise unsupported("knowledge documents are not served by this version")
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.content, "content", may_be_empty=bool(attachments)),
        attachments=attachments,
        agent_id=agent.id if agent else None,
        agent_version=agent.version if agent else None,
        lead_context=asked.lead_context,
        metadata=asked.metadata or {},
    )


def answer_approval(principal: Principal, approval_id: str, asked: Answer) -> AnswerApproval:
    if asked.decision == "deny" and asked.arguments is not None:
        raise invalid("arguments go with an approval, not with a denial")
    return AnswerApproval(
        principal=principal.asker,
        approval_id=approval_id,
        decision=asked.decision,
        comment=asked.comment,
        arguments=asked.arguments,
    )


def answer_tool(principal: Principal, run_id: str, tool_call_id: str, asked: ToolResult) -> AnswerTool:
    return AnswerTool(
        principal=principal.asker,
        run_id=run_id,
        tool_call_id=tool_call_id,
        result=check_text(asked.content, "content", may_be_empty=True),
        is_error=asked.is_error,
    )


def settle_tool(principal: Principal, run_id: str, tool_call_id: str, asked: Settlement) -> SettleTool:
    return SettleTool(
        principal=principal.asker,
        run_id=run_id,
        tool_call_id=tool_call_id,
        happened=asked.happened,
        comment=asked.comment,
    )

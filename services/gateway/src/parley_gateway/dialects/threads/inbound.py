"""From what clients of `threads` send to commands. Pure."""

from __future__ import annotations

from parley_events.body import Attachment, PastFact, ThreadSeed
from parley_events.commands import (
    AnswerApproval,
    AnswerTool,
    CreateThread,
    ForkThread,
    PostMessage,
    SettleTool,
    UpdateThread,
)
from parley_events.reads import AgentView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.dialects.threads.wire import (
    Answer,
    NewFork,
    NewMessage,
    NewThread,
    Settlement,
    ThreadChanges,
    ToolResult,
)
from parley_gateway.errors import Problem, invalid
from parley_gateway.http import check_data, check_text


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


def fork_thread(
    principal: Principal, source: ThreadView, asked: NewFork, at: int, past: tuple[PastFact, ...]
) -> ForkThread:
    """`source` as it is now, and what it had on record up to `at`. The fork belongs to the one who makes it, also where
    the source is shared; for whom the source was kept (`end_user`), the fork is kept."""
    return ForkThread(
        principal=principal.asker,
        source_thread_id=source.id,
        at=at,
        title=asked.title,
        seed=ThreadSeed(
            user_id=principal.user_id,
            agent_id=source.agent_id,
            team_id=source.team_id,
            title=source.title if asked.title is None else asked.title,
            system_prompt=source.system_prompt,
            context=source.context,
            metadata=source.metadata,
            channel=source.channel,
            idle_s=source.idle_s,
            end_user=source.end_user,
        ),
        past=past,
    )


def fork_again(principal: Principal, source_id: str, asked: NewFork) -> ForkThread:
    """The same asked for once more, without what is copied: it can only be recognised as a repeat."""
    return ForkThread(principal=principal.asker, source_thread_id=source_id, at=asked.at, title=asked.title)


def post_message(
    principal: Principal, asked: NewMessage, agent: AgentView | None, attachments: tuple[Attachment, ...] = ()
) -> PostMessage:
    """`agent` is who is known to answer, with its newest version; None: the dispatcher finds out."""
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.content, "content", may_be_empty=bool(attachments)),
        attachments=attachments,
        agent_id=agent.id if agent else None,
        agent_version=agent.version if agent else None,
        lead_context=check_data(asked.lead_context, "lead_context"),
        knowledge_ids=tuple(dict.fromkeys(asked.knowledge_ids or ())),
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

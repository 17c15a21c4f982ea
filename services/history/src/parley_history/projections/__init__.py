"""The projections: pure functions from a batch of facts to changed rows.

`needs(facts)` names the rows that the batch must see, `fold(view, partition, facts)` applies it to them. `FOLDS` is the
whole catalogue of what a fact does to the view; a type that is not in it is stored as a fact and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

from parley_events import facts as f
from parley_events.codec import Fact, UnknownBody
from parley_history.projections import approvals, forks, knowledge, runs, skills, threads, tools, workspaces
from parley_history.projections.dues import session_due
from parley_history.projections.rows import Needs, View

Fold = Callable[[View, Fact, Any], None]

FOLDS: dict[str, Fold] = {
    f.ThreadCreated.type: threads.thread_created,
    f.ThreadUpdated.type: threads.thread_updated,
    f.ThreadDeleted.type: threads.thread_deleted,
    f.ThreadCleared.type: threads.thread_cleared,
    f.ThreadForked.type: forks.thread_forked,
    f.ThreadExpired.type: threads.thread_expired,
    f.ThreadRead.type: threads.thread_read,
    f.MessagePosted.type: threads.message_posted,
    f.ChildStarted.type: runs.child_started,
    f.ModelCalled.type: runs.model_called,
    f.ModelReturned.type: runs.model_returned,
    f.ModelFailed.type: runs.model_failed,
    f.ToolCalled.type: tools.tool_called,
    f.ToolReturned.type: tools.tool_returned,
    f.ToolAnswered.type: tools.tool_answered,
    f.ToolExpired.type: tools.tool_expired,
    f.ToolSettled.type: tools.tool_settled,
    f.RunWaiting.type: runs.run_waiting,
    f.ApprovalRequested.type: approvals.approval_requested,
    f.ApprovalAnswered.type: approvals.approval_answered,
    f.ApprovalExpired.type: approvals.approval_expired,
    f.RunCancelling.type: runs.run_cancelling,
    f.RunCompleted.type: runs.run_completed,
    f.RunFailed.type: runs.run_failed,
    f.RunCancelled.type: runs.run_cancelled,
    f.WorkspaceCreated.type: workspaces.workspace_created,
    f.WorkspaceChanged.type: workspaces.workspace_changed,
    f.KeyCreated.type: workspaces.key_created,
    f.KeyRotated.type: workspaces.key_rotated,
    f.KeyRevoked.type: workspaces.key_revoked,
    f.AgentChanged.type: workspaces.agent_changed,
    f.AgentDeleted.type: workspaces.agent_deleted,
    f.TeamChanged.type: workspaces.team_changed,
    f.TeamDeleted.type: workspaces.team_deleted,
    f.SkillChanged.type: skills.skill_changed,
    f.KnowledgeAdded.type: knowledge.knowledge_added,
    f.KnowledgeRemoved.type: knowledge.knowledge_removed,
}
"""What each fact does, by its type."""

STORED_ONLY: frozenset[str] = frozenset(
    {
        f.ThreadCancelling.type,
    }
)
"""Facts with a seq that have no rows of their own yet."""


def needs(facts: Iterable[Fact]) -> Needs:
    """The keys of the rows that these facts, in their order, may change and do not make themselves."""
    found = Needs()
    made_threads: set[str] = set()
    made_runs: set[str] = set()
    for fact in facts:
        body, stream = fact.body, fact.stream
        if not stream.startswith("ws:"):
            if fact.seq == 1:
                made_threads.add(stream)
            elif stream not in made_threads:
                found.threads.add(stream)
        # By class: `isinstance` of a pydantic class is no quick question.
        kind = type(body)
        if kind in _WITH_A_RUN:
            run_id: str = body.run_id  # type: ignore[attr-defined]
            if kind is f.MessagePosted or kind is f.ChildStarted:
                made_runs.add(run_id)
            elif run_id not in made_runs:
                found.runs.add(run_id)
        if kind in _NEEDS_MORE:
            _needs_more(found, made_runs, fact)
    return found


_WITH_A_RUN = frozenset(body for body in f.FACTS.values() if "run_id" in body.model_fields)
_NEEDS_MORE = frozenset(
    (f.ChildStarted, f.ApprovalAnswered, f.ApprovalExpired, f.KeyRotated, f.KeyRevoked, f.WorkspaceChanged)
)


def _needs_more(found: Needs, made_runs: Container[str], fact: Fact) -> None:
    """What a fact needs beside its thread and its run."""
    body = fact.body
    if isinstance(body, f.ChildStarted):
        if body.member is not None and body.parent_run_id not in made_runs:
            found.runs.add(body.parent_run_id)
    elif isinstance(body, f.ApprovalAnswered | f.ApprovalExpired):
        found.approvals.add(body.approval_id)
    elif isinstance(body, f.KeyRotated | f.KeyRevoked):
        found.keys.add((fact.workspace_id, body.key_id))
    elif isinstance(body, f.WorkspaceChanged):
        found.workspaces.add(fact.workspace_id)


def fold(view: View, partition: int, facts: Iterable[Fact]) -> None:
    """Apply facts of a partition, in their order, to the rows in the view."""
    view.partition = partition
    get = FOLDS.get
    for fact in facts:
        apply = get(fact.type)
        if apply is not None and fact.body.__class__ is not UnknownBody:
            apply(view, fact, fact.body)
        session_due(view, fact)

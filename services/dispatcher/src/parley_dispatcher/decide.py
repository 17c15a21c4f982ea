"""What a command means: `decide(state, command, …)` gives its one outcome. Pure; no clock, no I/O.

`DECISIONS` is the whole of it, one function per command; `answers` has those of people and clients, `forks` that of a
fork, `dues` says what timers mean. A refusal is raised as `Refused` inside and becomes `command.rejected`. What follows
from an outcome (a run's steps, the ends of runs that a delete cancels) is not decided here: it follows from the facts
(`steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parley_dispatcher.answers import answer_approval, answer_tool, settle_tool
from parley_dispatcher.forks import fork_thread
from parley_dispatcher.refusals import Refused, visible
from parley_dispatcher.state import Run, State, ThreadState, Versioned, WorkspaceState
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, TeamSpec
from parley_events.codec import Command
from parley_events.declared import MOST
from parley_events.documents import MOST_CHARS, MOST_DOCUMENTS

DEFAULT_AGENT = "assistant"
"""Who answers in a thread that is bound to nobody, when the message names nobody."""


def answering_agent(state: State, command: Command) -> str | None:
    """The id of the agent whose newest version `decide` needs for this command; None when it needs none."""
    if not isinstance(command.body, c.PostMessage) or not isinstance(state, ThreadState):
        return None
    opened = command.body.open
    bound = state.agent_id if state.exists else (opened.agent_id if opened else None)
    return bound or command.body.agent_id or DEFAULT_AGENT


def decide(state: State, command: Command, agent_version: int | None = None) -> f.FactBody:
    """The outcome of a command. `agent_version` is the newest version of `answering_agent` (None: there is none)."""
    before = state.outcomes.get(command.id)
    if before is not None:
        if before.body_hash is not None and before.body_hash != command.body_hash:
            return _rejected(command, "idempotency_conflict", "the same idempotency key came with another body before")
        return f.CommandRepeated(
            command_type=command.type,
            outcome_type=before.outcome_type,
            outcome_seq=before.seq,
            outcome_time_ms=before.time_ms,
            first=before.receipt,
        )
    function = DECISIONS.get(type(command.body))
    try:
        if function is None:
            raise Refused("unsupported", f"{command.type} is not served by this version")
        if isinstance(state, WorkspaceState) != command.type.startswith(_WORKSPACE_COMMANDS):
            raise Refused("invalid", f"{command.type} does not belong to the stream {state.stream[:3]}…")
        if isinstance(state, ThreadState) and isinstance(command.body, c.PostMessage):
            return _post(state, command, command.body, agent_version)
        return function(state, command, command.body)
    except Refused as refusal:
        return _rejected(command, refusal.code, refusal.message)


_WORKSPACE_COMMANDS = ("workspace.", "key.", "agent.", "team.", "skill.", "knowledge.")


def _rejected(command: Command, code: str, message: str) -> f.CommandRejected:
    return f.CommandRejected(command_type=command.type, code=code, message=message)


# ---- threads


def _create(state: ThreadState, command: Command, body: c.CreateThread) -> f.FactBody:
    if state.exists:
        raise Refused("exists", "there is a thread of this id already")
    return f.ThreadCreated(seed=body.seed)


def _update(state: ThreadState, command: Command, body: c.UpdateThread) -> f.FactBody:
    visible(state, command)
    return f.ThreadUpdated(
        title=body.title, pinned=body.pinned, archived=body.archived, metadata=body.metadata, changes=body.changes
    )


def _delete(state: ThreadState, command: Command, body: c.DeleteThread) -> f.FactBody:
    visible(state, command)
    return f.ThreadDeleted(by=body.principal.user_id)


def _clear(state: ThreadState, command: Command, body: c.ClearThread) -> f.FactBody:
    visible(state, command)
    return f.ThreadCleared(by=body.principal.user_id)


def _post(state: ThreadState, command: Command, body: c.PostMessage, agent_version: int | None) -> f.FactBody:
    opened = None
    if state.exists or body.open is None:
        visible(state, command)
        if state.expired or state.idle(command.time_ms):
            raise Refused("session_expired", "the session expired; start a new one")
    else:
        opened = body.open
    agent_id = answering_agent(state, command)
    if agent_id is None or agent_version is None:
        raise Refused("unknown_agent", f"there is no agent {agent_id!r} in this workspace")
    if body.agent_id is not None and body.agent_id != agent_id:
        raise Refused("invalid", f"the thread is bound to the agent {agent_id!r}")
    team_id = opened.team_id if opened is not None else state.team_id
    if body.play is not None and team_id not in (None, body.play.team_id):
        raise Refused("invalid", f"the thread is bound to the team {team_id!r}")
    principal = body.principal
    run = ids.run_id(state.stream, command.id)
    return f.MessagePosted(
        message_id=ids.question_id(state.stream, command.id),
        run_id=run,
        answer_id=ids.answer_id(run),
        disposition="started" if state.current() is None else "queued",
        author=body.author or Author(kind="user", id=principal.user_id, name=principal.name),
        agent_id=agent_id,
        agent_version=agent_version,
        text=body.text,
        attachments=body.attachments,
        context=body.context,
        lead_context=body.lead_context,
        knowledge_ids=body.knowledge_ids,
        workspace_seq=body.workspace_seq,
        metadata=body.metadata,
        system_prompt=body.system_prompt,
        system_append=body.system_append,
        opened=opened,
        unattended=body.unattended,
        play=body.play,
    )


def _posted_elsewhere(state: State, command: Command, body: c.PostMessage) -> f.FactBody:
    raise Refused("invalid", "a message belongs to a thread")


def _cancel(state: ThreadState, command: Command, body: c.CancelRun) -> f.FactBody:
    """A run that waits is only begun to be stopped here, as one that runs: its open calls get their results first, and
    then its end, by its task, at once. A second command is told of the first: `command.repeated`, whose `outcome_type`
    is `run.cancelling` and whose `outcome_seq` is that of the fact that stopped the run, of whatever type."""
    visible(state, command)
    run = _run(state, body.run_id)
    if run.ended:
        raise Refused("not_open", "the run has ended")
    if run.status == "cancelling":
        return f.CommandRepeated(
            command_type=command.type,
            outcome_type=f.RunCancelling.type,
            outcome_seq=run.cancelled_seq,
            outcome_time_ms=run.cancelled_ms,
            first={"run_id": run.run_id, "by": run.cancelled_by, "code": run.cancel_code},
        )
    if run.status == "queued" and run is not state.current():
        return f.RunCancelled(
            run_id=run.run_id,
            message_id=run.answer_id,
            by=body.principal.user_id,
            reason=body.reason,
            usage=run.usage,
        )
    return f.RunCancelling(run_id=run.run_id, by=body.principal.user_id, reason=body.reason)


def _cancel_thread(state: ThreadState, command: Command, body: c.CancelThread) -> f.FactBody:
    """The runs that were open end by their tasks, queued and parked ones too; a second command changes nothing."""
    visible(state, command)
    return f.ThreadCancelling(by=body.principal.user_id, reason=body.reason, run_ids=tuple(state.open_runs))


def _fire(state: ThreadState, command: Command, body: c.FireTimer) -> f.FactBody:
    """Timers never come this way: only the owner of a partition fires them, of itself."""
    raise Refused("forbidden", "timers are fired by Parley itself")


def _run(state: ThreadState, run_id: str) -> Run:
    run = state.runs.get(run_id)
    if run is None or run.parent_run_id is not None:
        raise Refused("not_found", "there is no such run")
    return run


def _mark_read(state: ThreadState, command: Command, body: c.MarkRead) -> f.FactBody:
    """Nobody has read what is not there yet."""
    visible(state, command)
    return f.ThreadRead(user_id=body.principal.user_id, up_to=min(body.up_to, state.seq))


# ---- workspaces


def _create_workspace(state: WorkspaceState, command: Command, body: c.CreateWorkspace) -> f.FactBody:
    if state.exists:
        raise Refused("exists", "there is a workspace of this id already")
    if body.workspace_id != command.workspace_id:
        raise Refused("invalid", "workspace_id is not the stream's")
    return f.WorkspaceCreated(workspace_id=body.workspace_id, name=body.name)


def _there(state: WorkspaceState) -> None:
    if not state.exists:
        raise Refused("not_found", "there is no such workspace")


def _change_workspace(state: WorkspaceState, command: Command, body: c.ChangeWorkspace) -> f.FactBody:
    _there(state)
    if body.digest is not None and body.digest == state.digest:
        return _unchanged(command, f.WorkspaceChanged.type, state.seq)
    return f.WorkspaceChanged(
        context=body.context,
        structures=body.structures,
        mcp_servers=body.mcp_servers,
        connectors=body.connectors,
        digest=body.digest,
    )


def _create_key(state: WorkspaceState, command: Command, body: c.CreateKey) -> f.FactBody:
    _there(state)
    if body.key_id in state.keys:
        raise Refused("exists", "there is a key of this id already")
    return f.KeyCreated(
        key_id=body.key_id,
        key_hash=body.key_hash,
        user_id=body.user_id,
        scopes=body.scopes,
        rate_limit=body.rate_limit,
    )


def _rotate_key(state: WorkspaceState, command: Command, body: c.RotateKey) -> f.FactBody:
    _valid_key(state, body.key_id)
    return f.KeyRotated(key_id=body.key_id, key_hash=body.key_hash)


def _revoke_key(state: WorkspaceState, command: Command, body: c.RevokeKey) -> f.FactBody:
    _valid_key(state, body.key_id)
    return f.KeyRevoked(key_id=body.key_id)


def _valid_key(state: WorkspaceState, key_id: str) -> None:
    key = state.keys.get(key_id)
    if key is None or key.revoked:
        raise Refused("not_found", "there is no such key")


def _put_agent(state: WorkspaceState, command: Command, body: c.PutAgent) -> f.FactBody:
    _there(state)
    before = state.agents.get(body.spec.agent_id)
    if _same(before, body.digest):
        return _unchanged(command, f.AgentChanged.type, state.seq, before)
    _as_seen(before, body.expected)
    _room(state.agents, before)
    return f.AgentChanged(agent_version=before.version + 1 if before else 1, spec=body.spec, digest=body.digest)


def _put_team(state: WorkspaceState, command: Command, body: c.PutTeam) -> f.FactBody:
    _there(state)
    before = state.teams.get(body.spec.team_id)
    if _same(before, body.digest):
        return _unchanged(command, f.TeamChanged.type, state.seq, before)
    _as_seen(before, body.expected)
    _room(state.teams, before)
    for member in (*body.spec.members, *([body.spec.lead] if body.spec.lead else [])):
        known = state.agents.get(member)
        if known is None or known.deleted:
            raise Refused("unknown_agent", f"there is no agent {member!r} in this workspace")
    return f.TeamChanged(team_version=before.version + 1 if before else 1, spec=body.spec, digest=body.digest)


def _put_skill(state: WorkspaceState, command: Command, body: c.PutSkill) -> f.FactBody:
    _there(state)
    if body.digest is not None and state.skills.get((body.agent_id, body.slug)) == body.digest:
        return _unchanged(command, f.SkillChanged.type, state.seq)
    agent = state.agents.get(body.agent_id)
    if agent is None or agent.deleted:
        raise Refused("unknown_agent", f"there is no agent {body.agent_id!r} in this workspace")
    return f.SkillChanged(
        agent_id=body.agent_id,
        slug=body.slug,
        name=body.name,
        description=body.description,
        body=body.body,
        digest=body.digest,
    )


def _same(before: Versioned | None, digest: str | None) -> bool:
    """Whether a file says what it said before, so that what was made of it since then stands, a deletion too."""
    return before is not None and digest is not None and before.digest == digest


def _as_seen(before: Versioned | None, expected: int | None) -> None:
    """Refuse unless the newest version is the one that the writer saw (0: there is none; None: whichever)."""
    now = 0 if before is None or before.deleted else before.version
    if expected is None or expected == now:
        return
    if expected == 0:
        raise Refused("exists", "there is one of this id already")
    if now == 0:
        raise Refused("not_found", "it was deleted meanwhile")
    raise Refused("conflict", f"it is at version {now} by now, not {expected}")


def _room(there: dict[str, Versioned], before: Versioned | None) -> None:
    """Refuse one more than there may be."""
    if (before is None or before.deleted) and sum(not known.deleted for known in there.values()) >= MOST:
        raise Refused("too_many", f"a workspace may have at most {MOST} of them")


def _unchanged(command: Command, outcome_type: str, seq: int, now: Versioned | None = None) -> f.CommandRepeated:
    return f.CommandRepeated(
        command_type=command.type,
        outcome_type=outcome_type,
        outcome_seq=seq,
        outcome_time_ms=command.time_ms,
        first={"deleted": True} if now is not None and now.deleted else {},
    )


def _delete_agent(state: WorkspaceState, command: Command, body: c.DeleteAgent) -> f.FactBody:
    known = state.agents.get(body.agent_id)
    if known is None or known.deleted:
        raise Refused("not_found", "there is no such agent")
    for team in state.teams.values():
        spec = team.spec
        if not team.deleted and isinstance(spec, TeamSpec) and body.agent_id in (*spec.members, spec.lead):
            raise Refused("in_use", f"the team {spec.team_id!r} needs the agent: change the team first")
    return f.AgentDeleted(agent_id=body.agent_id)


def _delete_team(state: WorkspaceState, command: Command, body: c.DeleteTeam) -> f.FactBody:
    known = state.teams.get(body.team_id)
    if known is None or known.deleted:
        raise Refused("not_found", "there is no such team")
    return f.TeamDeleted(team_id=body.team_id)


def _add_knowledge(state: WorkspaceState, command: Command, body: c.AddKnowledge) -> f.FactBody:
    _there(state)
    if body.knowledge_id in state.knowledge:
        raise Refused("exists", "there is a document of this id already")
    if len(state.knowledge) >= MOST_DOCUMENTS:
        raise Refused("too_large", f"a workspace may have at most {MOST_DOCUMENTS} documents; remove one first")
    if sum(state.knowledge.values()) + len(body.text) > MOST_CHARS:
        raise Refused(
            "too_large", f"the documents of a workspace may have at most {MOST_CHARS} characters; remove one first"
        )
    return f.KnowledgeAdded(
        knowledge_id=body.knowledge_id, title=body.title, text=body.text, content_type=body.content_type
    )


def _remove_knowledge(state: WorkspaceState, command: Command, body: c.RemoveKnowledge) -> f.FactBody:
    if body.knowledge_id not in state.knowledge:
        raise Refused("not_found", "there is no such document")
    return f.KnowledgeRemoved(knowledge_id=body.knowledge_id)


DECISIONS: dict[type[c.CommandBody], Callable[[Any, Command, Any], f.FactBody]] = {
    c.CreateThread: _create,
    c.UpdateThread: _update,
    c.DeleteThread: _delete,
    c.ForkThread: fork_thread,
    c.ClearThread: _clear,
    c.PostMessage: _posted_elsewhere,
    c.CancelRun: _cancel,
    c.CancelThread: _cancel_thread,
    c.AnswerApproval: answer_approval,
    c.AnswerTool: answer_tool,
    c.SettleTool: settle_tool,
    c.FireTimer: _fire,
    c.MarkRead: _mark_read,
    c.CreateWorkspace: _create_workspace,
    c.ChangeWorkspace: _change_workspace,
    c.CreateKey: _create_key,
    c.RotateKey: _rotate_key,
    c.RevokeKey: _revoke_key,
    c.PutAgent: _put_agent,
    c.PutTeam: _put_team,
    c.PutSkill: _put_skill,
    c.DeleteAgent: _delete_agent,
    c.DeleteTeam: _delete_team,
    c.AddKnowledge: _add_knowledge,
    c.RemoveKnowledge: _remove_knowledge,
}
"""What each command means. Commands of the catalogue that are not here are refused as `unsupported`."""

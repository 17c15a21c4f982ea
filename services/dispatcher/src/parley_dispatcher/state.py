"""What a dispatcher knows of a stream: a fold of its facts, and nothing else.

`evolve(state, fact)` is the only way in which a state changes; loading, taking over and running all go through it, so
that a state in memory always equals the log's. It changes the state in place (one owner holds it) and is otherwise a
pure function. Above it: `decide` (commands), `steps` (runs), `prompt` (what the model is shown). Beside it: `runs` (a
run's data), `workspace_state`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parley_dispatcher.remembered import REMEMBER_MS, Remembered
from parley_dispatcher.runs import Asked, Run, Settled, ToolUse, Turn
from parley_dispatcher.workspace_state import CHANGES, KeyState, Versioned, WorkspaceState
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Attachment, Json, ThreadSeed
from parley_events.codec import Fact
from parley_events.retelling import retold

MAX_SHOWN_CHARS = 200_000
"""More of a tool's result no model is shown, and none is held here; the record has all of it."""
_OUTCOME_SIZE = 400


@dataclass(slots=True)
class ThreadState:
    """A thread. `seq` 0: there is none yet. `open_runs` are those of `runs` that have not ended, oldest first.
    `attachments` and `artifacts` are its shelf: what came with messages, and what tools made, the newest of a name.
    `approvals`: the run and the call that each approval was about. `cleared_seq`: what was posted up to there is not
    shown any more; what a fork took over has seqs of at most 0. `last_ms`: when something was last put on record.
    `size` is about what it holds in memory, in bytes."""

    stream: str
    seq: int = 0
    workspace_id: str = ""
    exists: bool = False
    deleted: bool = False
    expired: bool = False
    user_id: str | None = None
    agent_id: str | None = None
    team_id: str | None = None
    channel: str = "threads"
    system_prompt: str | None = None
    context: Json | None = None
    idle_s: int | None = None
    runs: dict[str, Run] = field(default_factory=dict)
    open_runs: dict[str, Run] = field(default_factory=dict)
    approvals: dict[str, tuple[Run, ToolUse]] = field(default_factory=dict)
    attachments: dict[str, Attachment] = field(default_factory=dict)
    artifacts: dict[str, Attachment] = field(default_factory=dict)
    cleared_seq: int = 0
    outcomes: dict[str, Remembered] = field(default_factory=dict)
    last_ms: int = 0
    size: int = 500

    def current(self) -> Run | None:
        """The top-level run whose turn it is: the oldest one that has not ended."""
        return next((run for run in self.open_runs.values() if run.parent_run_id is None), None)

    @property
    def parked(self) -> bool:
        """Whether all that is open waits for somebody outside, or behind what does."""
        current = self.current()
        return current is not None and current.status == "waiting"

    def idle(self, now_ms: int) -> bool:
        """Whether nothing happened, and nothing ran, for as long as the thread's seed allows."""
        return (
            self.exists
            and self.idle_s is not None
            and not self.open_runs
            and now_ms - self.last_ms >= self.idle_s * 1000
        )


State = ThreadState | WorkspaceState


def initial(stream: str) -> State:
    """The state of a stream nobody has written to."""
    return WorkspaceState(stream) if stream.startswith("ws:") else ThreadState(stream)


def evolve(state: State, fact: Fact) -> None:
    """Fold one fact in. Facts come in the order of their seq; one without a seq changes only what is remembered."""
    if fact.seq is not None:
        if fact.seq != state.seq + 1:
            raise ValueError(f"{state.stream}: fact {fact.seq} after {state.seq}")
        state.seq = fact.seq
        state.workspace_id = fact.workspace_id
    # The first outcome stands: a later refusal of the same id with another body must not take its place.
    if fact.causation_id is not None and fact.causation_id not in state.outcomes:
        state.outcomes[fact.causation_id] = Remembered(
            fact.body_hash, fact.type, fact.seq, fact.time_ms, fact.body.receipt()
        )
        state.size += _OUTCOME_SIZE
        _forget(state, fact.time_ms)
    if isinstance(state, WorkspaceState):
        change = CHANGES.get(type(fact.body))
        if change is not None:
            change(state, fact.body)
        return
    if fact.seq is not None and not isinstance(fact.body, f.ThreadRead):
        # That someone has read it keeps no session from expiring.
        state.last_ms = fact.time_ms
    fold = _THREAD.get(type(fact.body))
    if fold is not None:
        fold(state, fact, fact.body)


def _forget(state: State, now_ms: int) -> None:
    while state.outcomes:
        oldest = next(iter(state.outcomes))
        if now_ms - state.outcomes[oldest].time_ms <= REMEMBER_MS:
            return
        del state.outcomes[oldest]
        state.size -= _OUTCOME_SIZE


# ---- threads


def _open(state: ThreadState, fact: Fact, body: f.ThreadCreated) -> None:
    _seed(state, body.seed)


def _forked(state: ThreadState, fact: Fact, body: f.ThreadForked) -> None:
    """The past is folded as it was, its facts below the thread's own. Whom it asked for approval is the source's."""
    _seed(state, body.seed)
    state.cleared_seq = body.past[0].seq - 1 if body.past else 0
    for past in retold(fact):
        state.seq = past.seq or 0
        _THREAD.get(type(past.body), _nothing)(state, past, past.body)
    state.seq = fact.seq or 0
    state.approvals.clear()


def _nothing(state: ThreadState, fact: Fact, body: f.FactBody) -> None:
    """Changes nothing."""


def _seed(state: ThreadState, seed: ThreadSeed) -> None:
    state.exists = True
    state.user_id, state.agent_id, state.team_id = seed.user_id, seed.agent_id, seed.team_id
    state.channel, state.system_prompt, state.context = seed.channel, seed.system_prompt, seed.context
    state.idle_s = seed.idle_s
    state.size += 2 * len(seed.system_prompt or "") + _size(seed.context)


def _deleted(state: ThreadState, fact: Fact, body: f.ThreadDeleted) -> None:
    state.deleted = True
    _stop_all(state, fact, body.by, "thread deleted")


def _cleared(state: ThreadState, fact: Fact, body: f.ThreadCleared) -> None:
    state.cleared_seq = state.seq
    state.attachments.clear()
    state.artifacts.clear()
    _stop_all(state, fact, body.by, "thread cleared")


def _thread_cancelling(state: ThreadState, fact: Fact, body: f.ThreadCancelling) -> None:
    _stop_all(state, fact, body.by, body.reason)


def _stop_all(state: ThreadState, fact: Fact, by: str, reason: str | None) -> None:
    for run in state.open_runs.values():
        _stop(state, fact, run, by, reason, None)


def _stop(state: ThreadState, fact: Fact, run: Run, by: str, reason: str | None, code: str | None) -> None:
    """From here on the run only ends, and all that it started; who stopped it first is the one on record."""
    if run.stopped:
        return
    _go_on(state, run, fact.time_ms)
    run.status, run.cancelled_by, run.cancel_reason, run.cancel_code = "cancelling", by, reason, code
    run.cancelled_seq, run.cancelled_ms = state.seq, fact.time_ms
    for child in list(state.open_runs.values()):
        if child.parent_run_id == run.run_id:
            _stop(state, fact, child, by, reason, None)


def _go_on(state: ThreadState, run: Run | None, now_ms: int) -> None:
    """A run that was parked has something to do again, and so has the one that waits for it."""
    while run is not None:
        if run.status == "waiting":
            run.status = "running"
            run.parked_ms += max(now_ms - run.parked_since_ms, 0)
        run = state.open_runs.get(run.parent_run_id) if run.parent_run_id else None


def _expired(state: ThreadState, fact: Fact, body: f.ThreadExpired) -> None:
    state.expired = True


def _posted(state: ThreadState, fact: Fact, body: f.MessagePosted) -> None:
    if body.opened is not None:
        _seed(state, body.opened)
    current = state.current()
    if current is not None and current.waits_for == "client_tool" and not current.stopped:
        _move_on(state, current, fact.time_ms)
    state.runs[body.run_id] = Run(
        run_id=body.run_id,
        answer_id=body.answer_id,
        agent_id=body.agent_id,
        agent_version=body.agent_version,
        posted_seq=state.seq,
        posted_ms=fact.time_ms,
        text=body.text,
        context=body.context,
        lead_context=body.lead_context,
        system_prompt=body.system_prompt,
        system_append=body.system_append,
        attachments=body.attachments,
        knowledge_ids=body.knowledge_ids,
        workspace_seq=body.workspace_seq,
        unattended=body.unattended,
        play=body.play,
        command_id=fact.causation_id,
        traceparent=fact.traceparent,
    )
    state.open_runs[body.run_id] = state.runs[body.run_id]
    _shelve(state, state.attachments, body.attachments)
    state.size += 600 + 2 * len(body.text) + _size(body.context, body.lead_context)
    state.size += 2 * (len(body.system_prompt or "") + len(body.system_append or ""))


def _move_on(state: ThreadState, run: Run, now_ms: int) -> None:
    """The user went on with another message: nobody waits for the client any more."""
    for use in run.turns[-1].tools if run.turns else ():
        if use.waits_for is not None and use.child is not None:
            _move_on(state, use.child, now_ms)
        elif use.waits_for is not None:
            use.given_up = "moved_on"
    for member in run.members.values():
        if member.waiting:
            _move_on(state, member, now_ms)
    _go_on(state, run, now_ms)


def _size(*values: Json | None) -> int:
    """About what JSON takes in memory."""
    return sum(2 * len(str(value)) for value in values if value)


def _shelve(state: ThreadState, shelf: dict[str, Attachment], files: tuple[Attachment, ...]) -> None:
    """Put files on a shelf, each in the place of an older one of its name."""
    for file in files:
        shelf.pop(file.name, None)
        shelf[file.name] = file
        state.size += 400


def _child(state: ThreadState, fact: Fact, body: f.ChildStarted) -> None:
    parent = state.runs.get(body.parent_run_id)
    child = state.runs[body.run_id] = Run(
        run_id=body.run_id,
        answer_id="",
        agent_id=body.agent_id,
        agent_version=body.agent_version,
        posted_seq=state.seq,
        posted_ms=fact.time_ms,
        text=body.text,
        parent_run_id=body.parent_run_id,
        unattended=parent.unattended if parent is not None else (),
        traceparent=fact.traceparent,
    )
    state.open_runs[body.run_id] = child
    state.size += 600 + 2 * len(body.text)
    if parent is not None and body.member is not None:
        _member(parent, child, (body.round, body.member))
        return
    for use in parent.turns[-1].tools if parent is not None and parent.turns else ():
        if use.effect_key and ids.child_run_id(state.stream, use.effect_key) == body.run_id:
            use.child = child


def _member(parent: Run, child: Run, place: tuple[int, int]) -> None:
    """A member of a team is asked what the message says, with all that came with it."""
    child.place, parent.members[place] = place, child
    child.text, child.context, child.lead_context = parent.text, parent.context, parent.lead_context
    child.system_prompt, child.system_append = parent.system_prompt, parent.system_append
    child.attachments, child.knowledge_ids = parent.attachments, parent.knowledge_ids
    child.workspace_seq = parent.workspace_seq
    if parent.status == "queued":
        parent.status = "running"


def _called(state: ThreadState, fact: Fact, body: f.ModelCalled) -> None:
    run = state.runs[body.run_id]
    run.call, run.attempt, run.failed, run.model = state.seq, body.attempt, None, body.model
    run.due_at_ms = body.due_at_ms
    if run.started_ms is None:
        run.started_ms = fact.time_ms
    if run.status == "queued":
        run.status = "running"
    _go_on(state, run, fact.time_ms)


def _returned(state: ThreadState, fact: Fact, body: f.ModelReturned) -> None:
    run = state.runs[body.run_id]
    run.call, run.attempt, run.failures = None, 0, 0
    run.usage = run.usage + body.usage
    uses = [
        ToolUse(block.tool_call_id or "", block.name or "", block.arguments, index, block.malformed)
        for index, block in enumerate(block for block in body.blocks if block.kind == "tool")
    ]
    run.turns.append(Turn(body.call, body.blocks, body.stop_reason, uses, run.model))
    state.size += 400 + sum(300 + 2 * len(block.text) for block in body.blocks)
    state.size += _size(*(block.data for block in body.blocks), *(block.arguments for block in body.blocks))
    state.size += sum(2 * len(block.malformed) for block in body.blocks if block.malformed)


def _failed(state: ThreadState, fact: Fact, body: f.ModelFailed) -> None:
    run = state.runs[body.run_id]
    run.call, run.failed, run.failed_ms, run.failures = None, body, fact.time_ms, run.failures + 1
    run.usage = run.usage + body.usage


def _tool_called(state: ThreadState, fact: Fact, body: f.ToolCalled) -> None:
    use = _use(state, body.run_id, body.call, body.index)
    use.called, use.called_ms = state.seq, fact.time_ms
    use.effect_key, use.effect = body.effect_key, body.effect
    use.due_at_ms = body.due_at_ms
    use.message_id = body.message_id or ids.fact_message_id(state.stream, state.seq)


def _tool_returned(state: ThreadState, fact: Fact, body: f.ToolReturned) -> None:
    use = _use(state, body.run_id, body.call, body.index)
    _result(state, use, body.status, body.result)
    use.files = body.files
    if state.runs[body.run_id].posted_seq > state.cleared_seq:
        _shelve(state, state.artifacts, body.files)


def _result(state: ThreadState, use: ToolUse, status: str, result: str) -> None:
    # A turn may have a hundred results of 8 MiB; what nobody will be shown stays on the log.
    use.status, use.result, use.length = status, result[:MAX_SHOWN_CHARS], len(result)
    state.size += 2 * len(use.result)


def _use(state: ThreadState, run_id: str, call: int | None, index: int | None) -> ToolUse:
    for turn in reversed(state.runs[run_id].turns):
        if turn.call == call and index is not None:
            return turn.tools[index]
    raise ValueError(f"{run_id}: no model turn with call {call}")


# ---- what waits


def _waiting(state: ThreadState, fact: Fact, body: f.RunWaiting) -> None:
    run = state.runs[body.run_id]
    run.status, run.parked_since_ms, run.due_at_ms = "waiting", fact.time_ms, None


def _requested(state: ThreadState, fact: Fact, body: f.ApprovalRequested) -> None:
    use = _use(state, body.run_id, body.call, body.index)
    approval = body.approval_id or ids.approval_id(state.stream, state.seq)
    use.asked = Asked(approval, body.due_at_ms, body.input_schema, body.who)
    state.approvals[approval] = (state.runs[body.run_id], use)
    state.size += 500 + _size(body.input_schema)


def _approval_answered(state: ThreadState, fact: Fact, body: f.ApprovalAnswered) -> None:
    asked = _asked(state, body.approval_id)
    asked.decision, asked.comment, asked.arguments = body.decision, body.comment, body.arguments
    state.size += 2 * len(body.comment or "") + _size(body.arguments)
    _go_on(state, state.runs[body.run_id], fact.time_ms)


def _approval_expired(state: ThreadState, fact: Fact, body: f.ApprovalExpired) -> None:
    _asked(state, body.approval_id).decision = "expired"
    _go_on(state, state.runs[body.run_id], fact.time_ms)


def _asked(state: ThreadState, approval_id: str) -> Asked:
    asked = state.approvals[approval_id][1].asked
    if asked is None:
        raise ValueError(f"nobody was asked about {approval_id}")
    return asked


def _tool_answered(state: ThreadState, fact: Fact, body: f.ToolAnswered) -> None:
    """Nothing is left to do for the run while others of its calls still wait for the client."""
    use = _use(state, body.run_id, body.call, body.index)
    _result(state, use, "error" if body.is_error else "ok", body.result)
    if not body.pending:
        _go_on(state, state.runs[body.run_id], fact.time_ms)


def _tool_expired(state: ThreadState, fact: Fact, body: f.ToolExpired) -> None:
    _use(state, body.run_id, body.call, body.index).given_up = "expired"
    _go_on(state, state.runs[body.run_id], fact.time_ms)


def _tool_settled(state: ThreadState, fact: Fact, body: f.ToolSettled) -> None:
    use = _use(state, body.run_id, body.call, body.index)
    use.settled = Settled(body.happened, body.comment)
    state.size += 2 * len(body.comment or "")


# ---- ends


def _cancelling(state: ThreadState, fact: Fact, body: f.RunCancelling) -> None:
    _stop(state, fact, state.runs[body.run_id], body.by, body.reason, body.code)


def _ended(state: ThreadState, fact: Fact, body: f.RunCompleted | f.RunFailed | f.RunCancelled) -> None:
    run = state.runs[body.run_id]
    run.status, run.end, run.call, run.due_at_ms = "ended", body.type, None, None
    state.open_runs.pop(body.run_id, None)
    if isinstance(body, f.RunCancelled) and body.blocks:
        run.turns.append(Turn(body.call or state.seq, body.blocks, "cancelled", [], run.model))
        state.size += sum(300 + 2 * len(block.text) for block in body.blocks)


_THREAD: dict[type[f.FactBody], Callable[[ThreadState, Fact, Any], None]] = {
    f.ThreadCreated: _open,
    f.ThreadForked: _forked,
    f.ThreadDeleted: _deleted,
    f.ThreadCleared: _cleared,
    f.ThreadExpired: _expired,
    f.MessagePosted: _posted,
    f.ChildStarted: _child,
    f.ModelCalled: _called,
    f.ModelReturned: _returned,
    f.ModelFailed: _failed,
    f.ToolCalled: _tool_called,
    f.ToolReturned: _tool_returned,
    f.RunWaiting: _waiting,
    f.ApprovalRequested: _requested,
    f.ApprovalAnswered: _approval_answered,
    f.ApprovalExpired: _approval_expired,
    f.ToolAnswered: _tool_answered,
    f.ToolExpired: _tool_expired,
    f.ToolSettled: _tool_settled,
    f.ThreadCancelling: _thread_cancelling,
    f.RunCancelling: _cancelling,
    f.RunCompleted: _ended,
    f.RunFailed: _ended,
    f.RunCancelled: _ended,
}


__all__ = [
    "REMEMBER_MS",
    "KeyState",
    "Remembered",
    "Run",
    "State",
    "ThreadState",
    "ToolUse",
    "Turn",
    "Versioned",
    "WorkspaceState",
    "evolve",
    "initial",
]

"""What a dispatcher knows of a stream: a fold of its facts, and nothing else.

`evolve(state, fact)` is the only way in which a state changes; loading, taking over and running all go through it, so
that a state in memory always equals the log's. It changes the state in place (one owner holds it) and is otherwise a
pure function. Above it: `decide` (commands), `steps` (runs), `prompt` (what the model is shown).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from parley_events import facts as f
from parley_events.body import AgentSpec, Attachment, Block, Json, TeamSpec, ThreadSeed, Usage
from parley_events.codec import Fact

REMEMBER_MS = 7 * 86_400_000
"""How long a decided command is recognised, in record time."""
MAX_SHOWN_CHARS = 200_000
"""More of a tool's result no model is shown, and none is held here; the record has all of it."""
_OUTCOME_SIZE = 400


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decided command: its body's hash and its outcome."""

    body_hash: str | None
    outcome_type: str
    seq: int | None
    time_ms: int
    receipt: Json


@dataclass(slots=True)
class ToolUse:
    """A call of a tool that a model turn asked for. `called` is the seq of its `tool.called`, which says `effect`, and
    `called_ms` the time of that."""

    tool_call_id: str
    name: str
    arguments: Json
    index: int
    malformed: str | None = None
    called: int | None = None
    called_ms: int = 0
    effect_key: str = ""
    effect: str = ""
    status: str | None = None
    result: str = ""
    """Its beginning, as far as a model is shown it; of `length` characters in all."""
    length: int = 0
    files: tuple[Attachment, ...] = ()

    @property
    def open(self) -> bool:
        return self.status is None


@dataclass(slots=True)
class Turn:
    """A model turn that returned. `model` is the name of the one that said it."""

    call: int
    blocks: tuple[Block, ...]
    stop_reason: str
    tools: list[ToolUse]
    model: str = ""

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if block.kind == "text")


@dataclass(slots=True)
class Run:
    """One run, from its question on. `attempt` counts the attempts at the turn that is due next; `failures` those
    that failed; `call` is the seq of an attempt that has begun and not ended; `model` is what was called last."""

    run_id: str
    answer_id: str
    agent_id: str
    agent_version: int
    posted_seq: int
    posted_ms: int
    text: str
    parent_run_id: str | None = None
    context: Json | None = None
    lead_context: Json | None = None
    system_prompt: str | None = None
    system_append: str | None = None
    attachments: tuple[Attachment, ...] = ()
    knowledge_ids: tuple[str, ...] = ()
    workspace_seq: int | None = None
    command_id: str | None = None
    traceparent: str | None = None
    started_ms: int | None = None
    status: Literal["queued", "running", "waiting", "cancelling", "ended"] = "queued"
    turns: list[Turn] = field(default_factory=list)
    attempt: int = 0
    failures: int = 0
    call: int | None = None
    model: str = ""
    failed: f.ModelFailed | None = None
    failed_ms: int = 0
    cancelled_by: str = ""
    cancel_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    end: str | None = None

    @property
    def ended(self) -> bool:
        return self.status == "ended"

    def tool(self, tool_call_id: str, call: int | None = None) -> ToolUse | None:
        """The tool use of that id; the one of the model turn `call` where the model gave an id twice."""
        for turn in reversed(self.turns):
            for use in turn.tools:
                if use.tool_call_id == tool_call_id and (call is None or turn.call == call):
                    return use
        return None


@dataclass(slots=True)
class ThreadState:
    """A thread. `seq` 0: there is none yet. `open_runs` are those of `runs` that have not ended, oldest first.
    `attachments` and `artifacts` are its shelf: what came with messages, and what tools made, the newest of a name.
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
    runs: dict[str, Run] = field(default_factory=dict)
    open_runs: dict[str, Run] = field(default_factory=dict)
    attachments: dict[str, Attachment] = field(default_factory=dict)
    artifacts: dict[str, Attachment] = field(default_factory=dict)
    cleared_seq: int = 0
    outcomes: dict[str, Remembered] = field(default_factory=dict)
    last_ms: int = 0
    size: int = 500

    def current(self) -> Run | None:
        """The top-level run whose turn it is: the oldest one that has not ended."""
        return next((run for run in self.open_runs.values() if run.parent_run_id is None), None)


@dataclass(slots=True)
class KeyState:
    key_hash: str
    revoked: bool = False


@dataclass(slots=True)
class Versioned:
    """An agent or a team: the newest version, and the digest of the newest one that came from a file."""

    version: int
    spec: AgentSpec | TeamSpec
    digest: str | None
    deleted: bool = False


@dataclass(slots=True)
class WorkspaceState:
    """A workspace: its keys, agents, teams and settings."""

    stream: str
    seq: int = 0
    workspace_id: str = ""
    exists: bool = False
    name: str = ""
    digest: str | None = None
    keys: dict[str, KeyState] = field(default_factory=dict)
    agents: dict[str, Versioned] = field(default_factory=dict)
    teams: dict[str, Versioned] = field(default_factory=dict)
    skills: dict[tuple[str, str], str] = field(default_factory=dict)
    """(agent, slug) → the digest of the newest version that came from a file."""
    knowledge: dict[str, int] = field(default_factory=dict)
    """Its documents, and how many characters each has."""
    outcomes: dict[str, Remembered] = field(default_factory=dict)
    last_ms: int = 0
    size: int = 500


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
        change = _WORKSPACE.get(type(fact.body))
        if change is not None:
            change(state, fact.body)
        return
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


def _open(state: ThreadState, fact: Fact, body: f.ThreadCreated | f.ThreadForked) -> None:
    _seed(state, body.seed)


def _seed(state: ThreadState, seed: ThreadSeed) -> None:
    state.exists = True
    state.user_id, state.agent_id, state.team_id = seed.user_id, seed.agent_id, seed.team_id
    state.channel, state.system_prompt, state.context = seed.channel, seed.system_prompt, seed.context
    state.size += 2 * len(seed.system_prompt or "") + _size(seed.context)


def _deleted(state: ThreadState, fact: Fact, body: f.ThreadDeleted) -> None:
    state.deleted = True
    _stop_all(state, body.by, "thread deleted")


def _cleared(state: ThreadState, fact: Fact, body: f.ThreadCleared) -> None:
    state.cleared_seq = state.seq
    state.attachments.clear()
    state.artifacts.clear()
    _stop_all(state, body.by, "thread cleared")


def _stop_all(state: ThreadState, by: str, reason: str) -> None:
    for run in state.open_runs.values():
        run.status, run.cancelled_by, run.cancel_reason = "cancelling", by, reason


def _expired(state: ThreadState, fact: Fact, body: f.ThreadExpired) -> None:
    state.expired = True


def _posted(state: ThreadState, fact: Fact, body: f.MessagePosted) -> None:
    if body.opened is not None:
        _seed(state, body.opened)
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
        command_id=fact.causation_id,
        traceparent=fact.traceparent,
    )
    state.open_runs[body.run_id] = state.runs[body.run_id]
    _shelve(state, state.attachments, body.attachments)
    state.size += 600 + 2 * len(body.text) + _size(body.context, body.lead_context)
    state.size += 2 * (len(body.system_prompt or "") + len(body.system_append or ""))


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
    state.runs[body.run_id] = Run(
        run_id=body.run_id,
        answer_id="",
        agent_id=body.agent_id,
        agent_version=body.agent_version,
        posted_seq=state.seq,
        posted_ms=fact.time_ms,
        text=body.text,
        parent_run_id=body.parent_run_id,
        traceparent=fact.traceparent,
    )
    state.open_runs[body.run_id] = state.runs[body.run_id]
    state.size += 600 + 2 * len(body.text)


def _called(state: ThreadState, fact: Fact, body: f.ModelCalled) -> None:
    run = state.runs[body.run_id]
    run.call, run.attempt, run.failed, run.model = state.seq, body.attempt, None, body.model
    if run.started_ms is None:
        run.started_ms = fact.time_ms
    if run.status in ("queued", "waiting"):
        run.status = "running"


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


def _tool_returned(state: ThreadState, fact: Fact, body: f.ToolReturned) -> None:
    use = _use(state, body.run_id, body.call, body.index)
    # A turn may have a hundred results of 8 MiB; what nobody will be shown stays on the log.
    use.status, use.result, use.files = body.status, body.result[:MAX_SHOWN_CHARS], body.files
    use.length = len(body.result)
    state.size += 2 * len(use.result)
    if state.runs[body.run_id].posted_seq > state.cleared_seq:
        _shelve(state, state.artifacts, body.files)


def _use(state: ThreadState, run_id: str, call: int, index: int) -> ToolUse:
    for turn in reversed(state.runs[run_id].turns):
        if turn.call == call:
            return turn.tools[index]
    raise ValueError(f"{run_id}: no model turn with call {call}")


def _waiting(state: ThreadState, fact: Fact, body: f.RunWaiting) -> None:
    state.runs[body.run_id].status = "waiting"


def _cancelling(state: ThreadState, fact: Fact, body: f.RunCancelling) -> None:
    run = state.runs[body.run_id]
    run.status, run.cancelled_by, run.cancel_reason = "cancelling", body.by, body.reason
    for child in state.open_runs.values():
        if child.parent_run_id == run.run_id:
            child.status, child.cancelled_by, child.cancel_reason = "cancelling", body.by, body.reason


def _ended(state: ThreadState, fact: Fact, body: f.RunCompleted | f.RunFailed | f.RunCancelled) -> None:
    run = state.runs[body.run_id]
    run.status, run.end, run.call = "ended", body.type, None
    state.open_runs.pop(body.run_id, None)
    if isinstance(body, f.RunCancelled) and body.blocks:
        run.turns.append(Turn(body.call or state.seq, body.blocks, "cancelled", [], run.model))
        state.size += sum(300 + 2 * len(block.text) for block in body.blocks)


_THREAD: dict[type[f.FactBody], Callable[[ThreadState, Fact, Any], None]] = {
    f.ThreadCreated: _open,
    f.ThreadForked: _open,
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
    f.RunCancelling: _cancelling,
    f.RunCompleted: _ended,
    f.RunFailed: _ended,
    f.RunCancelled: _ended,
}


# ---- workspaces


def _workspace_created(state: WorkspaceState, body: f.WorkspaceCreated) -> None:
    state.exists, state.name = True, body.name


def _workspace_changed(state: WorkspaceState, body: f.WorkspaceChanged) -> None:
    state.digest = body.digest


def _key_created(state: WorkspaceState, body: f.KeyCreated) -> None:
    state.keys[body.key_id] = KeyState(body.key_hash)


def _key_rotated(state: WorkspaceState, body: f.KeyRotated) -> None:
    state.keys[body.key_id].key_hash = body.key_hash


def _key_revoked(state: WorkspaceState, body: f.KeyRevoked) -> None:
    state.keys[body.key_id].revoked = True


def _agent_changed(state: WorkspaceState, body: f.AgentChanged) -> None:
    before = state.agents.get(body.spec.agent_id)
    digest = body.digest or (before.digest if before else None)
    state.agents[body.spec.agent_id] = Versioned(body.agent_version, body.spec, digest)


def _agent_deleted(state: WorkspaceState, body: f.AgentDeleted) -> None:
    state.agents[body.agent_id].deleted = True


def _team_changed(state: WorkspaceState, body: f.TeamChanged) -> None:
    before = state.teams.get(body.spec.team_id)
    digest = body.digest or (before.digest if before else None)
    state.teams[body.spec.team_id] = Versioned(body.team_version, body.spec, digest)


def _team_deleted(state: WorkspaceState, body: f.TeamDeleted) -> None:
    state.teams[body.team_id].deleted = True


def _skill_changed(state: WorkspaceState, body: f.SkillChanged) -> None:
    if body.digest is not None:
        state.skills[(body.agent_id, body.slug)] = body.digest


def _knowledge_added(state: WorkspaceState, body: f.KnowledgeAdded) -> None:
    state.knowledge[body.knowledge_id] = len(body.text)


def _knowledge_removed(state: WorkspaceState, body: f.KnowledgeRemoved) -> None:
    state.knowledge.pop(body.knowledge_id, None)


_WORKSPACE: dict[type[f.FactBody], Callable[[WorkspaceState, Any], None]] = {
    f.WorkspaceCreated: _workspace_created,
    f.WorkspaceChanged: _workspace_changed,
    f.KeyCreated: _key_created,
    f.KeyRotated: _key_rotated,
    f.KeyRevoked: _key_revoked,
    f.AgentChanged: _agent_changed,
    f.AgentDeleted: _agent_deleted,
    f.TeamChanged: _team_changed,
    f.TeamDeleted: _team_deleted,
    f.SkillChanged: _skill_changed,
    f.KnowledgeAdded: _knowledge_added,
    f.KnowledgeRemoved: _knowledge_removed,
}

__all__ = [
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

"""Facts: what happened, in the past tense. Written by dispatchers alone, to `parley.events`: the source of truth.

`FACTS` is the whole catalogue. A fact's envelope (seq, epoch, time, run, cause) is `parley_events.codec.Fact`.
A fact is whole: the final record of a text carries all of it.

A run's facts: `message.posted` → `model.called` → `model.returned` | `model.failed` → `tool.called` → `tool.returned`
→ … → `run.completed | run.failed | run.cancelled` (`RUN_ENDS`). The seq of a `model.called` is the *call*: the pieces
of that attempt carry it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from parley_events.body import (
    AgentSpec,
    Attachment,
    Author,
    Block,
    Body,
    Json,
    McpServer,
    Note,
    PastFact,
    TeamPlay,
    TeamSpec,
    ThreadSeed,
    Usage,
    WaitsFor,
)


class FactBody(Body):
    """The base of all facts' bodies."""

    def receipt(self) -> Json:
        """What a repeated command is told of this outcome: the body without what people wrote."""
        return self.model_dump(mode="json", exclude=set(self.content))


class Numbered(FactBody):
    """A fact that makes messages: one integer id each, minted by the appender (0 until then), rising."""

    numbers_wanted: ClassVar[int] = 1
    numbers: tuple[int, ...] = ()

    @property
    def wanted(self) -> int:
        """How many numbers this very fact wants."""
        return self.numbers_wanted


# ---- a thread


class ThreadCreated(FactBody):
    """Its receipt has the seed too: a repeated request is answered with the thread."""

    type: ClassVar[str] = "thread.created"
    content: ClassVar[tuple[str, ...]] = ("seed",)
    seed: ThreadSeed

    def receipt(self) -> Json:
        return self.model_dump(mode="json")


class ThreadUpdated(FactBody):
    """`changes` names the fields that were set."""

    type: ClassVar[str] = "thread.updated"
    content: ClassVar[tuple[str, ...]] = ("title", "metadata")
    title: str | None = None
    pinned: bool | None = None
    archived: bool | None = None
    metadata: Json | None = None
    changes: tuple[str, ...]


class ThreadDeleted(FactBody):
    """What runs in it is cancelled, by whoever deleted it."""

    type: ClassVar[str] = "thread.deleted"
    by: str = ""


class ThreadCleared(FactBody):
    """What runs in it is cancelled, by whoever cleared it."""

    type: ClassVar[str] = "thread.cleared"
    by: str = ""


class ThreadForked(Numbered):
    """The thread was made as a copy of another, up to and with its fact `at`.

    `past` is what was copied, whole, so that nothing of the fork depends on its source: the facts that made the
    source's messages, as they were (`retelling` tells them as facts of the fork); what was unfinished is ended in it.
    `numbers` are the integer ids of its messages. The receipt has the seed too: a repeated request is answered with
    the thread.
    """

    type: ClassVar[str] = "thread.forked"
    content: ClassVar[tuple[str, ...]] = ("title", "seed", "past")
    numbers_wanted: ClassVar[int] = 0
    source_thread_id: str
    at: int
    seed: ThreadSeed
    title: str | None = None
    past: tuple[PastFact, ...] = ()

    @property
    def wanted(self) -> int:
        return sum(numbers_of(one.type) for one in self.past)

    def receipt(self) -> Json:
        return self.model_dump(mode="json", exclude={"past", "numbers"})


class ThreadExpired(FactBody):
    """Nothing happened in the thread for as long as its seed allows (a timer, `due_key` = `session`)."""

    type: ClassVar[str] = "thread.expired"
    idle_since_ms: int


class ThreadRead(FactBody):
    """The user has read all of the thread up to the seq `up_to`. A mark only moves forward: one that names less than
    another before it changes nothing."""

    type: ClassVar[str] = "thread.read"
    user_id: str
    up_to: int


class MessagePosted(Numbered):
    """A message, and what becomes of it. `opened`: the thread was made by this very fact.

    `numbers` are the integer ids of the system row (if a client shows one), the question and the answer. `unattended`:
    what the run cannot wait for (see `commands.PostMessage`). `play`: a team answers it, and the run's agent sums up.
    """

    type: ClassVar[str] = "message.posted"
    content: ClassVar[tuple[str, ...]] = (
        "text",
        "attachments",
        "context",
        "lead_context",
        "system_prompt",
        "system_append",
        "metadata",
        "opened",
    )
    numbers_wanted: ClassVar[int] = 3
    message_id: str
    run_id: str
    answer_id: str
    disposition: Literal["started", "queued"]
    author: Author
    agent_id: str
    agent_version: int
    text: str
    attachments: tuple[Attachment, ...] = ()
    context: Json | None = None
    lead_context: Json | None = None
    knowledge_ids: tuple[str, ...] = ()
    workspace_seq: int | None = None
    metadata: Json = Field(default_factory=dict)
    system_prompt: str | None = None
    system_append: str | None = None
    opened: ThreadSeed | None = None
    unattended: tuple[WaitsFor, ...] = ()
    play: TeamPlay | None = None


# ---- a run


class ChildStarted(FactBody):
    """A run inside a run. An agent asked another: it belongs to the parent's call `tool_call_id`. Or a team answers:
    `member` is the agent's place in the play of the parent's message (from 0), `round` the play's (from 0); it is asked
    what the message says, and `text` and `tool_call_id` are empty. The two differ by `member`."""

    type: ClassVar[str] = "child.started"
    content: ClassVar[tuple[str, ...]] = ("text",)
    run_id: str
    parent_run_id: str
    tool_call_id: str
    agent_id: str
    agent_version: int
    text: str
    member: int | None = None
    round: int = 0


class ModelCalled(FactBody):
    """An attempt at a model turn begins. `turn` counts from 0 within the run, `attempt` from 1 within the turn.

    `shown` says by reference what the model is shown: the thread's facts up to and with that seq. `due_at_ms`: the
    run's deadline, as it stands now (a timer, `due_key` = the run's id); time in which it was parked is not its own.
    """

    type: ClassVar[str] = "model.called"
    run_id: str
    turn: int
    attempt: int
    agent_id: str
    agent_version: int
    model: str
    shown: int
    due_at_ms: int | None = None


class ModelReturned(FactBody):
    """A model turn, whole. `call` is the seq of its `model.called`."""

    type: ClassVar[str] = "model.returned"
    content: ClassVar[tuple[str, ...]] = ("blocks",)
    run_id: str
    call: int
    turn: int
    blocks: tuple[Block, ...]
    stop_reason: str
    usage: Usage


class ModelFailed(FactBody):
    """An attempt that came to nothing. `retry`: another attempt follows, not before `retry_after_ms`."""

    type: ClassVar[str] = "model.failed"
    content: ClassVar[tuple[str, ...]] = ("message",)
    run_id: str
    call: int
    turn: int
    attempt: int
    kind: str
    message: str
    usage: Usage
    retry: bool
    retry_after_ms: int = 0


class ToolCalled(Numbered):
    """The intent to call a tool, on record before the call unless the tool only reads.

    `effect` `client`: the client runs it, and its result is waited for until `due_at_ms` (a timer, `due_key` = the
    fact's `message_id`).
    """

    type: ClassVar[str] = "tool.called"
    content: ClassVar[tuple[str, ...]] = ("arguments",)
    run_id: str
    call: int
    index: int
    tool_call_id: str
    name: str
    arguments: Json
    effect: Literal["read_only", "idempotent", "checkable", "unsafe", "client"]
    effect_key: str
    due_at_ms: int | None = None
    message_id: str = ""


class ToolReturned(Numbered):
    """What the tool answered. `unknown`: it was called, and nobody can say what came of it.

    `files` are what it made: images that the model is shown, and artifacts of the run, by their names.
    """

    type: ClassVar[str] = "tool.returned"
    content: ClassVar[tuple[str, ...]] = ("result", "note", "files")
    run_id: str
    call: int
    index: int
    tool_call_id: str
    name: str
    status: Literal["ok", "error", "unknown", "denied", "cancelled"]
    result: str
    duration_ms: int = 0
    note: Note | None = None
    files: tuple[Attachment, ...] = ()
    message_id: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the model is shown this result as an error."""
        return self.status != "ok"


class ToolAnswered(Numbered):
    """The client's result of a tool that the client runs. `pending`: the ids of the calls that the client has still to
    answer. `numbers` are the integer ids of the result and of the answer that goes on after it."""

    type: ClassVar[str] = "tool.answered"
    content: ClassVar[tuple[str, ...]] = ("result",)
    numbers_wanted: ClassVar[int] = 2
    run_id: str
    tool_call_id: str
    result: str
    is_error: bool = False
    pending: tuple[str, ...] = ()
    call: int | None = None
    index: int | None = None
    message_id: str = ""


class ToolExpired(FactBody):
    """The client gave no result in time: the run goes on, and the model is told so (by a `tool.returned`)."""

    type: ClassVar[str] = "tool.expired"
    run_id: str
    call: int
    index: int
    tool_call_id: str


class ToolSettled(FactBody):
    """A person said what became of a call whose outcome was unknown."""

    type: ClassVar[str] = "tool.settled"
    content: ClassVar[tuple[str, ...]] = ("comment",)
    run_id: str
    tool_call_id: str
    happened: bool
    by: str
    comment: str | None = None
    call: int | None = None
    index: int | None = None


class RunWaiting(FactBody):
    """The run is parked until someone answers; it holds no task, slot or memory. `tool_call_ids`: the calls that wait,
    for whomever; `waits_for` is `approval` as long as one of them waits for that. `due_at_ms`: when the first of them
    expires."""

    type: ClassVar[str] = "run.waiting"
    run_id: str
    waits_for: WaitsFor
    tool_call_ids: tuple[str, ...]
    due_at_ms: int | None = None


class ApprovalRequested(FactBody):
    """A person is asked before a tool is called: with these arguments, or as they edit them within `input_schema`.

    `who`: the users that may answer, beside admins (none: whoever may approve). A timer, `due_key` = its `approval_id`.
    """

    type: ClassVar[str] = "approval.requested"
    content: ClassVar[tuple[str, ...]] = ("arguments", "question", "input_schema")
    approval_id: str = ""
    run_id: str
    call: int
    index: int
    tool_call_id: str
    name: str
    arguments: Json
    question: str | None = None
    input_schema: Json | None = None
    who: tuple[str, ...] = ()
    due_at_ms: int


class ApprovalAnswered(FactBody):
    """`arguments`: as the person edited them; None: as they were asked."""

    type: ClassVar[str] = "approval.answered"
    content: ClassVar[tuple[str, ...]] = ("comment", "arguments")
    approval_id: str
    run_id: str
    decision: Literal["approve", "deny"]
    by: str
    comment: str | None = None
    arguments: Json | None = None


class ApprovalExpired(FactBody):
    """Nobody answered in time: the call is not made, and the model is told so."""

    type: ClassVar[str] = "approval.expired"
    approval_id: str
    run_id: str


class RunCancelling(FactBody):
    """Someone asked the run to stop; from here on no effect starts. `code`: a timer asked, and the run then fails with
    this code instead of being cancelled."""

    type: ClassVar[str] = "run.cancelling"
    content: ClassVar[tuple[str, ...]] = ("reason",)
    run_id: str
    by: str
    reason: str | None = None
    code: str | None = None


class ThreadCancelling(FactBody):
    """Someone asked everything in the thread to stop: `run_ids` are the runs that were open."""

    type: ClassVar[str] = "thread.cancelling"
    content: ClassVar[tuple[str, ...]] = ("reason",)
    by: str
    reason: str | None = None
    run_ids: tuple[str, ...] = ()


class RunCompleted(FactBody):
    """`usage` sums every model call of the run, failed ones too."""

    type: ClassVar[str] = "run.completed"
    run_id: str
    message_id: str
    stop_reason: str
    usage: Usage


class RunFailed(FactBody):
    type: ClassVar[str] = "run.failed"
    content: ClassVar[tuple[str, ...]] = ("message",)
    run_id: str
    message_id: str
    code: str
    message: str
    usage: Usage


class RunCancelled(FactBody):
    """`text` and `call`: what the unfinished model turn had said when it was stopped, as its blocks."""

    type: ClassVar[str] = "run.cancelled"
    content: ClassVar[tuple[str, ...]] = ("reason", "blocks")
    run_id: str
    message_id: str
    by: str
    reason: str | None = None
    call: int | None = None
    blocks: tuple[Block, ...] = ()
    usage: Usage


# ---- a workspace


class WorkspaceCreated(FactBody):
    type: ClassVar[str] = "workspace.created"
    workspace_id: str
    name: str


class WorkspaceChanged(FactBody):
    type: ClassVar[str] = "workspace.changed"
    content: ClassVar[tuple[str, ...]] = ("context", "mcp_servers")
    context: str | None = None
    structures: tuple[str, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    connectors: tuple[str, ...] = ()
    digest: str | None = None


class KeyCreated(FactBody):
    type: ClassVar[str] = "key.created"
    key_id: str
    key_hash: str
    user_id: str
    scopes: tuple[str, ...]
    rate_limit: str | None = None


class KeyRotated(FactBody):
    type: ClassVar[str] = "key.rotated"
    key_id: str
    key_hash: str


class KeyRevoked(FactBody):
    type: ClassVar[str] = "key.revoked"
    key_id: str


class AgentChanged(FactBody):
    type: ClassVar[str] = "agent.changed"
    content: ClassVar[tuple[str, ...]] = ("spec",)
    agent_version: int
    spec: AgentSpec
    digest: str | None = None


class AgentDeleted(FactBody):
    type: ClassVar[str] = "agent.deleted"
    agent_id: str


class TeamChanged(FactBody):
    type: ClassVar[str] = "team.changed"
    team_version: int
    spec: TeamSpec
    digest: str | None = None


class TeamDeleted(FactBody):
    type: ClassVar[str] = "team.deleted"
    team_id: str


class SkillChanged(FactBody):
    """A skill that was given to an agent, whole; one that it learned is a note of a `tool.returned`."""

    type: ClassVar[str] = "skill.changed"
    content: ClassVar[tuple[str, ...]] = ("name", "description", "body")
    agent_id: str
    slug: str
    name: str
    description: str = ""
    body: str
    digest: str | None = None


class KnowledgeAdded(FactBody):
    type: ClassVar[str] = "knowledge.added"
    content: ClassVar[tuple[str, ...]] = ("title", "text")
    knowledge_id: str
    title: str
    text: str
    content_type: str = "text/plain"


class KnowledgeRemoved(FactBody):
    type: ClassVar[str] = "knowledge.removed"
    knowledge_id: str


# ---- without a seq: not part of any stream's story


class CommandRejected(FactBody):
    """A refused command: `code` is one of `REJECTION_CODES`, `message` a sentence for the one who asked."""

    type: ClassVar[str] = "command.rejected"
    command_type: str
    code: str
    message: str


class CommandRepeated(FactBody):
    """A command that was decided before: the first outcome's type, seq and receipt (`first`)."""

    type: ClassVar[str] = "command.repeated"
    command_type: str
    outcome_type: str
    outcome_seq: int | None
    outcome_time_ms: int
    first: Json


class PartitionClaimed(FactBody):
    """A dispatcher takes the partition; this record's offset is its epoch. Key: none.

    `first_unfinished` is the offset of the first command that is not finished yet, if any; `attempt` counts how often
    it is begun alone, this time included (see `CommandTried`).
    """

    type: ClassVar[str] = "partition.claimed"
    owner: str
    first_unfinished: int | None = None
    attempt: int = 1


class CommandTried(FactBody):
    """A new owner is about to decide a command that its predecessor may have died of, and decides it alone: the command
    at the `ce_commandoffset` of this record. If no outcome follows, it ended its dispatcher. Key: none."""

    type: ClassVar[str] = "command.tried"
    attempt: int


REJECTION_CODES: dict[str, str] = {
    "not_found": "the thing does not exist, or is another user's",
    "idempotency_conflict": "the same command id came with another body",
    "exists": "the thing is there already",
    "conflict": "the thing was changed since the writer looked",
    "in_use": "something else needs the thing",
    "too_many": "there are as many as there may be",
    "deleted": "the thread was deleted",
    "session_expired": "the thread expired",
    "unknown_agent": "no such agent in the workspace",
    "not_open": "the run or approval has ended",
    "forbidden": "the principal may not do this",
    "invalid": "the command contradicts itself",
    "unsupported": "this version cannot do it yet",
    "poison": "the command crashed the dispatcher three times",
    "too_large": "what it asks for does not fit a record",
    "object_missing": "a content that it refers to is not in the object store",
}
"""Why a command is refused, as machine-readable codes."""

RUN_ENDS: frozenset[str] = frozenset({RunCompleted.type, RunFailed.type, RunCancelled.type})
"""The one canonical end of a run."""

UNNUMBERED: frozenset[str] = frozenset(
    {CommandRejected.type, CommandRepeated.type, PartitionClaimed.type, CommandTried.type}
)
"""Facts that have no seq."""

FACTS: dict[str, type[FactBody]] = {
    body.type: body
    for body in (
        ThreadCreated,
        ThreadUpdated,
        ThreadDeleted,
        ThreadCleared,
        ThreadForked,
        ThreadExpired,
        ThreadRead,
        MessagePosted,
        ChildStarted,
        ModelCalled,
        ModelReturned,
        ModelFailed,
        ToolCalled,
        ToolReturned,
        ToolAnswered,
        ToolExpired,
        ToolSettled,
        RunWaiting,
        ApprovalRequested,
        ApprovalAnswered,
        ApprovalExpired,
        RunCancelling,
        ThreadCancelling,
        RunCompleted,
        RunFailed,
        RunCancelled,
        WorkspaceCreated,
        WorkspaceChanged,
        KeyCreated,
        KeyRotated,
        KeyRevoked,
        AgentChanged,
        AgentDeleted,
        TeamChanged,
        TeamDeleted,
        SkillChanged,
        KnowledgeAdded,
        KnowledgeRemoved,
        CommandRejected,
        CommandRepeated,
        PartitionClaimed,
        CommandTried,
    )
}
"""Every fact, by its type."""


def numbers_of(kind: str) -> int:
    """How many integer ids a fact of this type has."""
    body = FACTS.get(kind)
    return body.numbers_wanted if body is not None and issubclass(body, Numbered) else 0

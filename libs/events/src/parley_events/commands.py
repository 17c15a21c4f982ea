"""Commands: what is asked of Parley, in the imperative. Written by gateways and other producers to `parley.commands`.

`COMMANDS` is the whole catalogue. A command's envelope (id, stream, workspace, time) is `parley_events.codec.Command`.
Commands to a thread go to the thread's stream, commands about a workspace to the workspace's.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from parley_events.body import (
    AgentSpec,
    Attachment,
    Author,
    Body,
    Json,
    McpServer,
    PastFact,
    Principal,
    TeamPlay,
    TeamSpec,
    ThreadSeed,
    WaitsFor,
)
from parley_events.documents import MAX_CHARS, MAX_TITLE, MOST_ATTACHED, DocumentType
from parley_events.file_names import content_type, file_name
from parley_events.ids import is_sha256, is_uuid
from parley_events.past import sound_past
from parley_events.rates import checked_rate
from parley_events.skills import MAX_BODY, MAX_DESCRIPTION, MAX_NAME, SLUG

MAX_ATTACHMENTS = 100
_MOST_SIZE = 2**53


def _sound(files: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """Attachments as a gateway would send them. A command may come from anyone who may write the topic, and what a
    view cannot hold would stop the projector at the fact that it becomes."""
    if len(files) > MAX_ATTACHMENTS:
        raise ValueError(f"a message may have at most {MAX_ATTACHMENTS} attachments")
    found = []
    for file in files:
        if not is_sha256(file.sha256):
            raise ValueError("an attachment's sha256 must be 64 hexadecimal digits")
        if not 0 <= file.size <= _MOST_SIZE:
            raise ValueError("an attachment's size is no size of a file")
        name = file_name(file.name)
        kind = content_type(file.content_type, name)
        found.append(file.model_copy(update={"name": name, "content_type": kind}))
    return tuple(found)


Attachments = Annotated[tuple[Attachment, ...], AfterValidator(_sound)]


def _uuid(text: str) -> str:
    if not is_uuid(text):
        raise ValueError("the id of a document must be a UUID")
    return text


DocumentId = Annotated[str, AfterValidator(_uuid)]


class CommandBody(Body):
    """The base of all commands' bodies."""

    principal: Principal


# ---- to a thread


class CreateThread(CommandBody):
    """Make the thread that the stream names. Outcome: `thread.created`."""

    type: ClassVar[str] = "thread.create"
    content: ClassVar[tuple[str, ...]] = ("seed",)
    seed: ThreadSeed


class UpdateThread(CommandBody):
    """Change what is named in `changes` (title, pinned, archived, metadata). Outcome: `thread.updated`."""

    type: ClassVar[str] = "thread.update"
    content: ClassVar[tuple[str, ...]] = ("title", "metadata")
    title: str | None = None
    pinned: bool | None = None
    archived: bool | None = None
    metadata: Json | None = None
    changes: tuple[Literal["title", "pinned", "archived", "metadata"], ...]


class DeleteThread(CommandBody):
    """Cancel what runs, then hide the thread for good. Outcome: `thread.deleted`."""

    type: ClassVar[str] = "thread.delete"


class ForkThread(CommandBody):
    """Make the thread that the stream names a copy of another, up to and with its fact `at`. Outcome: `thread.forked`.

    The writer has read the source, and brings along what is copied (`past`, made by `past.Past`) and what the thread
    is made with (`seed`): the source lies on another partition, and may be gone when this is decided.
    """

    type: ClassVar[str] = "thread.fork"
    content: ClassVar[tuple[str, ...]] = ("title", "seed", "past")
    source_thread_id: str
    at: int | None = None
    title: str | None = None
    seed: ThreadSeed | None = None
    past: Annotated[tuple[PastFact, ...], AfterValidator(sound_past)] = ()


class ClearThread(CommandBody):
    """Cancel what runs, then hide the messages so far. Outcome: `thread.cleared`."""

    type: ClassVar[str] = "thread.clear"


class PostMessage(CommandBody):
    """Say something; an agent answers. Outcome: `message.posted`.

    `open` makes the thread first where there is none yet. `agent_version` is what the writer saw as newest (None:
    the dispatcher looks it up), and `workspace_seq` the newest fact of the workspace that it saw: the answer is made
    with settings and documents that are no older. `author` defaults to the principal. `unattended`: what the run, and
    the runs inside it, cannot wait for, since nobody is there to answer: such a call gets an error result at once.
    `play`: a team answers, and `agent_id` names its lead.
    """

    type: ClassVar[str] = "message.post"
    content: ClassVar[tuple[str, ...]] = (
        "text",
        "attachments",
        "context",
        "lead_context",
        "system_prompt",
        "system_append",
        "metadata",
        "open",
    )
    text: str = Field(max_length=1_048_576)
    author: Author | None = None
    agent_id: str | None = None
    agent_version: int | None = None
    open: ThreadSeed | None = None
    attachments: Attachments = ()
    context: Json | None = None
    lead_context: Json | None = None
    knowledge_ids: tuple[DocumentId, ...] = Field(default=(), max_length=MOST_ATTACHED)
    workspace_seq: int | None = None
    metadata: Json = Field(default_factory=dict)
    system_prompt: str | None = None
    system_append: str | None = None
    on_busy: Literal["queue"] = "queue"
    unattended: tuple[WaitsFor, ...] = ()
    play: TeamPlay | None = None


class CancelRun(CommandBody):
    """Stop a run. Outcome: `run.cancelling` (it was running, or parked: its end follows at once), `run.cancelled` (it
    was queued). Of one that is being stopped already: `command.repeated` with the `run.cancelling` before."""

    type: ClassVar[str] = "run.cancel"
    content: ClassVar[tuple[str, ...]] = ("reason",)
    run_id: str
    reason: str | None = None


class CancelThread(CommandBody):
    """Stop every open run of the thread. Outcome: `thread.cancelling`, also when there is none."""

    type: ClassVar[str] = "thread.cancel"
    content: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str | None = None


class AnswerApproval(CommandBody):
    """Answer an open approval; `arguments` replace those that were asked about. Outcome: `approval.answered`."""

    type: ClassVar[str] = "approval.answer"
    content: ClassVar[tuple[str, ...]] = ("comment", "arguments")
    approval_id: str
    decision: Literal["approve", "deny"]
    comment: str | None = None
    arguments: Json | None = None


class AnswerTool(CommandBody):
    """Give the result of a tool that the client runs. Outcome: `tool.answered`."""

    type: ClassVar[str] = "tool.answer"
    content: ClassVar[tuple[str, ...]] = ("result",)
    run_id: str | None = None
    tool_call_id: str
    result: str
    is_error: bool = False


class SettleTool(CommandBody):
    """Say what became of a call whose outcome is unknown; `run_id` where two runs have a call of that id. Outcome:
    `tool.settled`."""

    type: ClassVar[str] = "tool.settle"
    content: ClassVar[tuple[str, ...]] = ("comment",)
    run_id: str | None = None
    tool_call_id: str
    happened: bool
    comment: str | None = None


class MarkRead(CommandBody):
    """Move the principal's read mark of the thread forward to `up_to`, a seq: all that came up to it was read. Outcome:
    `thread.read`."""

    type: ClassVar[str] = "thread.mark_read"
    up_to: int = Field(ge=0)


class FireTimer(CommandBody):
    """Something that was due is due now; its id is a uuid5 of the stream, the key and the time. Only a partition's
    owner asks this, of itself: on `parley.commands` it is refused.

    Outcome: what the timer means (`approval.expired`, `tool.expired`, `thread.expired`, `run.cancelling`); none where
    it means nothing any more.
    """

    type: ClassVar[str] = "timer.fire"
    due_key: str
    due_at_ms: int


# ---- to a workspace


class CreateWorkspace(CommandBody):
    """Make the workspace that the stream names. Outcome: `workspace.created`."""

    type: ClassVar[str] = "workspace.create"
    workspace_id: str
    name: str = Field(min_length=1, max_length=200)


class ChangeWorkspace(CommandBody):
    """Set what every agent of the workspace should know, its structures, the MCP servers that its agents may use, and
    those whose tools every agent has (`connectors`). Outcome: `workspace.changed`."""

    type: ClassVar[str] = "workspace.change"
    content: ClassVar[tuple[str, ...]] = ("context", "mcp_servers")
    context: str | None = None
    structures: tuple[str, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    connectors: tuple[str, ...] = ()
    digest: str | None = None


class CreateKey(CommandBody):
    """Let whoever holds the key with this hash in, so often (`rate_limit`: `60/minute`). Outcome: `key.created`."""

    type: ClassVar[str] = "key.create"
    key_id: str
    key_hash: str = Field(pattern="^[0-9a-f]{64}$")
    user_id: str = Field(min_length=1, max_length=200)
    scopes: tuple[str, ...]
    rate_limit: Annotated[str | None, AfterValidator(checked_rate)] = None


class RotateKey(CommandBody):
    """Replace a key by another secret. Outcome: `key.rotated`."""

    type: ClassVar[str] = "key.rotate"
    key_id: str
    key_hash: str = Field(pattern="^[0-9a-f]{64}$")


class RevokeKey(CommandBody):
    """Let a key in no more. Outcome: `key.revoked`."""

    type: ClassVar[str] = "key.revoke"
    key_id: str


class PutAgent(CommandBody):
    """Make an agent, or give it a new version. Outcome: `agent.changed`.

    `digest` is set by a file that is applied at every start: when the newest version that came from a file has the
    same digest, nothing changes and the outcome is `command.repeated`, so that a restart never undoes an edit, nor a
    deletion. `expected`: the version that the writer saw (0: none); refused when there is another one by now.
    """

    type: ClassVar[str] = "agent.put"
    content: ClassVar[tuple[str, ...]] = ("spec",)
    spec: AgentSpec
    digest: str | None = None
    expected: int | None = Field(default=None, ge=0)


class DeleteAgent(CommandBody):
    """Remove an agent that no team names; its runs go on. Outcome: `agent.deleted`."""

    type: ClassVar[str] = "agent.delete"
    agent_id: str


class PutTeam(CommandBody):
    """Make a team, or give it a new version; `digest` and `expected` as in `agent.put`. Outcome: `team.changed`."""

    type: ClassVar[str] = "team.put"
    spec: TeamSpec
    digest: str | None = None
    expected: int | None = Field(default=None, ge=0)


class DeleteTeam(CommandBody):
    """Remove a team. Outcome: `team.deleted`."""

    type: ClassVar[str] = "team.delete"
    team_id: str


class PutSkill(CommandBody):
    """Give an agent a skill, or another version of it; `digest` as in `agent.put`. Outcome: `skill.changed`."""

    type: ClassVar[str] = "skill.put"
    content: ClassVar[tuple[str, ...]] = ("name", "description", "body")
    agent_id: str
    slug: str = Field(pattern=SLUG)
    name: str = Field(min_length=1, max_length=MAX_NAME)
    description: str = Field(default="", max_length=MAX_DESCRIPTION)
    body: str = Field(min_length=1, max_length=MAX_BODY)
    digest: str | None = None


class AddKnowledge(CommandBody):
    """Add a document that every agent of the workspace may search; `text` is what is kept of it, whatever it came as.
    Outcome: `knowledge.added`."""

    type: ClassVar[str] = "knowledge.add"
    content: ClassVar[tuple[str, ...]] = ("title", "text")
    knowledge_id: DocumentId
    title: str = Field(min_length=1, max_length=MAX_TITLE)
    text: str = Field(min_length=1, max_length=MAX_CHARS)
    content_type: DocumentType = "text/plain"


class RemoveKnowledge(CommandBody):
    """Remove a document. Outcome: `knowledge.removed`."""

    type: ClassVar[str] = "knowledge.remove"
    knowledge_id: str


COMMANDS: dict[str, type[CommandBody]] = {
    body.type: body
    for body in (
        CreateThread,
        UpdateThread,
        DeleteThread,
        ForkThread,
        ClearThread,
        PostMessage,
        CancelRun,
        CancelThread,
        AnswerApproval,
        AnswerTool,
        SettleTool,
        MarkRead,
        FireTimer,
        CreateWorkspace,
        ChangeWorkspace,
        CreateKey,
        RotateKey,
        RevokeKey,
        PutAgent,
        DeleteAgent,
        PutTeam,
        DeleteTeam,
        PutSkill,
        AddKnowledge,
        RemoveKnowledge,
    )
}
"""Every command, by its type."""

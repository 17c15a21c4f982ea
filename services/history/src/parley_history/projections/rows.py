"""The rows of the view, and one batch's changes to them, in memory.

`Needs` says which rows a batch must see, `View` holds them and collects what changes; `parley_history.writes` loads
the one and stores the other. Nothing here knows of a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from parley_events.body import Json, Usage

SYSTEM_PART, MAIN_PART = 0, 1
"""The place of a message among those of one fact."""
NO_USAGE = Usage()


class FactRow(NamedTuple):
    """A fact as it was read, in the columns of its table: what `reads.StoredFact` gives back. `headers`: as JSON."""

    stream: str
    seq: int
    partition: int
    offset: int
    type: str
    run_id: str | None
    workspace_id: str
    time_ms: int
    headers: str
    body: bytes


@dataclass(slots=True)
class ThreadRow:
    id: str
    workspace_id: str
    title: str | None
    agent_id: str | None
    team_id: str | None
    user_id: str | None
    channel: str
    system_prompt: str | None
    context: Json | None
    metadata: Json
    created_ms: int
    updated_ms: int
    active_ms: int
    pinned: bool = False
    archived: bool = False
    forked_from: str | None = None
    forked_at: int | None = None
    last_message_ms: int | None = None
    message_count: int = 0
    cleared_seq: int = 0
    expired: bool = False
    deleted: bool = False
    idle_s: int | None = None
    open_runs: int = 0
    """Its top-level runs that have not ended; counted only where `idle_s` is set."""
    end_user: str | None = None
    read_seq: int = 0
    """The mark of its own user: up to which seq it was read."""
    answered_seq: int = 0
    """That of its newest answer that is shown."""


@dataclass(slots=True)
class MessageRow:
    """`client`: a call of a tool that the client runs, or the client's result. `beside`: the seq of the call with which
    this one makes one message where messages have numbers, and `before` the text said before that one. `told`: how many
    characters of an answer such messages have told before."""

    thread_id: str
    seq: int
    part: int
    id: str
    workspace_id: str
    number: int
    run_id: str | None
    role: str
    content: str | None
    created_ms: int
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_arguments: Json | None = None
    tool_status: str | None = None
    author: Json | None = None
    attachments: list[Json] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)
    lead_context: Json | None = None
    knowledge_ids: list[str] = field(default_factory=list)
    client: bool = False
    beside: int | None = None
    before: str | None = None
    told: int = 0


@dataclass(slots=True)
class FileRow:
    """`kind`: attachment or artifact."""

    thread_id: str
    seq: int
    name: str
    workspace_id: str
    kind: str
    content_type: str
    size: int
    sha256: str
    run_id: str
    created_ms: int


@dataclass(slots=True)
class Call:
    """A tool call whose status may still change: `seq` is that of its message. `due`: the client runs it, and a timer
    waits with it. `first`: for a tool that the client runs, the seq of the call that leads its message."""

    seq: int
    call: int
    index: int
    tool_call_id: str
    status: str
    due: bool = False
    first: int | None = None


@dataclass(slots=True)
class RunRow:
    """`answer_number`: of the answer that comes next; `told`: how much of `answer` earlier ones have told."""

    id: str
    workspace_id: str
    thread_id: str
    partition: int
    parent_run_id: str | None
    agent_id: str
    agent_version: int
    status: str
    message_id: str
    question_id: str | None
    answer_number: int
    posted_seq: int
    created_ms: int
    attempt: int = 1
    usage: Usage = NO_USAGE
    stop_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    answer: str = ""
    last_text: str = ""
    calls: list[Call] = field(default_factory=list)
    ended_seq: int | None = None
    ended_ms: int | None = None
    told: int = 0


@dataclass(slots=True)
class DueRow:
    stream: str
    due_key: str
    partition: int
    workspace_id: str
    run_id: str
    due_ms: int


@dataclass(slots=True)
class ApprovalRow:
    """`status`: open, approved, denied, expired, or closed (its run ended before anyone answered)."""

    id: str
    workspace_id: str
    thread_id: str
    run_id: str
    agent_id: str
    seq: int
    tool_call_id: str
    name: str
    arguments: Json
    question: str | None
    input_schema: Json | None
    who: list[str]
    created_ms: int
    due_ms: int
    status: str = "open"
    answered_by: str | None = None
    comment: str | None = None
    edited: Json | None = None
    answered_ms: int | None = None


@dataclass(slots=True)
class NoteRow:
    workspace_id: str
    id: str
    kind: str
    title: str
    body: str | None
    agent_id: str
    run_id: str
    thread_id: str
    seq: int
    created_ms: int


@dataclass(slots=True)
class SkillRow:
    workspace_id: str
    agent_id: str
    slug: str
    id: str
    name: str
    description: str
    body: str
    updated_ms: int


@dataclass(slots=True)
class KnowledgeRow:
    workspace_id: str
    id: str
    title: str
    content_type: str
    characters: int
    created_ms: int


@dataclass(slots=True)
class PassageRow:
    """`title` is its document's: it is among the words by which the passage is found."""

    workspace_id: str
    knowledge_id: str
    number: int
    text: str
    title: str


@dataclass(slots=True)
class WorkspaceRow:
    workspace_id: str
    name: str
    context: str | None = None
    structures: list[str] = field(default_factory=list)
    mcp_servers: list[Json] = field(default_factory=list)
    connectors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class KeyRow:
    workspace_id: str
    id: str
    key_hash: str
    user_id: str
    scopes: list[str]
    rate_limit: str | None
    created_ms: int
    revoked: bool = False


@dataclass(slots=True)
class AgentRow:
    workspace_id: str
    id: str
    version: int
    uuid: str
    spec: Json
    seq: int
    deleted: bool = False


@dataclass(slots=True)
class TeamRow:
    workspace_id: str
    id: str
    version: int
    uuid: str
    spec: Json


K = TypeVar("K")
R = TypeVar("R")


class Table(Generic[K, R]):
    """Rows by key: those that were loaded, and those that this batch changed."""

    def __init__(self, key: Callable[[R], K], loaded: Iterable[R] = ()) -> None:
        self._key = key
        self._rows: dict[K, R] = {key(row): row for row in loaded}
        self.changed: dict[K, R] = {}

    def get(self, key: K) -> R | None:
        """The row as it stands; change it only through `change`."""
        return self._rows.get(key)

    def all(self) -> list[R]:
        """Every row that is here."""
        return list(self._rows.values())

    def drop(self, key: K) -> None:
        """Let go of a row: it is neither there nor changed."""
        self._rows.pop(key, None)
        self.changed.pop(key, None)

    def change(self, key: K) -> R | None:
        """The row, marked as changed; None when there is none."""
        row = self._rows.get(key)
        if row is not None:
            self.changed[key] = row
        return row

    def put(self, row: R) -> None:
        """A new row, or another in its place."""
        key = self._key(row)
        self._rows[key] = self.changed[key] = row


@dataclass(slots=True)
class Needs:
    """The keys of the rows that a batch may change, and did not make itself."""

    threads: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    keys: set[tuple[str, str]] = field(default_factory=set)
    workspaces: set[str] = field(default_factory=set)
    approvals: set[str] = field(default_factory=set)


def _id(row: Any) -> str:
    text: str = row.id
    return text


def _key_of_key(row: KeyRow) -> tuple[str, str]:
    return row.workspace_id, row.id


def _key_of_workspace(row: WorkspaceRow) -> str:
    return row.workspace_id


class View:
    """The rows that one transaction may touch, and what becomes of them. `partition`: whose facts are being folded."""

    def __init__(
        self,
        threads: Iterable[ThreadRow] = (),
        runs: Iterable[RunRow] = (),
        keys: Iterable[KeyRow] = (),
        workspaces: Iterable[WorkspaceRow] = (),
        approvals: Iterable[ApprovalRow] = (),
    ) -> None:
        self.partition = 0
        self.facts: list[FactRow] = []
        self.threads: Table[str, ThreadRow] = Table(_id, threads)
        self.runs: Table[str, RunRow] = Table(_id, runs)
        self.keys: Table[tuple[str, str], KeyRow] = Table(_key_of_key, keys)
        self.workspaces: Table[str, WorkspaceRow] = Table(_key_of_workspace, workspaces)
        self.approvals: Table[str, ApprovalRow] = Table(_id, approvals)
        self.approvals_closed: dict[str, int] = {}
        """Run → the time at which it ended, and its open approvals with it; applied after `approvals`."""
        self.messages: dict[tuple[str, int, int], MessageRow] = {}
        self.files: dict[tuple[str, int, str], FileRow] = {}
        self.cleared: dict[str, int] = {}
        """Thread → its messages, files and approvals with a smaller seq are taken away."""
        self.call_statuses: dict[tuple[str, int], str] = {}
        """(thread, seq) of a call's message made earlier → its status now."""
        self.dues: dict[tuple[str, str], DueRow | None] = {}
        self.dues_by_run: dict[str, list[tuple[str, str]]] = {}
        """Run → the keys of `dues` under which something of it was set."""
        self.dues_of: dict[tuple[str, str], None] = {}
        """(stream, run) whose dues are all taken away, after `dues` was applied."""
        self.notes: dict[tuple[str, str], NoteRow] = {}
        self.skills: dict[tuple[str, str, str], SkillRow] = {}
        self.knowledge: dict[tuple[str, str], KnowledgeRow | None] = {}
        """(workspace, document) → its row; None: it was removed."""
        self.passages: dict[tuple[str, str], list[PassageRow]] = {}
        self.agents: dict[tuple[str, str, int], AgentRow] = {}
        self.agents_deleted: dict[tuple[str, str], int] = {}
        """(workspace, agent) → its versions with a smaller seq are deleted."""
        self.teams: dict[tuple[str, str], TeamRow | None] = {}

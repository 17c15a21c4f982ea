"""What history answers to the other services: the shapes of its internal read API, as both sides know them.

All paths are below `/internal`, guarded by `Authorization: Bearer <PARLEY_INTERNAL_TOKEN>`. Every read takes
`min_position` (may be repeated, see `positions`) and `wait_ms` (default 2000, at most 10000): it waits until the view
has come that far, else 503 `{"error": "behind"}`. 404 `{"error": "not_found"}`. 503 `{"error": "unavailable"}` while
PostgreSQL is away.

    GET /positions                                         → Positions
    GET /partitions/{p}                                    → PartitionView
    GET /due?partitions=0,1,…&until_ms=                    → DueList          (of each at most 500, oldest first)
    GET /stops                                             → StopList         (partitions that stand still)
    GET /skips?limit=                                      → SkipList         (newest first)
    POST /skips  Skip                                      → SkipMade         (404: nothing stands still there; 409
        `skipped_before`: by somebody else, or for another reason)
    GET /streams/{stream}/facts?after=&limit=&order=&workspace_id=   → FactsPage
        (limit ≤ 1000; order asc|desc, with desc `after` means below; 0: from the newest)
    GET /workspaces/{w}/facts?partition=&from=&below=&limit=&user_id=&thread=   → FactsBetween
        (of threads, by their offsets: from `from` to below `below`; `user_id`: of those that this user sees; `thread`
        may be repeated: of those alone; limit ≤ 1000)
    GET /workspaces/{w}/owners?at=<thread>@<offset>        → OwnerList        (`at` may be repeated, 1000 times at most)
    GET /workspaces/{w}                                    → WorkspaceView
    GET /workspaces/{w}/keys                               → KeyList
    GET /workspaces/{w}/keys/by-hash/{sha256 hex}          → KeyView
    GET /workspaces/{w}/agents                             → AgentList        (newest versions, not the deleted)
    GET /workspaces/{w}/agents/{agent_id}?version=         → AgentView        (no version: the newest)
    GET /workspaces/{w}/agents/{agent_id}/versions?version=&limit=&cursor=   → AgentVersions   (newest first)
    GET /workspaces/{w}/teams                              → TeamList
    GET /workspaces/{w}/teams/{team_id}/versions?version=&limit=&cursor=     → TeamVersions
        (404 while the agent or team is deleted; `version`: that one alone)
    GET /workspaces/{w}/threads?user_id=&agent_id=&team_id=&pinned=&archived=&channel=&limit=&cursor=   → ThreadPage
    GET /workspaces/{w}/threads/{id}                       → ThreadView       (404 when deleted)
    GET /workspaces/{w}/threads/{id}/messages?limit=&cursor=&order=&roles=   → MessagePage
        (these two, and the run, with `as_of_seq=` or `as_of_ms=`: as they were then; 400 `as_of_ahead`, 413
        `too_much_history`)
    GET /workspaces/{w}/messages?thread_id=|user_id=&agent_id=&tools=&before=|after=&limit=   → NumberedPage
        (by their numbers, ascending: the newest below `before`, the oldest above `after`, else the newest)
    GET /workspaces/{w}/client-call?user_id=&agent_id=&tool_call_id=   → MessageView
    GET /workspaces/{w}/threads/{id}/messages/{message_id}   → MessageView
    GET /workspaces/{w}/said?thread_id=|user_id=&agent_id=&channel=&before=&limit=   → MessageList
        (questions and answers, ascending: the newest, or those with numbers below `before`; `channel` may be repeated)
    GET /workspaces/{w}/inbox?user_id=&agent_id=&limit=    → Inbox
    GET /workspaces/{w}/unread?user_id=&agent_id=&after=&limit=   → UnreadPage   (by id, those above `after`)
    GET /workspaces/{w}/deleted?user_id=&agent_id=&team_id=&channel=   → Count         (threads that were deleted)
    GET /workspaces/{w}/threads/{id}/files?kind=&name=&sha256=&limit=&cursor=   → FilePage
        (the newest of each kind and name, newest first; with `sha256` the one with these bytes)
    GET /workspaces/{w}/runs?agent_id=&user_id=&thread_id=&until_ms=&limit=&cursor=   → OpenRunPage
        (runs that have not ended, oldest first; `until_ms`: asked for by then)
    GET /workspaces/{w}/runs/{run_id}                      → RunView
    GET /workspaces/{w}/approvals?status=&thread_id=&agent_id=&user_id=&answerer=&limit=&cursor=   → ApprovalPage
        (newest first; in threads that `user_id` sees, or that `answerer` may answer; neither: all)
    GET /workspaces/{w}/approvals/{id}                     → ApprovalView
    GET /workspaces/{w}/notes?kind=&limit=                 → NoteList         (decisions, milestones; newest first)
    GET /workspaces/{w}/skills?agent_id=&query=            → SkillList        (without bodies, best match first)
    GET /workspaces/{w}/skills/{slug}?agent_id=            → SkillView
    GET /workspaces/{w}/knowledge?id=&limit=&cursor=       → DocumentPage     (without contents, newest first; `id` may
        be repeated: those alone)
    GET /workspaces/{w}/knowledge/{id}                     → DocumentView
    GET /workspaces/{w}/passages?query=&limit=             → PassageList      (of all documents, best match first)

Every answer says in the header `parley-position` how far the view was at least when it was read: the stream's position
where one stream is asked about and the query has it, otherwise that of its partition, or of all.

`cursor` is opaque; a bad one is 400 `{"error": "bad_cursor"}`. Limits out of 1…200 are 400 `{"error": "bad_limit"}`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parley_events.body import AgentSpec, Attachment, Author, Json, McpServer, Shape, TeamSpec, Usage

POSITION_HEADER = "parley-position"
"""Positions as `positions.written` joins them."""


class PartitionPositionView(Shape):
    """Where the projection of a partition stands. Partitions without a row stand at 0, epoch -1, number 0."""

    partition: int
    next_offset: int
    epoch: int
    last_number: int


class Positions(Shape):
    partitions: tuple[PartitionPositionView, ...]


class PartitionView(Shape):
    """What a new owner of a partition starts from: the position, and the threads with runs that have not ended.

    `waiting` are those whose every open run is parked: they need no task. `claims`: the offsets of the last claims
    below the position, oldest first, so that a reader can start a while before it and still tell whom to believe.
    """

    partition: int
    next_offset: int
    epoch: int
    last_number: int
    open_threads: tuple[str, ...]
    waiting_threads: tuple[str, ...]
    claims: tuple[int, ...] = ()


class StopView(Shape):
    """A partition of the view that stands still at `offset`, and why; what its record's headers tell. Not `skippable`:
    there is no record."""

    partition: int
    offset: int
    fault: str
    skippable: bool
    type: str | None
    stream: str | None
    seq: str | None
    workspace_id: str | None
    size: int
    stopped_at: str


class StopList(Shape):
    items: tuple[StopView, ...]


class Skip(Shape):
    """Have the view skip the record at which a partition stands still."""

    partition: int = Field(ge=0, le=255)
    offset: int = Field(ge=0, lt=2**62)
    reason: str = Field(min_length=1, max_length=1000)
    user_id: str
    key_id: str


class SkipView(Shape):
    """A record that was skipped: what its headers tell, why it could not be folded (`fault`), and who skipped it when
    and for what `reason`."""

    partition: int
    offset: int
    fault: str
    type: str | None
    stream: str | None
    seq: str | None
    workspace_id: str | None
    size: int
    reason: str
    user_id: str
    skipped_at: str


class SkipMade(SkipView):
    """`repeated`: it was asked for before."""

    repeated: bool


class SkipList(Shape):
    items: tuple[SkipView, ...]
    total: int


class Due(Shape):
    stream: str
    workspace_id: str
    due_key: str
    due_at_ms: int


class DueList(Shape):
    items: tuple[Due, ...]


class StoredFact(Shape):
    """A fact as it was read from the log: its headers by name, and its body. `codec.fact_from` decodes it."""

    offset: int
    time_ms: int
    headers: dict[str, str]
    body: Json


class FactsPage(Shape):
    """Facts of one stream; fewer than `limit` also when they are large (about 32 MiB), so go on until `last_seq`, which
    is the newest seq that the view has of the stream (0: none).
    (`next_offset`, `epoch`) is where the view of the stream's partition stood in the same snapshot."""

    items: tuple[StoredFact, ...]
    last_seq: int
    partition: int
    next_offset: int
    epoch: int


class FactsBetween(Shape):
    """Facts of many threads of one partition, in its order; a page may have few, or none, and not be the last: go on
    from `next_offset` until that is the end that was asked for. Of a deleted thread it has the deletion, and nothing
    before it."""

    items: tuple[StoredFact, ...]
    next_offset: int


class OwnerView(Shape):
    """Whose a thread is, deleted or not (`user_id` None: shared). `seq`: its newest fact below the offset that the view
    has (0: none)."""

    id: str
    user_id: str | None
    agent_id: str | None
    team_id: str | None
    seq: int


class OwnerList(Shape):
    items: tuple[OwnerView, ...]


class WorkspaceView(Shape):
    """`documents`: how many it has. `seq`: that of its newest fact in the view."""

    id: str
    name: str
    context: str | None = None
    structures: tuple[str, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    connectors: tuple[str, ...] = ()
    documents: int = 0
    seq: int = 0


class KeyView(Shape):
    id: str
    key_hash: str
    workspace_id: str
    workspace: str
    user_id: str
    scopes: tuple[str, ...]
    rate_limit: str | None
    created_at: str
    revoked: bool


class KeyList(Shape):
    items: tuple[KeyView, ...]


class AgentView(Shape):
    """A version of an agent. `uuid` names it in contracts that know only UUIDs."""

    id: str
    uuid: str
    version: int
    spec: AgentSpec
    deleted: bool = False


class AgentList(Shape):
    items: tuple[AgentView, ...]


class TeamView(Shape):
    id: str
    uuid: str
    version: int
    spec: TeamSpec


class TeamList(Shape):
    items: tuple[TeamView, ...]


class AgentVersion(AgentView):
    created_at: str


class AgentVersions(Shape):
    items: tuple[AgentVersion, ...]
    next_cursor: str | None
    total: int


class TeamVersion(TeamView):
    created_at: str


class TeamVersions(Shape):
    items: tuple[TeamVersion, ...]
    next_cursor: str | None
    total: int


class ThreadView(Shape):
    """`user_id` None: shared by the workspace. Times are RFC 3339. `position`: the thread's newest fact in the view.
    `cleared_seq`: what was posted up to there is not shown any more (below 0: it is a fork, and has a past)."""

    id: str
    workspace_id: str
    title: str | None
    agent_id: str | None
    team_id: str | None = None
    user_id: str | None
    channel: str
    pinned: bool
    archived: bool
    system_prompt: str | None
    context: Json | None
    metadata: Json
    created_at: str
    updated_at: str
    last_message_at: str | None
    message_count: int
    expired: bool = False
    end_user: str | None = None
    idle_s: int | None = None
    cleared_seq: int = 0
    position: str


class ThreadPage(Shape):
    items: tuple[ThreadView, ...]
    next_cursor: str | None
    total: int


class ToolCallView(Shape):
    """The envelope of a tool call."""

    id: str
    name: str
    arguments: Json
    status: Literal["running", "waiting", "ok", "error", "unknown", "denied", "cancelled"]
    result: str | None = None
    is_error: bool | None = None


class MessageView(Shape):
    """A message. Calls of tools and their results are messages of their own, both of role `tool`: a call has
    `tool_calls`, a result has `content`; both have `tool_call_id`. A run makes exactly one of role `assistant`."""

    id: str
    number: int
    seq: int
    thread_id: str
    run_id: str | None
    role: Literal["user", "assistant", "tool", "system"]
    content: str | None
    tool_calls: tuple[ToolCallView, ...] | None = None
    tool_call_id: str | None = None
    author: Author | None = None
    attachments: tuple[Attachment, ...] = ()
    lead_context: Json | None = None
    knowledge_ids: tuple[str, ...] = ()
    metadata: Json = Field(default_factory=dict)
    client: bool = False
    created_at: str


class MessagePage(Shape):
    items: tuple[MessageView, ...]
    next_cursor: str | None
    total: int


class NumberedPage(Shape):
    """Messages as contracts with integer ids show them. A call of a tool that the client runs is one message with those
    made beside it: its number is the one that was kept for the answer, its content what was said before (None:
    nothing). The answer after it has a number of its own, and what is new of the text. `client`: such a call, or its
    result."""

    items: tuple[MessageView, ...]
    total: int
    has_more: bool


class MessageList(Shape):
    items: tuple[MessageView, ...]


class Inbox(Shape):
    """Answers of a user's threads with an agent beyond what the user has read in each: the newest, ascending. `unread`:
    how many there are in all."""

    items: tuple[MessageView, ...]
    unread: int


class UnreadThread(Shape):
    """A thread with something unread. `answered_seq`: that of its newest answer."""

    thread_id: str
    answered_seq: int


class UnreadPage(Shape):
    items: tuple[UnreadThread, ...]


class Count(Shape):
    count: int


class FileView(Shape):
    """A file of a thread: what came with a message, or what a tool made. `seq` is that of its fact."""

    name: str
    kind: Literal["attachment", "artifact"]
    content_type: str
    size: int
    sha256: str
    seq: int
    run_id: str
    created_at: str


class FilePage(Shape):
    items: tuple[FileView, ...]
    next_cursor: str | None
    total: int


class RunError(Shape):
    code: str
    message: str


class RunView(Shape):
    """A run. `posted_seq` is the seq of the fact its feed begins with; `answer` the text of all turns so far, and
    `last_text` that of the last turn with a result; `ended_seq` that of its end."""

    id: str
    thread_id: str
    workspace_id: str
    parent_run_id: str | None = None
    agent_id: str
    agent_version: int
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    attempt: int
    usage: Usage
    stop_reason: str | None
    error: RunError | None
    message_id: str
    question_id: str | None
    answer: str
    last_text: str
    posted_seq: int
    ended_seq: int | None
    created_at: str
    ended_at: str | None


class OpenRunView(Shape):
    """A run that has not ended, and whose thread it is in (`user_id` None: shared)."""

    id: str
    thread_id: str
    agent_id: str
    user_id: str | None
    status: Literal["queued", "running", "waiting"]
    created_at: str


class OpenRunPage(Shape):
    items: tuple[OpenRunView, ...]
    next_cursor: str | None


class ApprovalView(Shape):
    """What a person is, or was, asked. `closed`: its run ended before anyone answered. `edited`: the arguments as who
    approved changed them. `user_id`: whose thread it is in (None: shared)."""

    id: str
    thread_id: str
    run_id: str
    agent_id: str
    user_id: str | None
    seq: int
    tool_call_id: str
    name: str
    arguments: Json
    question: str | None
    input_schema: Json | None
    who: tuple[str, ...]
    status: Literal["open", "approved", "denied", "expired", "closed"]
    created_at: str
    expires_at: str
    answered_by: str | None
    comment: str | None
    edited: Json | None
    answered_at: str | None


class ApprovalPage(Shape):
    items: tuple[ApprovalView, ...]
    next_cursor: str | None
    total: int


class NoteView(Shape):
    id: str
    kind: Literal["decision", "milestone"]
    title: str
    body: str | None
    agent_id: str
    run_id: str
    thread_id: str
    created_at: str


class NoteList(Shape):
    items: tuple[NoteView, ...]


class SkillView(Shape):
    """`body` is Markdown with a head (None in lists)."""

    slug: str
    name: str
    agent_id: str
    description: str = ""
    body: str | None
    updated_at: str


class SkillList(Shape):
    items: tuple[SkillView, ...]


class DocumentView(Shape):
    """A document of a workspace. `content` is its text (None in lists), of `characters` characters."""

    id: str
    title: str
    content_type: str
    characters: int
    created_at: str
    content: str | None = None


class DocumentPage(Shape):
    items: tuple[DocumentView, ...]
    next_cursor: str | None
    total: int


class PassageView(Shape):
    """A part of a document; `number` counts from 0 within it."""

    knowledge_id: str
    title: str
    number: int
    text: str


class PassageList(Shape):
    items: tuple[PassageView, ...]

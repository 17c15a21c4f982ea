"""A run as its facts tell it: its turns, their calls of tools, and what those wait for. Data, and questions to it.

`state` folds facts into it; `steps` asks what is due, `prompt` what the model is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from parley_events import facts as f
from parley_events.body import Attachment, Block, Json, TeamPlay, Usage, WaitsFor


@dataclass(slots=True)
class Asked:
    """A person was asked about a call. `arguments`: what an approval put in place of the model's."""

    approval_id: str
    due_at_ms: int
    input_schema: Json | None
    who: tuple[str, ...]
    decision: Literal["approve", "deny", "expired"] | None = None
    comment: str | None = None
    arguments: Json | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a person said later of a call whose outcome was unknown."""

    happened: bool
    comment: str | None


@dataclass(slots=True)
class ToolUse:
    """A call of a tool that a model turn asked for. `called` is the seq of its `tool.called`, `called_ms` the
    time of that, which says `effect`.

    `asked`: a person was asked about it. `message_id` and `due_at_ms` are those of a call that the client runs;
    `given_up` says why its result is waited for no more. `child` is the run that it started (`ask_agent`).
    """

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
    asked: Asked | None = None
    message_id: str = ""
    due_at_ms: int | None = None
    given_up: Literal["expired", "moved_on"] | None = None
    settled: Settled | None = None
    child: Run | None = field(default=None, repr=False)

    @property
    def open(self) -> bool:
        return self.status is None

    @property
    def given(self) -> Json:
        """The arguments to call it with: the model's, unless a person approved others."""
        if self.asked is not None and self.asked.arguments is not None:
            return self.asked.arguments
        return self.arguments

    @property
    def waits_for(self) -> WaitsFor | None:
        """Whom the call waits for; None: it has its result, or something is to be done about it."""
        if not self.open:
            return None
        if self.asked is not None and self.asked.decision is None:
            return "approval"
        if self.called is not None and self.effect == "client":
            return "client_tool" if self.given_up is None else None
        if self.child is not None and self.child.status == "waiting":
            return self.child.waits_for
        return None

    @property
    def expires_ms(self) -> int | None:
        """When it has waited long enough."""
        if self.child is not None:
            return self.child.expires_ms
        return self.due_at_ms if self.asked is None or self.asked.decision is not None else self.asked.due_at_ms


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
    that failed; `call` is the seq of an attempt that has begun and not ended; `model` is what was called last.

    `unattended`: what it cannot wait for, as its message says. `due_at_ms` is its deadline while it is not parked,
    `parked_ms` the time that it was parked. A run that is stopped has the seq and time of the fact that says so, and a
    `cancel_code` where it is to fail instead.

    A run with a `play` is answered by a team: `members` are the runs in which they speak, by (round, place in the
    play), and the run itself then sums up. Such a member's run has its own `place`, and the message as its parent has.
    """

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
    unattended: tuple[WaitsFor, ...] = ()
    play: TeamPlay | None = None
    members: dict[tuple[int, int], Run] = field(default_factory=dict, repr=False)
    place: tuple[int, int] | None = None
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
    due_at_ms: int | None = None
    parked_since_ms: int = 0
    parked_ms: int = 0
    cancelled_by: str = ""
    cancel_reason: str | None = None
    cancel_code: str | None = None
    cancelled_seq: int = 0
    cancelled_ms: int = 0
    usage: Usage = field(default_factory=Usage)
    end: str | None = None

    @property
    def ended(self) -> bool:
        return self.status == "ended"

    @property
    def taken_over(self) -> bool:
        """Whether it ran in the thread that this one was forked from."""
        return self.posted_seq <= 0

    @property
    def stopped(self) -> bool:
        """Whether nothing new may begin in it."""
        return self.status in ("cancelling", "ended")

    @property
    def waiting(self) -> tuple[ToolUse, ...]:
        """The calls that wait for somebody: of its last turn, and of its members'."""
        own = [use for use in self.turns[-1].tools if use.waits_for is not None] if self.turns else []
        return (*own, *(use for member in self.members.values() for use in member.waiting))

    @property
    def waits_for(self) -> WaitsFor | None:
        """Whom it waits for: a person, as long as one of its calls does."""
        kinds = {use.waits_for for use in self.waiting}
        if not kinds:
            return None
        return "approval" if "approval" in kinds else "client_tool"

    @property
    def expires_ms(self) -> int | None:
        """When the first of its waiting calls expires."""
        return min((use.expires_ms for use in self.waiting if use.expires_ms is not None), default=None)

    def uses(self) -> Iterator[tuple[Turn, ToolUse]]:
        """Every call of a tool, oldest first, each with its turn."""
        for turn in self.turns:
            for use in turn.tools:
                yield turn, use

    def deadline_ms(self, seconds: int, now_ms: int) -> int:
        """When it has run for `seconds`, as things stand; the time that it was parked is not its own."""
        return (now_ms if self.started_ms is None else self.started_ms) + self.parked_ms + seconds * 1000

    def tool(self, tool_call_id: str, call: int | None = None) -> ToolUse | None:
        """The tool use of that id; the one of the model turn `call` where the model gave an id twice."""
        for turn in reversed(self.turns):
            for use in turn.tools:
                if use.tool_call_id == tool_call_id and (call is None or turn.call == call):
                    return use
        return None

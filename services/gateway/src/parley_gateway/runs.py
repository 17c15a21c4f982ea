"""A run as its facts tell it: a pure fold, equal to what history's view has of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.body import Block, Usage
from parley_events.clock import rfc3339
from parley_events.codec import Fact
from parley_events.ids import answer_id
from parley_events.reads import MessageView, RunError, RunView


@dataclass(slots=True)
class RunTold:
    """What the facts so far say of one run. Fold them in order, beginning with its `message.posted`."""

    run_id: str
    thread_id: str
    workspace_id: str = ""
    agent_id: str = ""
    agent_version: int = 0
    status: str = "queued"
    attempt: int = 1
    usage: Usage = field(default_factory=Usage)
    stop_reason: str | None = None
    error: RunError | None = None
    question_id: str | None = None
    posted_seq: int = 0
    answer: str = ""
    last_text: str = ""
    created_ms: int = 0
    ended_ms: int | None = None
    ended_seq: int | None = None
    waits_for: str | None = None
    """`approval` or `client_tool` while it is parked."""
    pending: tuple[str, ...] = ()
    """The calls that it is parked for."""

    def fold(self, fact: Fact) -> None:
        """Take one more fact of the run in."""
        body = fact.body
        if self.waits_for is not None and _goes_on(body):
            self.status, self.waits_for, self.pending = "running", None, ()
        if isinstance(body, f.MessagePosted):
            self.workspace_id, self.created_ms, self.posted_seq = fact.workspace_id, fact.time_ms, fact.seq or 0
            self.agent_id, self.agent_version = body.agent_id, body.agent_version
            self.question_id = body.message_id
            self.status = "running" if body.disposition == "started" else "queued"
        elif isinstance(body, f.ChildStarted) and body.member is not None:
            self.status = "running"
        elif isinstance(body, f.ModelCalled):
            self.status, self.attempt = "running", body.attempt
            self.agent_id, self.agent_version = body.agent_id, body.agent_version
        elif isinstance(body, f.ModelReturned):
            self.last_text = text_of(body.blocks)
            self.answer += self.last_text
            self.usage = self.usage + body.usage
        elif isinstance(body, f.ModelFailed):
            self.usage = self.usage + body.usage
            self.attempt = body.attempt
        elif isinstance(body, f.RunWaiting):
            self.status, self.waits_for, self.pending = "waiting", body.waits_for, body.tool_call_ids
        elif isinstance(body, f.RunCompleted):
            self._end("completed", fact, body.usage)
            self.stop_reason = body.stop_reason
        elif isinstance(body, f.RunFailed):
            self._end("failed", fact, body.usage)
            self.error = RunError(code=body.code, message=body.message)
        elif isinstance(body, f.RunCancelled):
            self._end("cancelled", fact, body.usage)
            self.answer += text_of(body.blocks)

    def _end(self, status: str, fact: Fact, usage: Usage) -> None:
        self.status, self.usage, self.ended_ms, self.ended_seq = status, usage, fact.time_ms, fact.seq
        self.waits_for, self.pending = None, ()

    def view(self) -> RunView:
        """The run as history would give it."""
        return RunView.model_validate(
            {
                "id": self.run_id,
                "thread_id": self.thread_id,
                "workspace_id": self.workspace_id,
                "agent_id": self.agent_id,
                "agent_version": self.agent_version,
                "status": self.status,
                "attempt": self.attempt,
                "usage": self.usage,
                "stop_reason": self.stop_reason,
                "error": self.error,
                "message_id": answer_id(self.run_id),
                "question_id": self.question_id,
                "answer": self.answer,
                "last_text": self.last_text,
                "posted_seq": self.posted_seq,
                "ended_seq": self.ended_seq,
                "created_at": rfc3339(self.created_ms),
                "ended_at": None if self.ended_ms is None else rfc3339(self.ended_ms),
            }
        )

    def message(self) -> MessageView | None:
        """The run's one assistant message, once it has ended; None when it said nothing and came to nothing."""
        return message_of(self.view())


_GOES_ON = (f.ModelCalled, f.ToolCalled, f.ToolReturned, f.ToolExpired, f.ApprovalAnswered, f.ApprovalExpired)


def _goes_on(body: f.FactBody) -> bool:
    """Whether a parked run goes on with this."""
    if isinstance(body, f.ToolAnswered):
        return not body.pending
    return isinstance(body, (*_GOES_ON, f.RunCancelling))


def message_of(run: RunView) -> MessageView | None:
    """The one assistant message of a run that has ended; None when it said nothing and came to nothing."""
    if run.ended_seq is None or run.ended_at is None or (run.status != "completed" and not run.answer):
        return None
    return MessageView.model_validate(
        {
            "id": run.message_id,
            "number": 0,
            "seq": run.ended_seq,
            "thread_id": run.thread_id,
            "run_id": run.id,
            "role": "assistant",
            "content": run.answer,
            "author": {"kind": "agent", "id": run.agent_id},
            "created_at": run.ended_at,
        }
    )


def text_of(blocks: tuple[Block, ...]) -> str:
    """The text of a turn."""
    return "".join(block.text for block in blocks if block.kind == "text")

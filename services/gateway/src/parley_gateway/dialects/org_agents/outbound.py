"""From facts, pieces and views to the frames and answers of `org_agents`. Pure; `Story` remembers what a run did.

A stream is `start`, texts and tool results, and one `complete` or `error`, last. Thoughts are not told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from parley_events import facts as f
from parley_events.body import Json, Usage
from parley_events.clock import rfc3339
from parley_events.codec import Fact
from parley_events.reads import MessageView, RunView
from parley_gateway.errors import Problem
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.frames import Frame
from parley_gateway.runs import text_of

STARTED = "Agent execution started. Poll the status endpoint for updates."
CANCELLED = {"code": "cancelled", "message": "the run was cancelled"}
STATUSES = {
    "queued": "queued",
    "running": "running",
    "waiting": "running",
    "completed": "complete",
    "failed": "failed",
    "cancelled": "failed",
}
"""What a poll says of each status."""


class _Use(NamedTuple):
    """A call that a turn asked for: its arguments, and when its tool was called."""

    id: str
    name: str
    arguments: Json
    called_ms: int | None = None


class Story:
    """What the facts of one run tell. Fold them in order, beginning with its `message.posted`."""

    def __init__(self) -> None:
        self._uses: dict[tuple[int, int], _Use] = {}
        self._approvals: dict[str, f.ApprovalRequested] = {}
        self.text = ""
        """The last turn's."""
        self.results: list[Json] = []
        self.end: f.RunCompleted | f.RunFailed | f.RunCancelled | None = None

    def fold(self, fact: Fact) -> Json | None:
        """Take one more fact in; a tool's result that it brings."""
        body = fact.body
        if isinstance(body, f.ModelReturned):
            self.text = text_of(body.blocks)
            for index, block in enumerate(block for block in body.blocks if block.kind == "tool"):
                self._uses[body.call, index] = _Use(block.tool_call_id or "", block.name or "", block.arguments)
        elif isinstance(body, f.ToolCalled):
            self._uses[body.call, body.index] = _Use(body.tool_call_id, body.name, body.arguments, fact.time_ms)
        elif isinstance(body, f.ToolReturned):
            use = self._uses.pop((body.call, body.index), _Use(body.tool_call_id, body.name, {}))
            return self._result(use._replace(name=body.name), body.result, body.is_error, body.duration_ms)
        elif isinstance(body, f.ToolAnswered):
            place = next((place for place, use in self._uses.items() if use.id == body.tool_call_id), None)
            use = _Use(body.tool_call_id, "", {}) if place is None else self._uses.pop(place)
            taken_ms = 0 if use.called_ms is None else fact.time_ms - use.called_ms
            return self._result(use, body.result, body.is_error, taken_ms)
        elif isinstance(body, f.ApprovalRequested):
            self._approvals[body.approval_id] = body
        elif isinstance(body, f.ApprovalAnswered | f.ApprovalExpired):
            self._approvals.pop(body.approval_id, None)
        elif isinstance(body, f.RunCompleted | f.RunFailed | f.RunCancelled):
            self.end = body
        return None

    def _result(self, use: _Use, output: str, is_error: bool, duration_ms: int) -> Json:
        self.results.append(
            {
                "toolUseId": use.id,
                "name": use.name,
                "input": use.arguments,
                "output": output,
                "isError": is_error,
                "durationMs": duration_ms,
            }
        )
        return self.results[-1]

    @property
    def approval(self) -> Json | None:
        """The oldest approval that is open."""
        asked = next(iter(self._approvals.values()), None)
        if asked is None:
            return None
        return {
            "id": asked.approval_id,
            "tool": asked.name,
            "input": asked.arguments,
            "expiresAt": rfc3339(asked.due_at_ms),
        }

    def response(self, stop_reason: str | None, used: Usage) -> Json:
        """The answer of a run that completed."""
        return {
            "text": self.text,
            "stopReason": stop_reason,
            "usage": {"inputTokens": used.input_tokens, "outputTokens": used.output_tokens},
            "toolResults": self.results,
        }


class Frames:
    """The frames of one run."""

    def __init__(self, session_id: str, run_id: str) -> None:
        self._session_id, self._run_id = session_id, run_id
        self.kind = ("org_agents", session_id)
        self._story = Story()

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if not isinstance(shown, ShownFact):
            return [Frame({"type": "text", "text": shown.text})] if shown.kind == "text" else []
        result = self._story.fold(shown.fact)
        body = shown.fact.body
        if isinstance(body, f.MessagePosted):
            return [Frame({"type": "start", "sessionId": self._session_id, "requestId": self._run_id})]
        if result is not None:
            return [Frame({"type": "tool_result", **result})]
        if isinstance(body, f.RunCompleted):
            response = self._story.response(body.stop_reason, body.usage)
            return [Frame({"type": "complete", "sessionId": self._session_id, "response": response})]
        if isinstance(body, f.RunFailed | f.RunCancelled):
            return [Frame({"type": "error", "error": _error(body)})]
        return []


def _error(body: f.RunFailed | f.RunCancelled) -> Json:
    return dict(CANCELLED) if isinstance(body, f.RunCancelled) else {"code": body.code, "message": body.message}


def whole(shown: Iterable[Shown], session_id: str, headers: dict[str, str]) -> Json:
    """The answer of a waiting call whose run has ended; a Problem 500 when it came to nothing."""
    story = Story()
    for item in shown:
        if isinstance(item, ShownFact):
            story.fold(item.fact)
    if isinstance(story.end, f.RunCompleted):
        return {"sessionId": session_id, "response": story.response(story.end.stop_reason, story.end.usage)}
    error = dict(CANCELLED) if story.end is None else _error(story.end)
    raise Problem("agent_failed", error["message"], 500, {"code": error["code"]}, headers)


def accepted(agent_id: str, agent_name: str, session_id: str, run_id: str, user_id: str | None) -> Json:
    """What is said of a run that goes on without the one who asked."""
    return {
        "requestId": run_id,
        "agentId": agent_id,
        "agentName": agent_name,
        "sessionId": session_id,
        "status": "queued",
        "message": STARTED,
        "pollUrl": f"/ai/chat/executions/{run_id}{as_user(user_id)}",
    }


def as_user(user_id: str | None) -> str:
    """The query without which a session that is kept for a user is not found."""
    return "" if user_id is None else f"?userId={quote(user_id, safe='')}"


def execution(run: RunView, agent_id: str, story: Story) -> Json:
    """A run that is polled. `story` has its facts, where they say more than the view."""
    found: Json = {
        "requestId": run.id,
        "agentId": agent_id,
        "sessionId": run.thread_id,
        "status": STATUSES[run.status],
    }
    if run.status == "completed":
        found["response"] = story.response(run.stop_reason, run.usage)
    elif run.status == "cancelled":
        found["error"] = dict(CANCELLED)
    elif run.error is not None:
        found["error"] = run.error.model_dump()
    elif run.status == "waiting" and story.approval is not None:
        found["approval"] = story.approval
    return found


def message(view: MessageView) -> Json:
    """A message of a session's history."""
    return {"role": view.role, "content": view.content, "createdAt": view.created_at}

"""From facts, pieces and views to the frames and answers of `team_chat`. Pure; `Frames` remembers where a run stands.

A stream is texts, one `done` or `error`, and the word `[DONE]`. Thoughts are not told, tools where they are asked for.
There is no word for a run that waits: its stream stays open, and silent but for comments, until someone has answered.
"""

from __future__ import annotations

from parley_events import facts as f
from parley_events.body import Json
from parley_events.codec import Fact
from parley_events.reads import MessageView, RunView, ThreadView
from parley_gateway.errors import Problem
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.frames import Frame

DONE = Frame({}, bare=True, word=b"[DONE]")
"""What closes every stream."""
CANCELLED = "the run was cancelled"


class Frames:
    """The frames of one run. `ended_seq`: the fact with which it ended, once it has."""

    def __init__(self, *, tools: bool = False) -> None:
        self._tools = tools
        self.kind = ("team_chat", tools)
        self._called: dict[str, Json] = {}
        self.ended_seq: int | None = None

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if not isinstance(shown, ShownFact):
            return [Frame({"type": "text", "content": shown.text})] if shown.kind == "text" else []
        body = shown.fact.body
        if isinstance(body, f.RunCompleted | f.RunFailed | f.RunCancelled):
            self.ended_seq = shown.fact.seq
            return [Frame(_end(body)), DONE]
        return self._tool(shown.fact) if self._tools else []

    def _tool(self, fact: Fact) -> list[Frame]:
        body = fact.body
        if isinstance(body, f.ToolCalled):
            called = {"id": body.tool_call_id, "name": body.name, "arguments": body.arguments}
            self._called[body.tool_call_id] = called
            return [_event("tool_call", {**called, "status": "running"})]
        if isinstance(body, f.ToolReturned):
            called = self._called.get(body.tool_call_id, {"id": body.tool_call_id, "name": body.name})
            return [_event("tool_result", {**called, **_result(body.result, body.status)})]
        if isinstance(body, f.ToolAnswered):
            called = self._called.get(body.tool_call_id, {"id": body.tool_call_id})
            return [_event("tool_result", {**called, **_result(body.result, "error" if body.is_error else "ok")})]
        return []


def _end(body: f.RunCompleted | f.RunFailed | f.RunCancelled) -> Json:
    if isinstance(body, f.RunCompleted):
        return {"type": "done", "content": ""}
    return {"type": "error", "content": body.message if isinstance(body, f.RunFailed) else CANCELLED}


def _event(kind: str, call: Json) -> Frame:
    """What is told of a tool. It has a `content` as everything has, so that it can be read like a text."""
    return Frame({"type": kind, "content": "", "tool_call": call})


def _result(result: str, status: str) -> Json:
    return {"result": result, "is_error": status != "ok", "status": status}


def answered(run: RunView, agent_id: str, agent_name: str, headers: dict[str, str]) -> Json:
    """The answer of a waiting call whose run has ended; a Problem 500 when it came to nothing."""
    if run.status != "completed":
        error = _error(run)
        raise Problem("agent_failed", error["message"], 500, {"code": error["code"]}, headers)
    return {
        "response": run.answer,
        "agent_id": agent_id,
        "agent_name": agent_name,
        "conversation_id": run.thread_id,
    }


def accepted(run_id: str, conversation_id: str, status: str, events_url: str) -> Json:
    """What is said of a run that goes on without the one who asked."""
    return {"run_id": run_id, "conversation_id": conversation_id, "status": status, "events_url": events_url}


def run(view: RunView, agent_id: str, agent_name: str, events_url: str) -> Json:
    """A run that is looked at; `response` as the waiting call would have had it."""
    return {
        **accepted(view.id, view.thread_id, view.status, events_url),
        "agent_id": agent_id,
        "agent_name": agent_name,
        "response": view.answer if view.status == "completed" else None,
        "error": _error(view) if view.status in ("failed", "cancelled") else None,
    }


def _error(run: RunView) -> Json:
    if run.error is not None:
        return {"code": run.error.code, "message": run.error.message}
    return {"code": "cancelled", "message": CANCELLED}


def message(view: MessageView) -> Json:
    """A message of the history."""
    return {"id": view.id, "role": view.role, "content": view.content, "created_at": view.created_at}


def unread(view: MessageView) -> Json:
    """A message of the inbox."""
    return {
        "id": view.id,
        "conversation_id": view.thread_id,
        "content": view.content,
        "created_at": view.created_at,
    }


def conversation(view: ThreadView, agent_id: str) -> Json:
    return {
        "id": view.id,
        "agent_id": agent_id,
        "title": view.title,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    }


def new_conversation(conversation_id: str, agent_id: str, title: str | None, time: str) -> Json:
    """A conversation that was just made: nothing has happened in it."""
    return {"id": conversation_id, "agent_id": agent_id, "title": title, "created_at": time, "updated_at": time}

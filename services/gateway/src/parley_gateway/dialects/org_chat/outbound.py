"""From facts, pieces and views to the frames and answers of `org_chat`. Pure; `Events` remembers the last turn's text
and the artifacts.

A frame is `{type, content, timestamp}`; exactly one `complete` or `error` comes, last. There is no word for a run that
waits: its stream stays open, and silent but for comments, until someone has answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from parley_events import facts as f
from parley_events.body import Json, Note
from parley_events.clock import Clock, rfc3339
from parley_events.codec import Fact
from parley_events.reads import FileView, MessageView, NoteView
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.frames import Frame
from parley_gateway.runs import text_of

_NOTES = {"decision": "decision", "milestone": "milestone", "skill": "skill_learned"}


class Events:
    """The frames of one run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kind = "org_chat"
        self._artifacts: dict[str, None] = {}
        self._tools: dict[str, str] = {}
        self.summary: str | None = None
        """The text of the last turn so far; None once the run is known to have come to nothing."""

    @property
    def artifacts(self) -> list[str]:
        """The names that were saved in this run so far."""
        return list(self._artifacts)

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if isinstance(shown, ShownFact):
            time = rfc3339(shown.fact.time_ms)
            return [Frame(_event(kind, content, time)) for kind, content in self._contents(shown.fact)]
        return [Frame(_event(shown.kind, shown.text, rfc3339(self._clock())))]

    def _contents(self, fact: Fact) -> Iterable[tuple[str, Any]]:
        body = fact.body
        if isinstance(body, f.ModelReturned):
            self.summary = text_of(body.blocks)
        elif isinstance(body, f.ToolCalled):
            self._tools[body.tool_call_id] = body.name
            yield "tool_call", {"tool": body.name, "args": body.arguments, "tool_call_id": body.tool_call_id}
        elif isinstance(body, f.ToolReturned):
            self._artifacts.update(dict.fromkeys(file.name for file in body.files))
            yield "tool_result", _result(body.name, body.result, body.tool_call_id, body.status)
            if body.note is not None:
                yield _NOTES[body.note.kind], {**_note(body.note), "tool_call_id": body.tool_call_id}
        elif isinstance(body, f.ToolAnswered):
            name = self._tools.get(body.tool_call_id, "")
            yield "tool_result", _result(name, body.result, body.tool_call_id, "error" if body.is_error else "ok")
        elif isinstance(body, f.RunCompleted):
            self.summary = self.summary or ""
            yield "complete", {"summary": self.summary, "artifacts": self.artifacts}
        elif isinstance(body, f.RunFailed):
            self.summary = None
            yield "error", {"message": body.message, "code": body.code}
        elif isinstance(body, f.RunCancelled):
            self.summary = None
            yield "error", {"message": "cancelled", "code": "cancelled"}


def whole(shown: Iterable[Shown], clock: Clock) -> Json:
    """The answer of a waiting call: all events, one `text` per finished block, at the time of the block's fact."""
    show = Events(clock)
    events: list[Json] = []
    undated: list[Json] = []
    for item in shown:
        made = [frame.data for frame in show(item)]
        events += made
        if isinstance(item, ShownFact):
            for event in undated:
                event["timestamp"] = rfc3339(item.fact.time_ms)
            undated = []
        else:
            undated += made
    return {"events": events, "summary": show.summary, "artifacts": show.artifacts}


def _event(kind: str, content: Any, time: str) -> Json:
    return {"type": kind, "content": content, "timestamp": time}


def _result(tool: str, result: str, tool_call_id: str, status: str) -> Json:
    """A tool's result; its status where that is not simply `ok`."""
    content = {"tool": tool, "result": _parsed(result), "tool_call_id": tool_call_id}
    return content if status == "ok" else {**content, "status": status}


def _parsed(result: str) -> Any:
    """A tool's result as JSON if it is JSON, else as the text it is."""
    try:
        return orjson.loads(result)
    except ValueError:
        return result


def _note(note: Note) -> Json:
    if note.kind == "skill":
        return {"slug": note.slug, "name": note.name, "id": note.id}
    content: Json = {"title": note.title, "id": note.id}
    if note.kind == "decision":
        content["body"] = note.body
    return content


def message(view: MessageView, names: dict[str, str]) -> Json:
    """A message of the history; `names` has the agents' names by their ids."""
    author: Json | None = None
    if view.author is not None:
        name = view.author.name or (names.get(view.author.id) if view.author.kind == "agent" else view.author.id)
        author = {"kind": view.author.kind, "id": view.author.id, "name": name}
    found: Json = {
        "id": view.id,
        "role": view.role,
        "content": view.content,
        "author": author,
        "run_id": view.run_id,
        "timestamp": view.created_at,
    }
    if view.role == "user" and view.attachments:
        found["attachments"] = [file.model_dump() for file in view.attachments]
    if view.tool_call_id is not None:
        found["tool_call_id"] = view.tool_call_id
    if view.tool_calls:
        call = view.tool_calls[0]
        found["tool_call"] = {"tool": call.name, "args": call.arguments, "status": call.status}
    return found


def artifact(file: FileView) -> Json:
    """An artifact in the list of a node's."""
    return {
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
        "run_id": file.run_id,
        "timestamp": file.created_at,
    }


def entry(view: NoteView) -> Json:
    """An entry of the organisation's log."""
    found: Json = {"id": view.id, "type": view.kind, "title": view.title}
    if view.body is not None:
        found["body"] = view.body
    return found | {"role_id": view.agent_id, "run_id": view.run_id, "timestamp": view.created_at}

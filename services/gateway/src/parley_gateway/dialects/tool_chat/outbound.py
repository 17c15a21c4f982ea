"""From facts, pieces and views to the frames and answers of `tool_chat`. Pure; `Parts` remembers where a run stands.

A run is told in parts. Each begins with a message, or with the last result that the client owed (`start`), and ends
with the run, or where it is the client's turn to run tools (`done`, with `tool_calls`). Each is a message with an id of
its own; together they are the run's one answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from parley_events import facts as f
from parley_events.body import Json, json_bytes
from parley_events.clock import rfc3339
from parley_events.codec import Fact
from parley_events.reads import MessageView
from parley_gateway.feed.follow import Shown, ShownFact
from parley_gateway.feed.frames import Frame
from parley_gateway.runs import text_of


class Parts:
    """The parts of one run, from whichever begin on. `message` and `error`: how the last part ended, if it has;
    `ended_seq`: the fact with which the run did."""

    def __init__(self, conversation_id: str) -> None:
        self._conversation_id = conversation_id
        self._number: int | None = None
        self._spare = 0
        self._text = ""
        self._open: dict[tuple[int, int], f.ToolCalled] = {}
        self._called_ms = 0
        self.message: Json | None = None
        self.error: Json | None = None
        self.ended_seq: int | None = None

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if isinstance(shown, ShownFact):
            return [Frame(data) for data in self.fold(shown.fact)]
        return [Frame({"type": "delta", "content": shown.text})] if shown.kind == "text" else []

    def tell(self, shown: Iterable[Shown]) -> None:
        """Take in all that was shown."""
        for item in shown:
            if isinstance(item, ShownFact):
                self.fold(item.fact)

    def ends(self, fact: Fact) -> bool:
        """Take one more fact in; whether a part ends with it."""
        return any(data["type"] != "start" for data in self.fold(fact))

    def fold(self, fact: Fact) -> list[Json]:
        """Take one more fact in; what is said of it."""
        body = fact.body
        if isinstance(body, f.RunCompleted | f.RunFailed | f.RunCancelled):
            self.ended_seq = fact.seq
        if isinstance(body, f.MessagePosted):
            return self._begin(body.numbers[2])
        if isinstance(body, f.ModelReturned):
            self._text += text_of(body.blocks)
        elif isinstance(body, f.ToolCalled) and body.effect == "client":
            if not self._open:
                self._spare, self._called_ms = body.numbers[0], fact.time_ms
            self._open[body.call, body.index] = body
        elif isinstance(body, f.ToolReturned):
            # The client gave no result, and the run goes on without.
            gone = self._open.pop((body.call, body.index), None)
            if gone is not None and not self._open and self._number is None:
                return self._begin(self._spare)
        elif isinstance(body, f.ToolAnswered):
            named = (place for place, call in self._open.items() if call.tool_call_id == body.tool_call_id)
            place = next(named, None) if body.call is None or body.index is None else (body.call, body.index)
            if place is not None:
                self._open.pop(place, None)
            self._spare = body.numbers[-1]
            if not body.pending and self._number is None:
                return self._begin(self._spare)
        elif isinstance(body, f.RunWaiting):
            calls = [call for call in self._open.values() if call.tool_call_id in body.tool_call_ids]
            if calls:
                told = [_call(call.tool_call_id, call.name, call.arguments) for call in calls]
                return self._end(self._called_ms, told)
        elif isinstance(body, f.RunCompleted):
            return self._end(fact.time_ms, None)
        elif isinstance(body, f.RunFailed):
            return self._fail("ai_service_error", body.message, {"code": body.code})
        elif isinstance(body, f.RunCancelled):
            return self._fail("cancelled", "the run was cancelled", None)
        return []

    def _begin(self, number: int) -> list[Json]:
        self._number, self._text, self.message = number, "", None
        return [{"type": "start", "id": number}]

    def _end(self, time_ms: int, calls: list[Json] | None) -> list[Json]:
        if self._number is None:
            return []
        self.message = {
            "id": self._number,
            "role": "assistant",
            "content": self._text if calls is None else self._text or None,
            "conversation_id": self._conversation_id,
            "created_at": rfc3339(time_ms),
            "tool_calls": calls,
        }
        self._number = None
        return [{"type": "done", "message": self.message}]

    def _fail(self, code: str, message: str, details: Json | None) -> list[Json]:
        self.error = {"code": code, "message": message}
        if details is not None:
            self.error["details"] = details
        return [{"type": "error", "error": self.error}]


def _call(call_id: str, name: str, arguments: Json) -> Json:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": json_bytes(arguments).decode()},
    }


def answered(message: Json, agent_id: str, agent_name: str) -> Json:
    """The answer of a waiting call. It has what clients of `team_chat` read, too: this address is theirs as well."""
    return {**message, "response": message["content"] or "", "agent_id": agent_id, "agent_name": agent_name}


def row(view: MessageView) -> Json:
    """A message of the history. A call of a tool is the agent's, its result the tool's."""
    found: Json = {
        "id": view.number,
        "role": "assistant" if view.tool_calls else view.role,
        "content": view.content,
        "conversation_id": view.thread_id,
        "created_at": view.created_at,
    }
    if view.role == "user":
        found["metadata"] = view.metadata
    elif view.tool_calls:
        found["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in view.tool_calls]
    elif view.role == "assistant":
        found["tool_calls"] = None
    elif view.role == "tool":
        found["tool_call_id"] = view.tool_call_id
    return found

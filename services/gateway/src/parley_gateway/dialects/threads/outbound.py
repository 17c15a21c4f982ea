"""From facts, pieces and views to the frames and answers of `threads`. Pure; `Frames` remembers open tool calls.

A frame is `{type, seq, thread_id, run_id, message_id, …}`. `type` is a fact's type, `text.delta`, `thought.delta`, or
`run.restarted`: drop what came since the last `model.returned`, because a further attempt begins (`attempt`), or since
the run ends without a word of the last one (`attempt` null). `message_id` is the run's one assistant message, from the
first frame on; the question's own id is `question_id`.

Which frames a fact gives follows from the facts alone, never from pieces: cursors count them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from parley_events import facts as f
from parley_events.body import Json, Usage
from parley_events.clock import rfc3339
from parley_events.codec import Fact, UnknownBody
from parley_events.commands import AddKnowledge
from parley_events.ids import answer_id
from parley_events.reads import ApprovalView, DocumentView, MessageView, RunView, ThreadView
from parley_events.retelling import retold
from parley_gateway.feed.follow import Shown, ShownFact, run_of
from parley_gateway.feed.frames import Frame
from parley_gateway.runs import text_of

_DELTAS = {"text": "text.delta", "thought": "thought.delta"}


class _Called(NamedTuple):
    name: str
    arguments: Json


class Frames:
    """The frames of one stream of one thread. `past`: a fork shows what it took over, too, after its own frame, as the
    frames that it had in the source, with seqs of at most 0: so a client that knows nothing else has the thread.
    `run_id`: of that the run's alone, and without the fork's own frame."""

    def __init__(self, thread_id: str, *, past: bool = True, run_id: str | None = None) -> None:
        self._thread_id, self._past, self._run_id = thread_id, past, run_id
        self.kind = ("threads", past, run_id)
        self._tools: dict[tuple[int, int], _Called] = {}
        self._open: dict[str, int] = {}
        """Run → the seq of its model call that has not returned."""
        self._answer: tuple[str, str] = ("", "")

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if isinstance(shown, ShownFact):
            frames = [] if self._run_id else self._fact(shown.fact)
            if self._past and isinstance(shown.fact.body, f.ThreadForked) and not shown.again:
                past = (one for one in retold(shown.fact) if self._run_id in (None, run_of(one)))
                frames += [frame for one in past for frame in self._retold(one)]
            return frames
        return [self._delta(shown.kind, shown.call, shown.run_id, shown.text)]

    def _delta(self, kind: str, call: int, run_id: str, text: str) -> Frame:
        if self._answer[0] != run_id:
            self._answer = (run_id, answer_id(run_id))
        return Frame(
            {
                "type": _DELTAS[kind],
                "seq": call,
                "thread_id": self._thread_id,
                "run_id": run_id,
                "message_id": self._answer[1],
                "delta": text,
            }
        )

    def _retold(self, past: Fact) -> Iterator[Frame]:
        """A fact that a fork took over, the texts that it closes first, as in any feed."""
        body = past.body
        if isinstance(body, f.ModelReturned | f.RunCancelled):
            for block in body.blocks:
                if block.kind in _DELTAS and block.text:
                    yield self._delta(block.kind, body.call or 0, body.run_id, block.text)
        yield from self._fact(past)

    def _fact(self, fact: Fact) -> list[Frame]:
        body = fact.body
        run_id = run_of(fact)
        head = {
            "type": fact.type,
            "seq": fact.seq,
            "thread_id": self._thread_id,
            "run_id": run_id,
            "message_id": answer_id(run_id) if run_id else None,
        }
        time = {"created_at": rfc3339(fact.time_ms)}
        if isinstance(body, f.ToolCalled):
            self._tools[body.call, body.index] = _Called(body.name, body.arguments)
        own = _OWN.get(type(body))
        if own is not None:
            frames = [Frame({**head, **own(body), **time})]
        elif isinstance(body, f.ToolReturned):
            frames = [Frame({**head, **_tool_returned(body, self._forget(body)), **time})]
        elif isinstance(body, f.ToolAnswered):
            frames = [Frame({**head, **_tool_answered(body, self._forget(body)), **time})]
        elif isinstance(body, f.ToolExpired):
            # What the model is told of it follows as `tool.returned`.
            frames = [Frame({**head, **_tool_expired(body, self._tools.get((body.call, body.index))), **time})]
        else:
            data = {} if isinstance(body, UnknownBody) else body.model_dump(mode="json", exclude={"numbers", "past"})
            frames = [Frame({**data, **head, **time})]
        if isinstance(body, f.ModelCalled) and body.attempt > 1:
            frames.insert(0, Frame({**head, "type": "run.restarted", "attempt": body.attempt, **time}))
        elif self._leaves_void(fact):
            frames.insert(0, Frame({**head, "type": "run.restarted", "attempt": None, **time}))
        if isinstance(body, f.ModelCalled) and fact.seq is not None:
            self._open[body.run_id] = fact.seq
        return frames

    def _forget(self, body: f.ToolReturned | f.ToolAnswered) -> _Called | None:
        """The call that has its result now."""
        return None if body.call is None or body.index is None else self._tools.pop((body.call, body.index), None)

    def _leaves_void(self, fact: Fact) -> bool:
        """Whether the run ends here without a word of its last attempt: whoever was shown a part of that must drop it,
        to have what the stored message has."""
        body = fact.body
        if not isinstance(body, f.ModelReturned | f.RunCompleted | f.RunFailed | f.RunCancelled):
            return False
        call = self._open.pop(body.run_id, None)
        if call is None or isinstance(body, f.ModelReturned | f.RunCompleted):
            return False
        return not (isinstance(body, f.RunCancelled) and body.call == call and body.blocks)


def past_facts(fork: Fact, run_id: str) -> list[Json]:
    """The facts of a run that a fork took over, each as its own frame."""
    frames = Frames(fork.stream)
    return [frames(ShownFact(one, ""))[-1].data for one in retold(fork) if run_of(one) == run_id]


class Placed(Frames):
    """The frames of one thread in a stream of many. That is resumed at facts alone, so a text says where in its block
    it belongs: `at` in characters. What a fork took over is not shown."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id, past=False)
        self._sent: dict[tuple[int, int], int] = {}

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        if isinstance(shown, ShownFact):
            body = shown.fact.body
            if isinstance(body, f.ModelReturned | f.ModelFailed | f.RunCancelled):
                self._sent = {place: sent for place, sent in self._sent.items() if place[0] != body.call}
            return super().__call__(shown)
        place = (shown.call, shown.block)
        at = self._sent.get(place, 0)
        self._sent[place] = at + len(shown.text)
        return [Frame({**frame.data, "block": shown.block, "at": at}) for frame in super().__call__(shown)]


def usage(value: Usage) -> Json:
    """Tokens as clients see them; what the model's cache had to do with them, where it had anything."""
    shown = {"input_tokens": value.input_tokens, "output_tokens": value.output_tokens}
    if value.cache_read_tokens or value.cache_write_tokens:
        shown |= {"cache_read_tokens": value.cache_read_tokens, "cache_write_tokens": value.cache_write_tokens}
    return shown


def _posted(body: f.MessagePosted) -> Json:
    return {
        "question_id": body.message_id,
        "role": "user",
        "content": body.text,
        "author": body.author.model_dump(),
        "agent_id": body.agent_id,
        "agent_version": body.agent_version,
        "status": "running" if body.disposition == "started" else "queued",
        "attachments": [attachment.model_dump() for attachment in body.attachments],
        "lead_context": body.lead_context,
        **({"knowledge_ids": list(body.knowledge_ids)} if body.knowledge_ids else {}),
        "metadata": body.metadata,
    }


def _model_called(body: f.ModelCalled) -> Json:
    return {
        "turn": body.turn,
        "attempt": body.attempt,
        "agent_id": body.agent_id,
        "agent_version": body.agent_version,
        "model": body.model,
        "shown": body.shown,
    }


def _model_returned(body: f.ModelReturned) -> Json:
    return {
        "call": body.call,
        "turn": body.turn,
        "content": text_of(body.blocks),
        "stop_reason": body.stop_reason,
        "usage": usage(body.usage),
    }


def _model_failed(body: f.ModelFailed) -> Json:
    return {
        "call": body.call,
        "turn": body.turn,
        "attempt": body.attempt,
        "error": {"code": f"model_{body.kind}", "message": body.message},
        "retry": body.retry,
        "usage": usage(body.usage),
    }


def _tool_called(body: f.ToolCalled) -> Json:
    """`waiting`: it is the client's turn to run it, until `expires_at`."""
    client = body.effect == "client"
    status = "waiting" if client else "running"
    call = {"id": body.tool_call_id, "name": body.name, "arguments": body.arguments, "status": status}
    until = {"expires_at": rfc3339(body.due_at_ms)} if client and body.due_at_ms is not None else {}
    return {"call": body.call, "tool_call": call, **until}


def _envelope(call_id: str, called: _Called | None) -> Json:
    """The head of a call's envelope, with what is known of the call."""
    return {"id": call_id} if called is None else {"id": call_id, "name": called.name, "arguments": called.arguments}


def _tool_returned(body: f.ToolReturned, called: _Called | None) -> Json:
    call = {**_envelope(body.tool_call_id, called), "name": body.name}
    call |= {"result": body.result, "is_error": body.is_error, "status": body.status}
    more: Json = {}
    if body.note is not None:
        more["note"] = body.note.model_dump(exclude_none=True)
    if body.files:
        more["files"] = [file.model_dump() for file in body.files]
    return {"call": body.call, "tool_call": call, "duration_ms": body.duration_ms, **more}


def _tool_answered(body: f.ToolAnswered, called: _Called | None) -> Json:
    status = "error" if body.is_error else "ok"
    result = {"result": body.result, "is_error": body.is_error, "status": status}
    return {"tool_call": {**_envelope(body.tool_call_id, called), **result}, "pending": list(body.pending)}


def _tool_expired(body: f.ToolExpired, called: _Called | None) -> Json:
    return {"call": body.call, "tool_call": {**_envelope(body.tool_call_id, called), "status": "waiting"}}


def _tool_settled(body: f.ToolSettled) -> Json:
    call = {"id": body.tool_call_id, "status": "ok" if body.happened else "error"}
    return {"tool_call": call, "happened": body.happened, "by": body.by, "comment": body.comment}


def _waiting(body: f.RunWaiting) -> Json:
    until = None if body.due_at_ms is None else rfc3339(body.due_at_ms)
    return {
        "status": "waiting",
        "waits_for": body.waits_for,
        "pending": list(body.tool_call_ids),
        "expires_at": until,
    }


def _approval_requested(body: f.ApprovalRequested) -> Json:
    call = {"id": body.tool_call_id, "name": body.name, "arguments": body.arguments, "status": "waiting"}
    return {
        "approval_id": body.approval_id,
        "call": body.call,
        "tool_call": call,
        "question": body.question,
        "input_schema": body.input_schema,
        "who": list(body.who),
        "expires_at": rfc3339(body.due_at_ms),
    }


def _approval_answered(body: f.ApprovalAnswered) -> Json:
    return {
        "approval_id": body.approval_id,
        "decision": body.decision,
        "by": body.by,
        "comment": body.comment,
        "arguments": body.arguments,
    }


def _cancelling(body: f.RunCancelling) -> Json:
    return {"by": body.by, "reason": body.reason, "code": body.code}


def _completed(body: f.RunCompleted) -> Json:
    return {"status": "completed", "stop_reason": body.stop_reason, "usage": usage(body.usage)}


def _failed(body: f.RunFailed) -> Json:
    return {"status": "failed", "error": {"code": body.code, "message": body.message}, "usage": usage(body.usage)}


def _cancelled(body: f.RunCancelled) -> Json:
    return {"status": "cancelled", "by": body.by, "reason": body.reason, "usage": usage(body.usage)}


_OWN: dict[type[f.FactBody], Callable[[Any], Json]] = {
    f.MessagePosted: _posted,
    f.ModelCalled: _model_called,
    f.ModelReturned: _model_returned,
    f.ModelFailed: _model_failed,
    f.ToolCalled: _tool_called,
    f.ToolSettled: _tool_settled,
    f.RunWaiting: _waiting,
    f.ApprovalRequested: _approval_requested,
    f.ApprovalAnswered: _approval_answered,
    f.RunCancelling: _cancelling,
    f.RunCompleted: _completed,
    f.RunFailed: _failed,
    f.RunCancelled: _cancelled,
}
"""What a frame has beside its head; facts that are not here show their body as it is."""


# ---- answers


def thread(view: ThreadView, agent_id: str | None = None) -> Json:
    """A thread. `agent_id`: how the client named the agent, if it did."""
    return {
        "id": view.id,
        "title": view.title,
        "agent_id": agent_id or view.agent_id,
        "user_id": view.user_id,
        "pinned": view.pinned,
        "archived": view.archived,
        "system_prompt": view.system_prompt,
        "context": view.context,
        "metadata": view.metadata,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "last_message_at": view.last_message_at,
        "message_count": view.message_count,
        "position": view.position,
    }


def new_thread(workspace_id: str, thread_id: str, seed: Json, time_ms: int, position: str) -> ThreadView:
    """A thread that was just made, as its `thread.created` tells it."""
    made = rfc3339(time_ms)
    return ThreadView.model_validate(
        {
            **{name: seed.get(name) for name in ("title", "agent_id", "user_id", "system_prompt", "context")},
            "channel": seed.get("channel") or "threads",
            "metadata": seed.get("metadata") or {},
            "id": thread_id,
            "workspace_id": workspace_id,
            "pinned": False,
            "archived": False,
            "created_at": made,
            "updated_at": made,
            "last_message_at": None,
            "message_count": 0,
            "position": position,
        }
    )


def message(view: MessageView) -> Json:
    calls = None
    if view.tool_calls is not None:
        calls = [call.model_dump(exclude_none=True) for call in view.tool_calls]
    return {
        "id": view.id,
        "seq": view.seq,
        "thread_id": view.thread_id,
        "run_id": view.run_id,
        "role": view.role,
        "content": view.content,
        "tool_calls": calls,
        "tool_call_id": view.tool_call_id,
        "author": None if view.author is None else view.author.model_dump(),
        "attachments": [attachment.model_dump() for attachment in view.attachments],
        **({} if view.lead_context is None else {"lead_context": view.lead_context}),
        **({"knowledge_ids": list(view.knowledge_ids)} if view.knowledge_ids else {}),
        "metadata": view.metadata,
        "created_at": view.created_at,
    }


def document(view: DocumentView) -> Json:
    """A document of the workspace, without its content."""
    return {
        "id": view.id,
        "title": view.title,
        "content_type": view.content_type,
        "characters": view.characters,
        "created_at": view.created_at,
    }


def new_document(body: AddKnowledge, time_ms: int, position: str) -> Json:
    """A document that was just added."""
    return {
        "id": body.knowledge_id,
        "title": body.title,
        "content_type": body.content_type,
        "characters": len(body.text),
        "created_at": rfc3339(time_ms),
        "position": position,
    }


def run(view: RunView, agent_id: str | None = None) -> Json:
    """A run. `agent_id`: how the client named the agent, if it did."""
    return {
        "id": view.id,
        "thread_id": view.thread_id,
        "agent_id": agent_id or view.agent_id,
        "agent_version": view.agent_version,
        "status": view.status,
        "attempt": view.attempt,
        "usage": usage(view.usage),
        "stop_reason": view.stop_reason,
        "error": None if view.error is None else view.error.model_dump(),
        "message_id": view.message_id,
        "created_at": view.created_at,
        "ended_at": view.ended_at,
    }


def approval(view: ApprovalView) -> Json:
    """An approval; its `tool_call` has the arguments that were asked about, `arguments` what they were edited to."""
    return {
        "id": view.id,
        "thread_id": view.thread_id,
        "run_id": view.run_id,
        "agent_id": view.agent_id,
        "status": view.status,
        "tool_call": {"id": view.tool_call_id, "name": view.name, "arguments": view.arguments},
        "question": view.question,
        "input_schema": view.input_schema,
        "who": list(view.who),
        "created_at": view.created_at,
        "expires_at": view.expires_at,
        "answered_by": view.answered_by,
        "answered_at": view.answered_at,
        "comment": view.comment,
        "arguments": view.edited,
    }

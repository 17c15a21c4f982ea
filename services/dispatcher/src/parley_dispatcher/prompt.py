"""What the model is shown: a thread's journal → one request of the Messages API. Pure.

Built only from what was recorded, never from pieces, so that every attempt and every owner shows the same. No orphan
tool use ever reaches the model: one without a result gets one that says so. Roles alternate. Files are shown by
reference (`source.type: object`); the provider loads them, or shows a line of text in their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from parley_dispatcher.providers.base import Request
from parley_dispatcher.state import MAX_SHOWN_CHARS, Run, ThreadState, ToolUse, Turn
from parley_dispatcher.teams import answers, instructions
from parley_events.body import AgentSpec, Attachment, Json, WaitsFor
from parley_events.reads import DocumentView

UNKNOWN_OUTCOME = "The outcome of this call is unknown: it was started, and nothing came back. It was not repeated."
NOT_RUN = "This call was not made: the run was stopped before."
NO_RESULT = "The client gave no result of this call: the run was stopped before."
NOBODY_THERE: dict[WaitsFor, tuple[str, str]] = {
    "approval": ("denied", "This call was not made: it needs an approval, and nobody is there to give one."),
    "client_tool": ("error", "This call was not made: the client would have to run the tool, and it runs none here."),
}
"""What a call has in place of a result, as status and text, where nobody is there to wait for."""
_NO_CLIENT = {
    "expired": "The client gave no result of this call in time.",
    "moved_on": "The client gave no result of this call: the user went on with another message.",
}
_MOST_EDITED_CHARS = 10_000
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/javascript")


def build_request(
    state: ThreadState,
    run: Run,
    agent: AgentSpec,
    workspace_context: str | None,
    tools: list[Json],
    attempt: int,
    documents: Mapping[str, DocumentView] | None = None,
) -> Request:
    """The request for the turn of `run` that is due. `documents`: those of `documents_named` that there are."""
    turn = len(run.turns)
    return Request(
        model=agent.model,
        system=_system(state, run, agent, workspace_context),
        messages=_messages(state, run, agent, documents or {}),
        tools=tools,
        max_tokens=agent.limits.max_tokens,
        temperature=agent.temperature,
        question=run.text,
        turn=turn,
        attempt=attempt,
        call_id=f"{run.run_id.rpartition('.r')[2]}_{turn}",
        workspace_id=state.workspace_id,
        base_url=agent.base_url,
        api_key=agent.api_key,
        thinking=agent.thinking,
        after=run.failed.kind if run.failed is not None else None,
    )


def _system(state: ThreadState, run: Run, agent: AgentSpec, workspace_context: str | None) -> str:
    parts = [
        run.system_prompt if run.system_prompt is not None else agent.system_prompt,
        workspace_context,
        agent.context,
        None if _asked_alone(run) else state.system_prompt,
        None if _asked_alone(run) else _data("context", state.context),
        run.system_append,
        instructions(run, _parent(state, run)),
    ]
    return "\n\n".join(part for part in parts if part)


def _asked_alone(run: Run) -> bool:
    """Whether another agent asked: then nothing is shown but what it asked. Members of a team see the thread."""
    return run.parent_run_id is not None and run.place is None


def _parent(state: ThreadState, run: Run) -> Run | None:
    return state.runs.get(run.parent_run_id) if run.parent_run_id is not None else None


def _data(name: str, value: object) -> str | None:
    return None if value is None else f"<{name}>{json.dumps(value, ensure_ascii=False, sort_keys=True)}</{name}>"


def documents_named(state: ThreadState, until: Run) -> tuple[str, ...]:
    """The ids of the documents that the messages name which a turn of `until` is shown."""
    return tuple(dict.fromkeys(name for run in _runs(state, until) for name in run.knowledge_ids))


def _runs(state: ThreadState, until: Run) -> Iterable[Run]:
    """The runs whose messages a turn of `until` is shown. Looked for from the newest back to the last clear: what lies
    before that costs nothing, however much it is."""
    if _asked_alone(until):
        return (until,)
    last = until if until.place is None else _parent(state, until)
    shown = [until]
    runs = reversed(state.runs.values())
    for run in runs:
        if run is last:
            break
    for run in runs:
        if run.parent_run_id is None:
            if run.posted_seq <= state.cleared_seq:
                break
            shown.append(run)
    return reversed(shown)


def _messages(state: ThreadState, until: Run, agent: AgentSpec, documents: Mapping[str, DocumentView]) -> list[Json]:
    messages: list[Json] = []
    for run in _runs(state, until):
        heard = answers(run, _parent(state, run))
        _add_run(messages, run, heard, own=_same_voice(run, until), model=agent.model, documents=documents)
    return messages


def _same_voice(run: Run, other: Run) -> bool:
    return (run.agent_id, run.agent_version) == (other.agent_id, other.agent_version)


def _add_run(
    messages: list[Json],
    run: Run,
    heard: list[Json],
    *,
    own: bool,
    model: str,
    documents: Mapping[str, DocumentView],
) -> None:
    """`heard`: what members of a team said. `own`: the run is of the very agent that is asked now; `model` is what it
    runs on."""
    question: list[Json] = [
        {"type": "text", "text": data}
        for data in (_data("context", run.context), _data("lead_context", run.lead_context))
        if data is not None
    ]
    question.extend(_documents(run.knowledge_ids, documents))
    question.extend(_attached(file) for file in run.attachments)
    if heard:
        question.append({"type": "text", "text": _data("answers", heard)})
    question.append({"type": "text", "text": run.text or " "})
    _add(messages, "user", question)
    for turn in run.turns:
        # A signature and an opaque block mean something to the model that made them alone, and are refused by others:
        # another agent's, another server's, or the one that the agent had before. So are the beginnings of a turn that
        # nobody goes on with.
        given_up = run.ended and turn is run.turns[-1] and turn.stop_reason in ("pause_turn", "cancelled")
        said = _said(turn, whole=own and turn.model == model and not given_up)
        _add(messages, "assistant", said)
        _add(messages, "user", [_result(use) for use in turn.tools])


def _said(turn: Turn, *, whole: bool) -> list[Json]:
    """The blocks of a turn; `whole`: with its thoughts, and what only its provider understands."""
    said: list[Json] = []
    uses = iter(turn.tools)
    for block in turn.blocks:
        if block.kind == "text" and block.text:
            said.append({"type": "text", "text": block.text})
        elif block.kind == "thought" and block.signature is not None and whole:
            said.append({"type": "thinking", "thinking": block.text, "signature": block.signature})
        elif block.kind == "opaque" and block.data is not None and whole:
            said.append(block.data)
        elif block.kind == "tool":
            use = next(uses, None)
            if use is not None:
                said.append({"type": "tool_use", "id": use.tool_call_id, "name": use.name, "input": use.arguments})
    # An answer that ends in a thought (it was cut off there) is refused; one that is only paused goes on from it.
    while said and turn.stop_reason != "pause_turn" and said[-1]["type"] in ("thinking", "redacted_thinking"):
        said.pop()
    return said


def _documents(names: Iterable[str], documents: Mapping[str, DocumentView]) -> Iterable[Json]:
    """The documents that a message names, as data; all of them together as much as one tool's result may be."""
    left = MAX_SHOWN_CHARS
    for name in names:
        found = documents.get(name)
        if found is None:
            yield {"type": "text", "text": f"[the knowledge document {name} was attached here, and removed since]"}
            continue
        content = found.content or ""
        if left:
            source = {"type": "text", "media_type": "text/plain", "data": content[:left]}
            yield {"type": "document", "source": source, "title": found.title}
        if len(content) > left:
            note = f"{json.dumps(found.title, ensure_ascii=False)} goes on: {left} of its {len(content)} characters"
            yield {"type": "text", "text": f"[the document {note} are shown; search_knowledge finds the rest]"}
        left = max(left - len(content), 0)


def _attached(file: Attachment) -> Json:
    """A file that came with a message: shown by reference where models take its kind, otherwise named."""
    source: Json = {
        "type": "object",
        "sha256": file.sha256,
        "media_type": file.content_type,
        "name": file.name,
        "size": file.size,
    }
    kind = file.content_type.partition(";")[0].strip().lower()
    if kind in _IMAGES:
        return {"type": "image", "source": source}
    if kind == "application/pdf" or kind.startswith("text/") or kind in _TEXTS:
        return {"type": "document", "source": source, "title": file.name}
    return {"type": "text", "text": not_shown(file.name, file.content_type, f"{file.size} bytes")}


def not_shown(name: str, content_type: str, why: str, *, readable: bool = True) -> str:
    """The line that stands for a file which cannot be shown."""
    hint = "; read_attachment reads it" if readable else ""
    return f"[attached: {json.dumps(name, ensure_ascii=False)}, {content_type}, {why}{hint}]"


def instead(use: ToolUse) -> tuple[str, str] | None:
    """What a call has in place of a result, as status and text: somebody said no, or nobody said anything in time.
    None: it is to be made, or waited for."""
    if use.given_up is not None:
        return "error", _NO_CLIENT[use.given_up]
    if use.asked is None or use.called is not None:
        return None
    if use.asked.decision == "deny":
        why = f" The person said: {use.asked.comment}" if use.asked.comment else ""
        return "denied", f"This call was not made: a person denied it.{why}"
    if use.asked.decision == "expired":
        return "denied", "This call was not made: nobody approved it in time."
    return None


def left(use: ToolUse) -> tuple[str, str]:
    """What a call has in place of a result when its run ends before it has one."""
    found = instead(use)
    if found is not None:
        return found
    if use.called is None:
        return "cancelled", NOT_RUN
    return ("cancelled", NO_RESULT) if use.effect == "client" else ("unknown", UNKNOWN_OUTCOME)


def _result(use: ToolUse) -> Json:
    if use.status == "unknown":
        text = _settled(use)
    elif use.open:
        text = left(use)[1]
    else:
        text = _edited(use) + _shown(use)
    result: Json = {"type": "tool_result", "tool_use_id": use.tool_call_id, "content": text}
    images = [_attached(file) for file in use.files if file.content_type in _IMAGES]
    if images:
        result["content"] = [{"type": "text", "text": text}, *images]
    if use.status != "ok" and not (use.settled is not None and use.settled.happened):
        result["is_error"] = True
    return result


def _settled(use: ToolUse) -> str:
    """What is known of a call of which nothing came back."""
    if use.settled is None:
        return UNKNOWN_OUTCOME
    said = "it took effect" if use.settled.happened else "it did not take effect"
    comment = f" They said: {use.settled.comment}" if use.settled.comment else ""
    return f"Nothing came back of this call. A person has looked: {said}.{comment}"


def _edited(use: ToolUse) -> str:
    """What the model must know of a call that a person approved: with which arguments, and with what comment."""
    asked = use.asked
    if asked is None or asked.decision != "approve" or use.called is None:
        return ""
    told = []
    if asked.arguments is not None:
        edited = json.dumps(asked.arguments, ensure_ascii=False, sort_keys=True)
        more = " …" if len(edited) > _MOST_EDITED_CHARS else ""
        told.append(f"[A person approved this call with other arguments: {edited[:_MOST_EDITED_CHARS]}{more}]\n")
    if asked.comment:
        told.append(f"[The person who approved it said: {asked.comment}]\n")
    return "".join(told)


def _shown(use: ToolUse) -> str:
    if use.length <= len(use.result):
        return use.result
    return f"{use.result}\n[the result goes on: these were {len(use.result)} of its {use.length} characters]"


def _add(messages: list[Json], role: str, content: list[Json]) -> None:
    if not content:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"].extend(content)
    else:
        messages.append({"role": role, "content": content})

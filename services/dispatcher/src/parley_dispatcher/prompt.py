"""What the model is shown: a thread's journal → one request of the Messages API. Pure.

Built only from what was recorded, never from pieces, so that every attempt and every owner shows the same. No orphan
tool use ever reaches the model: one without a result gets one that says so. Roles alternate.
"""

from __future__ import annotations

import json

from parley_dispatcher.providers.base import Request
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_events.body import AgentSpec, Json

UNKNOWN_OUTCOME = "The outcome of this call is unknown: it was started, and nothing came back. It was not repeated."
MAX_SHOWN_CHARS = 200_000
"""More of a tool's result the model is not shown; the record has all of it."""
NOT_RUN = "This call was not made: the run was stopped before."


def build_request(
    state: ThreadState, run: Run, agent: AgentSpec, workspace_context: str | None, tools: list[Json], attempt: int
) -> Request:
    """The request for the turn of `run` that is due."""
    turn = len(run.turns)
    return Request(
        model=agent.model,
        system=_system(state, run, agent, workspace_context),
        messages=_child_messages(run) if run.parent_run_id else _messages(state, run),
        tools=tools,
        max_tokens=agent.limits.max_tokens,
        temperature=agent.temperature,
        question=run.text,
        turn=turn,
        attempt=attempt,
        call_id=f"{run.run_id.rpartition('.r')[2]}_{turn}",
    )


def _system(state: ThreadState, run: Run, agent: AgentSpec, workspace_context: str | None) -> str:
    parts = [
        run.system_prompt if run.system_prompt is not None else agent.system_prompt,
        workspace_context,
        agent.context,
        state.system_prompt if run.parent_run_id is None else None,
        _data("context", state.context) if run.parent_run_id is None else None,
        run.system_append,
    ]
    return "\n\n".join(part for part in parts if part)


def _data(name: str, value: Json | None) -> str | None:
    return None if value is None else f"<{name}>{json.dumps(value, ensure_ascii=False, sort_keys=True)}</{name}>"


def _messages(state: ThreadState, until: Run) -> list[Json]:
    messages: list[Json] = []
    for run in state.runs.values():
        if run.parent_run_id is None and run.posted_seq > state.cleared_seq:
            _add_run(messages, run)
        if run is until:
            break
    return messages


def _child_messages(run: Run) -> list[Json]:
    messages: list[Json] = []
    _add_run(messages, run)
    return messages


def _add_run(messages: list[Json], run: Run) -> None:
    question: list[Json] = [
        {"type": "text", "text": data}
        for data in (_data("context", run.context), _data("lead_context", run.lead_context))
        if data is not None
    ]
    question.append({"type": "text", "text": run.text or " "})
    _add(messages, "user", question)
    for turn in run.turns:
        said: list[Json] = []
        uses = iter(turn.tools)
        results: list[Json] = []
        for block in turn.blocks:
            if block.kind == "text" and block.text:
                said.append({"type": "text", "text": block.text})
            elif block.kind == "thought" and block.signature is not None:
                said.append({"type": "thinking", "thinking": block.text, "signature": block.signature})
            elif block.kind == "tool":
                use = next(uses, None)
                if use is not None:
                    said.append({"type": "tool_use", "id": use.tool_call_id, "name": use.name, "input": use.arguments})
                    results.append(_result(use))
        _add(messages, "assistant", said)
        _add(messages, "user", results)


def _result(use: ToolUse) -> Json:
    if use.status == "unknown":
        text = UNKNOWN_OUTCOME
    elif use.open:
        text = NOT_RUN if use.called is None else UNKNOWN_OUTCOME
    else:
        text = _shown(use.result)
    result: Json = {"type": "tool_result", "tool_use_id": use.tool_call_id, "content": text}
    if use.status != "ok":
        result["is_error"] = True
    return result


def _shown(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}\n[the result goes on: these were {MAX_SHOWN_CHARS} of its {len(text)} characters]"


def _add(messages: list[Json], role: str, content: list[Json]) -> None:
    if not content:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"].extend(content)
    else:
        messages.append({"role": role, "content": content})

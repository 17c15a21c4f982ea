"""What the dispatcher shows of itself: all its `SPANS` and `METRICS`, and `Instruments`, which the work goes through.

Above it: `owner` (decisions), `runner` (runs, model calls, tool calls), `worker` (what is looked at now). Below it: the
telemetry port. What came of a model call is read from the run's state, which is a fold of its facts: so nothing of the
call itself has to know that it is watched, and nothing happens per delta.

A run may take days and move between processes, so no span is held open for it: its span's id follows from the run's,
its steps are parts of that from the beginning, and the span itself is made when the run has ended, by whoever ends it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from parley_dispatcher.errors import Parked
from parley_dispatcher.state import Run, ThreadState, ToolUse
from parley_dispatcher.tools.base import Result, Tool
from parley_events import facts as f
from parley_events.body import AgentSpec, Block, Usage
from parley_events.codec import Command
from parley_events.telemetry import OFF, Metric, SpanName, Telemetry, about
from parley_events.telemetry.names import POWERS
from parley_events.telemetry.port import Sample, Span, Value

if TYPE_CHECKING:
    from parley_dispatcher.deltas import Deltas
    from parley_dispatcher.owner import World
    from parley_dispatcher.worker import Worker

Said = dict[str, Value | None]
_Deciding = tuple[Command, Callable[[f.FactBody], None]]
_Came = Callable[[tuple[str, Result]], tuple[str, Result]]

COMMANDS_TOPIC = "parley.commands"
MOST_CONTENT = 8000
"""The characters of a text that a span shows, where it may show any."""
_UNKNOWN_TOOL = "_OTHER"
"""Shown for a tool that there is none of: its name is what a model wrote."""

_MESSAGING = (
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
    "messaging.destination.partition.id",
    "messaging.consumer.group.name",
)
_RUN = ("gen_ai.operation.name", "gen_ai.conversation.id", "parley.run.id", "parley.workspace.id")

DECIDE = SpanName(
    "process {messaging.destination.name}",
    "consumer",
    "a command is decided: from its state being there to its outcome being numbered; joins the trace of who sent it",
    (
        *_MESSAGING,
        "messaging.kafka.offset",
        "messaging.message.id",
        "gen_ai.conversation.id",
        "parley.workspace.id",
        "parley.command.type",
        "parley.outcome",
        "parley.refusal",
        "error.type",
    ),
)
RUN = SpanName(
    "invoke_agent {gen_ai.agent.name}",
    "internal",
    "a run, from its message to its end, with what it waited for; joins the trace of its decision, or is part of the "
    "run that asked for it",
    (
        *_RUN,
        "gen_ai.agent.name",
        "gen_ai.agent.version",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "parley.run.end",
        "parley.run.turns",
        "error.type",
    ),
    ("gen_ai.input.messages", "gen_ai.output.messages"),
)
MODEL = SpanName(
    "chat {gen_ai.request.model}",
    "client",
    "one attempt at a model call; part of its run",
    (
        *_RUN,
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.max_tokens",
        "gen_ai.request.temperature",
        "gen_ai.request.stream",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "parley.turn",
        "parley.attempt",
        "error.type",
    ),
    ("gen_ai.output.messages",),
)
TOOL = SpanName(
    "execute_tool {gen_ai.tool.name}",
    "internal",
    "one call of a tool; part of its run",
    (
        *_RUN,
        "gen_ai.tool.name",
        "gen_ai.tool.call.id",
        "gen_ai.tool.type",
        "parley.tool.effect",
        "parley.tool.status",
        "error.type",
    ),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
)
SPANS = (DECIDE, RUN, MODEL, TOOL)
"""Every span of the dispatcher."""

DECIDE_DURATION = Metric(
    "messaging.process.duration",
    "histogram",
    "s",
    "how long deciding a command took; its count is the rate",
    ("messaging.system", "messaging.operation.name", "messaging.destination.name", "parley.command.type", "error.type"),
)
LAG = Metric(
    "parley.consumer.lag",
    "gauge",
    "{record}",
    "commands of a partition that lie on the log and are not finished yet; known once one was read",
    ("messaging.destination.name", "messaging.destination.partition.id", "messaging.consumer.group.name"),
)
WAITING = Metric("parley.dispatcher.commands.waiting", "gauge", "{command}", "commands read and not decided yet")
BACKLOG = Metric("parley.dispatcher.facts.backlog", "gauge", "By", "facts that the log has not acknowledged yet")
WINDOW = Metric("parley.dispatcher.window", "gauge", "By", "facts kept because history has not folded them yet")
RUNS = Metric("parley.dispatcher.runs", "gauge", "{run}", "runs at work in this process")
RUN_DURATION = Metric(
    "gen_ai.invoke_agent.duration",
    "histogram",
    "s",
    "how long a run took that ended here, from its message on; its count is the rate",
    ("gen_ai.operation.name", "parley.run.end", "error.type"),
)
MODEL_DURATION = Metric(
    "gen_ai.client.operation.duration",
    "histogram",
    "s",
    "how long an attempt at a model call took; its count is the rate",
    ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"),
)
TOKENS = Metric(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    "tokens of a model call; types beside input and output: cache_read, cache_creation (both are within input)",
    ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"),
    POWERS,
)
TOOL_DURATION = Metric(
    "gen_ai.execute_tool.duration",
    "histogram",
    "s",
    "how long a call of a tool took; its count is the rate",
    ("gen_ai.operation.name", "gen_ai.tool.name", "parley.tool.status", "error.type"),
)
DROPPED = Metric(
    "parley.dispatcher.pieces.dropped",
    "counter",
    "{batch}",
    "batches of pieces that could not be shown (facts carry all)",
)
METRICS = (
    DECIDE_DURATION,
    LAG,
    WAITING,
    BACKLOG,
    WINDOW,
    RUNS,
    RUN_DURATION,
    MODEL_DURATION,
    TOKENS,
    TOOL_DURATION,
    DROPPED,
)
"""Every metric of the dispatcher."""


class Instruments:
    """What the dispatcher's work goes through. `system` names the log, as OpenTelemetry names messaging systems."""

    def __init__(self, telemetry: Telemetry = OFF, system: str = "kafka", group: str = "") -> None:
        self._telemetry, self._system, self._group = telemetry.scope("parley.dispatcher"), system, group

    def deciding(self, partition: int, offset: int, command: Command) -> AbstractContextManager[_Deciding]:
        """A command is decided. Gives the command as its outcome is to follow from it, and a function that is to be
        told the outcome."""
        if not self._telemetry.on:
            return nullcontext((command, _nothing))
        return self._deciding(partition, offset, command)

    @contextmanager
    def _deciding(self, partition: int, offset: int, command: Command) -> Iterator[_Deciding]:
        what: Said = {
            "messaging.system": self._system,
            "messaging.operation.name": "process",
            "messaging.destination.name": COMMANDS_TOPIC,
            "parley.command.type": command.type,
        }
        more: Said = {
            "messaging.operation.type": "process",
            "messaging.destination.partition.id": str(partition),
            "messaging.consumer.group.name": self._group,
            "messaging.kafka.offset": offset,
            "messaging.message.id": command.id,
            "parley.workspace.id": command.workspace_id,
            "gen_ai.conversation.id": _thread(command.stream),
        }
        joins = [command.traceparent] if command.traceparent is not None else []
        span = self._telemetry.span(DECIDE, what | more, joins=joins)
        poison: list[str] = []

        def decided(body: f.FactBody) -> None:
            refusal = body.code if isinstance(body, f.CommandRejected) else None
            span.set({"parley.outcome": body.type, "parley.refusal": refusal})
            if refusal == "poison":
                poison.append(refusal)
                span.fail(refusal)

        began = perf_counter()
        with about(thread_id=_thread(command.stream)), span:
            yield replace(command, traceparent=span.traceparent or command.traceparent), decided
        error: Said = {"error.type": poison[0]} if poison else {}
        self._telemetry.record(DECIDE_DURATION, perf_counter() - began, what | error)

    def model_call(
        self, state: ThreadState, run: Run, spec: AgentSpec, turn: int, attempt: int
    ) -> AbstractContextManager[None]:
        """One attempt at a model call; what came of it is in the run afterwards."""
        return self._model_call(state, run, spec, turn, attempt) if self._telemetry.on else nullcontext()

    @contextmanager
    def _model_call(self, state: ThreadState, run: Run, spec: AgentSpec, turn: int, attempt: int) -> Iterator[None]:
        kind: Said = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider_name(spec.model),
            "gen_ai.request.model": spec.model,
        }
        more: Said = {
            "gen_ai.request.max_tokens": spec.limits.max_tokens,
            "gen_ai.request.temperature": spec.temperature,
            "gen_ai.request.stream": True,
            "parley.turn": turn,
            "parley.attempt": attempt,
        }
        turns, failed_before, used, began = len(run.turns), run.failed, run.usage, perf_counter()
        with self._step(MODEL, state, run, kind | more) as span:
            try:
                yield
            finally:
                error = _call_error(run, turns, failed_before)
                usage = _since(run.usage, used)
                said = run.turns[-1] if len(run.turns) > turns else None
                span.set(_usage(usage) | {"gen_ai.response.finish_reasons": [said.stop_reason] if said else None})
                if said is not None and self._telemetry.content:
                    span.set({"gen_ai.output.messages": _messages("assistant", said.blocks)})
                if error is not None:
                    span.fail(error)
                failed: Said = {} if error is None else {"error.type": error}
                self._telemetry.record(MODEL_DURATION, perf_counter() - began, kind | failed)
                for token_type, count in _tokens(usage):
                    self._telemetry.record(TOKENS, count, kind | {"gen_ai.token.type": token_type})

    def tool_call(self, state: ThreadState, run: Run, use: ToolUse, tool: Tool | None) -> AbstractContextManager[_Came]:
        """One call of a tool. Gives a function that is to be handed what came of it, and hands it on."""
        return self._tool_call(state, run, use, tool) if self._telemetry.on else nullcontext(_itself)

    @contextmanager
    def _tool_call(self, state: ThreadState, run: Run, use: ToolUse, tool: Tool | None) -> Iterator[_Came]:
        kind: Said = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name if tool is not None else _UNKNOWN_TOOL,
        }
        more: Said = {
            "gen_ai.tool.call.id": use.tool_call_id,
            "gen_ai.tool.type": "function",
            "parley.tool.effect": tool.effect if tool is not None else None,
        }
        began, status = perf_counter(), "abandoned"
        with self._step(TOOL, state, run, kind | more) as span:
            if self._telemetry.content:
                span.set({"gen_ai.tool.call.arguments": _cut(json.dumps(use.arguments, ensure_ascii=False))})

            def came(outcome: tuple[str, Result]) -> tuple[str, Result]:
                nonlocal status
                status = outcome[0]
                if self._telemetry.content:
                    span.set({"gen_ai.tool.call.result": _cut(outcome[1].text)})
                return outcome

            try:
                yield came
            except Parked:
                status = "waiting"
                raise
            finally:
                span.set({"parley.tool.status": status})
                failed: Said = {}
                if status not in ("ok", "waiting"):
                    span.fail(status)
                    failed = {"error.type": status}
                took = perf_counter() - began
                self._telemetry.record(TOOL_DURATION, took, kind | {"parley.tool.status": status} | failed)

    def run_ended(self, state: ThreadState, run: Run, end: f.FactBody, now_ms: int) -> None:
        """A run has come to its end, here; it may have begun elsewhere."""
        if not self._telemetry.on:
            return
        error = end.code if isinstance(end, f.RunFailed) else None
        kind: Said = {"gen_ai.operation.name": "invoke_agent", "parley.run.end": end.type}
        failed: Said = {} if error is None else {"error.type": error}
        self._telemetry.record(RUN_DURATION, max(now_ms - run.posted_ms, 0) / 1000, kind | failed)
        if run.traceparent is None:
            return
        about_run: Said = {
            **_run(state, run),
            **kind,
            **_usage(run.usage),
            "gen_ai.agent.name": run.agent_id,
            "gen_ai.agent.version": str(run.agent_version),
            "parley.run.turns": len(run.turns),
        }
        if self._telemetry.content:
            about_run["gen_ai.input.messages"] = _messages("user", (Block(kind="text", text=run.text),))
            said = run.turns[-1].blocks if run.turns else ()
            about_run["gen_ai.output.messages"] = _messages("assistant", said)
        parent = run.parent_run_id
        span = self._telemetry.span(
            RUN,
            about_run,
            parent=_part_of(run.traceparent, parent) if parent is not None else None,
            joins=[run.traceparent] if parent is None else None,
            span_id=_span_id(run.run_id),
            start_ms=run.posted_ms,
        )
        if error is not None:
            span.fail(error)
        span.end(max(now_ms, run.posted_ms))

    def watch(self, world: World, worker: Worker, deltas: Deltas) -> None:
        """Look at what has a value now, whenever metrics are exported."""
        if not self._telemetry.on:
            return

        async def lag() -> list[Sample]:
            ends = await world.log.ends(COMMANDS_TOPIC)
            where = {"messaging.destination.name": COMMANDS_TOPIC, "messaging.consumer.group.name": self._group}
            marks = {p: owner.watermark() for p, owner in worker.owners.items()}
            return [
                (max(ends[p] - mark, 0), where | {"messaging.destination.partition.id": str(p)})
                for p, mark in marks.items()
                if mark >= 0
            ]

        self._telemetry.watch(LAG, lag)
        for metric, read in (
            (WAITING, lambda: sum(owner.waiting for owner in worker.owners.values())),
            (BACKLOG, lambda: world.sender.backlog),
            (WINDOW, lambda: sum(owner.window_size for owner in worker.owners.values())),
            (RUNS, lambda: sum(len(owner.running) for owner in worker.owners.values())),
            (DROPPED, lambda: deltas.dropped),
        ):
            self._telemetry.watch(metric, _one(read))

    def _step(self, what: SpanName, state: ThreadState, run: Run, attributes: Said) -> Span:
        """A span of a run's step: part of the run's span, which is made when the run ends."""
        if run.traceparent is None:
            # It was opened by a dispatcher without telemetry: there is no trace to be part of.
            return OFF.span(what, {})
        parent = _part_of(run.traceparent, run.run_id)
        return self._telemetry.span(what, _run(state, run) | attributes, parent=parent)


def provider_name(model: str) -> str:
    """The provider of a model, as OpenTelemetry names them: whose way of speaking it is. An agent's own server speaks
    the Messages API, whoever runs it; the model's name tells it apart."""
    return "parley.scripted" if model == "scripted" else "anthropic"


def _run(state: ThreadState, run: Run) -> Said:
    return {
        "gen_ai.conversation.id": state.stream,
        "parley.run.id": run.run_id,
        "parley.workspace.id": state.workspace_id,
    }


def _span_id(run_id: str) -> int:
    """The id of a run's span, known to every process that works on the run before there is a span."""
    return int.from_bytes(hashlib.sha256(f"run {run_id}".encode()).digest()[:8], "big") or 1


def _part_of(traceparent: str, run_id: str) -> str:
    """The context of a run's span: in the trace of its decision, and sampled as that was."""
    version, trace_id, _, flags = traceparent.split("-")
    return f"{version}-{trace_id}-{_span_id(run_id):016x}-{flags}"


def _call_error(run: Run, turns: int, failed_before: f.ModelFailed | None) -> str | None:
    """What a model call came to, from the run's state after it; None: it said what it had to say."""
    if run.ended or run.status == "cancelling":
        return "cancelled"
    if len(run.turns) > turns:
        return None
    if run.failed is not None and run.failed is not failed_before:
        return run.failed.kind
    # It goes on elsewhere: the claim is another's, or this process stops.
    return "abandoned"


def _since(now: Usage, before: Usage) -> Usage:
    return Usage(
        input_tokens=now.input_tokens - before.input_tokens,
        output_tokens=now.output_tokens - before.output_tokens,
        cache_read_tokens=now.cache_read_tokens - before.cache_read_tokens,
        cache_write_tokens=now.cache_write_tokens - before.cache_write_tokens,
    )


def _tokens(usage: Usage) -> list[tuple[str, int]]:
    counts = (
        ("input", _input(usage)),
        ("output", usage.output_tokens),
        ("cache_read", usage.cache_read_tokens),
        ("cache_creation", usage.cache_write_tokens),
    )
    return [(name, count) for name, count in counts if count > 0]


def _input(usage: Usage) -> int:
    """All that the model was given, as OpenTelemetry counts it. The Messages API, and so our records, count what came
    from the cache or went there beside `input_tokens`, not within."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def _usage(usage: Usage) -> Said:
    return {
        "gen_ai.usage.input_tokens": _input(usage),
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens or None,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens or None,
    }


def _messages(role: str, blocks: tuple[Block, ...]) -> str:
    """Blocks as the conventions write messages, in JSON, cut."""
    parts: list[dict[str, object]] = []
    for block in blocks:
        if block.kind == "tool":
            call: dict[str, object] = {"type": "tool_call", "id": block.tool_call_id, "name": block.name}
            parts.append(call | {"arguments": _cut(json.dumps(block.arguments, ensure_ascii=False))})
        else:
            kind = "reasoning" if block.kind == "thought" else "text"
            parts.append({"type": kind, "content": _cut(block.text)})
    return _cut(json.dumps([{"role": role, "parts": parts}], ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CONTENT else f"{text[:MOST_CONTENT]} [cut]"


def _thread(stream: str) -> str | None:
    return None if stream.startswith("ws:") else stream


def _one(read: Callable[[], float]) -> Callable[[], list[Sample]]:
    return lambda: [(read(), {})]


def _itself(outcome: tuple[str, Result]) -> tuple[str, Result]:
    return outcome


def _nothing(body: f.FactBody) -> None:
    return None

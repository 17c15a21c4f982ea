"""One message through gateway, Kafka, dispatcher and history, as an OTLP receiver sees it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator

import pytest

import parley_dispatcher.telemetry
import parley_gateway.telemetry
import parley_history.telemetry
from parley_events.telemetry import SpanName
from tests.support.otlp import Received, Receiver, receiver
from tests.support.sse import text_of
from tests.support.system import System, collect, eventually, new_thread, start, stop

SECRET = "rumpelstiltskin"
SCRIPT = f'/text I say {SECRET}. \n/tool echo {{"word": "{SECRET}"}}\n/stream 20 5'
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
LISTED = {
    "parley.gateway": parley_gateway.telemetry,
    "parley.dispatcher": parley_dispatcher.telemetry,
    "parley.history": parley_history.telemetry,
}
MODEL = {"PARLEY_MODEL_BACKOFF_MS": "20", "PARLEY_MODEL_STALL_S": "1"}


@pytest.fixture(scope="module")
def got() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def traced(got: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A cluster that exports to the receiver."""
    # FastAPI would export by itself, too, if it were let.
    env = {**got.environment, "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    system = start("cluster", tmp_path_factory.mktemp("traced"), **env, **MODEL)
    yield system
    assert stop(system) == 0


async def chat(system: System, trace: str, script: str = SCRIPT, sampled: bool = True) -> str:
    """One message, sent within a trace; its thread."""
    async with system.client() as client:
        thread = await new_thread(client)
        headers = {"traceparent": f"00-{trace}-{CALLER}-{int(sampled):02x}"}
        url = f"/api/v1/chat/threads/{thread}/messages"
        frames = await collect(client, "POST", url, json={"content": script}, headers=headers)
    assert frames[-1].type == "run.completed"
    assert text_of(frames).endswith("0019 ")
    return thread


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


def connected(spans: list[Received]) -> bool:
    """Whether one can come from any span to any other by parents and links."""
    ids = {span.span_id for span in spans}
    reached = {spans[0].span_id}
    while True:
        near = {
            end
            for span in spans
            for one, other in [
                *((span.span_id, link) for _, link in span.links),
                (span.span_id, span.parent_id),
            ]
            for end in ((other,) if one in reached else (one,) if other in reached else ())
        }
        if near & ids <= reached:
            return ids <= reached
        reached |= near & ids


async def test_one_message_is_one_connected_trace(traced: System, got: Receiver) -> None:
    thread = await chat(traced, TRACE)

    async def all_there() -> bool:
        spans = got.of_trace(TRACE)
        folded = {link for span in named(spans, "process parley.events") for link in span.links}
        return bool(named(spans, "invoke_agent scripted")) and bool(folded)

    await eventually(all_there)
    spans = got.of_trace(TRACE)
    [request] = named(spans, "POST /api/v1/chat/threads/{thread_id}/messages")
    [send] = named(spans, "send parley.commands")
    [decide] = named(spans, "process parley.commands")
    [run] = named(spans, "invoke_agent scripted")
    models = named(spans, "chat scripted")
    [tool] = named(spans, "execute_tool echo")
    folds = named(spans, "process parley.events")

    # Parents within one piece of work, links across the log.
    assert (request.service, request.kind, request.parent_id) == ("parley-gateway", "server", CALLER)
    assert (send.service, send.kind, send.parent_id) == ("parley-gateway", "producer", request.span_id)
    assert (decide.service, decide.kind, decide.parent_id) == ("parley-dispatcher", "consumer", "")
    assert decide.links == ((TRACE, send.span_id),)
    assert (run.kind, run.parent_id, run.links) == ("internal", "", ((TRACE, decide.span_id),))
    assert len(models) == 2
    assert {(model.kind, model.parent_id) for model in models} == {("client", run.span_id)}
    assert (tool.kind, tool.parent_id) == ("internal", run.span_id)
    assert folds
    for fold in folds:
        assert (fold.service, fold.kind, fold.parent_id) == ("parley-history", "consumer", "")
        assert set(fold.links) <= {(TRACE, decide.span_id)}
    assert connected(spans)

    # What they say.
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["gen_ai.conversation.id"] == thread
    assert send.attributes["messaging.system"] == "kafka"
    assert send.attributes["messaging.kafka.offset"] == decide.attributes["messaging.kafka.offset"]
    assert (
        send.attributes["messaging.destination.partition.id"] == decide.attributes["messaging.destination.partition.id"]
    )
    assert decide.attributes["parley.outcome"] == "message.posted"
    assert run.attributes["parley.run.end"] == "run.completed"
    assert (
        sum(model.attributes["gen_ai.usage.output_tokens"] for model in models)
        == (run.attributes["gen_ai.usage.output_tokens"])
    )
    assert run.attributes["gen_ai.usage.output_tokens"] > 0
    assert {model.attributes["gen_ai.response.finish_reasons"][0] for model in models} == {"tool_use", "end_turn"}
    assert tool.attributes["parley.tool.status"] == "ok"
    assert request.start_ns <= send.start_ns <= decide.start_ns <= min(model.start_ns for model in models)
    # The run's own times are whole milliseconds.
    assert run.start_ns <= min(model.start_ns for model in models) + 1_000_000
    assert run.end_ns >= max(model.end_ns for model in models) - 1_000_000
    assert not [span for span in spans if span.failed]


async def test_every_span_and_metric_is_one_of_the_list_and_says_only_what_stands_there(
    traced: System, got: Receiver
) -> None:
    await chat(traced, "1" * 32)

    async def measured() -> bool:
        return all(got.metrics(scope) >= set_of_metrics(scope) for scope in LISTED)

    await eventually(measured)
    for span in got.spans:
        listed = [one for one in LISTED[span.scope].SPANS if fits(one, span)]
        assert listed, f"{span.scope}: {span.name}"
        assert set(span.attributes) <= set(listed[0].attributes), span.name
    for (scope, name), points in got.points.items():
        [metric] = [one for one in LISTED[scope].METRICS if one.name == name]
        for _, attributes in got.values(scope, name):
            assert set(attributes) <= set(metric.attributes), name
        assert len(points) < 100, f"{name} has too many series"
    [(first, route)] = got.values("parley.gateway", "parley.gateway.first_delta")
    assert first >= 1 and route == {"http.route": "/api/v1/chat/threads/{thread_id}/messages"}
    lag = got.values("parley.dispatcher", "parley.consumer.lag")
    assert lag and len(lag) <= 8, "a series for each partition that something was read of"
    assert len(got.values("parley.history", "parley.consumer.lag")) == 8
    assert {kind["gen_ai.token.type"] for _, kind in got.values("parley.dispatcher", "gen_ai.client.token.usage")} == {
        "input",
        "output",
    }
    folded = got.values("parley.history", "parley.history.facts.folded")
    assert folded[0][0] > 10
    assert set(got.paths) == {"/v1/traces", "/v1/metrics"}
    instances = {one["service.instance.id"] for one in got.resources}
    assert len(instances) == 3, "each process is told apart"


def set_of_metrics(scope: str) -> set[str]:
    return {metric.name for metric in LISTED[scope].METRICS}


def fits(listed: SpanName, span: Received) -> bool:
    name = listed.name
    for key, value in span.attributes.items():
        name = name.replace(f"{{{key}}}", str(value))
    return name == span.name and listed.kind == span.kind


async def test_what_was_written_is_in_no_span(traced: System, got: Receiver) -> None:
    await chat(traced, "2" * 32)

    async def ended() -> bool:
        return bool(named(got.of_trace("2" * 32), "invoke_agent scripted"))

    await eventually(ended)
    assert not got.holds(SECRET)


async def test_a_trace_that_its_caller_does_not_sample_is_not_exported_by_anyone(traced: System, got: Receiver) -> None:
    await chat(traced, "3" * 32, sampled=False)
    await chat(traced, "4" * 32)

    async def ended() -> bool:
        folds = named(got.of_trace("4" * 32), "process parley.events")
        return bool(named(got.of_trace("4" * 32), "invoke_agent scripted")) and bool(folds)

    await eventually(ended)
    assert not got.of_trace("3" * 32)


async def test_a_line_of_the_log_says_which_trace_and_thread_it_is_about(traced: System, got: Receiver) -> None:
    trace = "5" * 32
    # A tool that breaks is logged; this one cannot make its folder.
    (traced.folder / "data" / "effects").write_text("in the way")
    thread = await chat(traced, trace, '/tool append_line {"file": "a", "line": "b"}\n/stream 20 1')

    async def logged() -> bool:
        lines = [
            json.loads(line)
            for file in (traced.folder / "data" / "logs").glob("dispatcher-*.log")
            for line in file.read_text().splitlines()
        ]
        return any(
            line.get("trace_id") == trace and line.get("thread_id") == thread and line.get("run_id") and line["span_id"]
            for line in lines
        )

    await eventually(logged)


@pytest.mark.parametrize("answers", ["never", "refuse"])
async def test_an_endpoint_that_hangs_or_refuses_slows_nothing(
    answers: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with receiver("never" if answers == "never" else "refuse") as silent:
        system = start("up", tmp_path_factory.mktemp(answers), **silent.environment, **MODEL)
        try:
            began = time.monotonic()
            await asyncio.gather(*(chat(system, f"{n + 1:032x}") for n in range(20)))
            took = time.monotonic() - began

            async def tried() -> bool:
                return silent.requests > 0

            await eventually(tried)
        finally:
            system.process.send_signal(signal.SIGINT)
            stopping = time.monotonic()
            status = system.process.wait(30)
            stopped = time.monotonic() - stopping
    assert status == 0
    assert took < 15, "20 chats at once take a second or two"
    assert stopped < 10
    log = (system.folder / "data" / "logs" / "parley.log").read_text().splitlines()
    complaints = [line for line in log if '"logger": "opentelemetry' in line]
    assert sum("Transient error" in line for line in complaints) <= 2, "a line a minute of each exporter"
    assert len(complaints) <= 12
    if answers == "refuse":
        assert complaints, "that nothing arrives is said"


async def test_what_was_written_is_there_when_it_is_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In one process, on the embedded log, too: the same spans, as one connected trace."""
    with receiver() as got:
        system = start("up", tmp_path_factory.mktemp("told"), PARLEY_TRACE_CONTENT="1", **got.environment, **MODEL)
        try:
            await chat(system, TRACE)
        finally:
            assert stop(system) == 0
        spans = got.of_trace(TRACE)
        assert connected(spans)
        assert {span.service for span in spans} == {"parley"}
        [tool] = named(spans, "execute_tool echo")
        assert SECRET in tool.attributes["gen_ai.tool.call.arguments"]
        assert SECRET in tool.attributes["gen_ai.tool.call.result"]
        assert SECRET in named(spans, "chat scripted")[0].attributes["gen_ai.output.messages"]
        [run] = named(spans, "invoke_agent scripted")
        assert SECRET in run.attributes["gen_ai.input.messages"]

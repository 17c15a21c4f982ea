"""What the dispatcher tells telemetry of decisions, runs, model calls and tools, on a memory log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley_dispatcher import telemetry as t
from parley_dispatcher.providers.base import Event, Request, Said, Stopped
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_events import commands as c
from parley_events.body import Usage
from parley_events.ids import run_id
from tests.support.recorder import Recorder
from tests.unit.dispatcher.world import (
    ANN,
    HeldModel,
    World,
    agent,
    eventually,
    make_world,
    new_thread,
    post,
    within,
)

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "rumpelstiltskin"


@pytest.fixture
def told() -> Recorder:
    return Recorder()


def trace_of(traceparent: str | None) -> str:
    assert traceparent is not None
    return traceparent.split("-")[1]


async def test_a_decision_joins_its_command_and_the_run_joins_the_decision(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, post('/text A\n/tool echo {"a": 1}\n/text B'), traceparent=SENT)
        await world.read.ended(thread)
    [decide], [run] = told.of(t.DECIDE), told.of(t.RUN)
    assert decide.joins == [SENT] and decide.parent is None
    assert run.joins == [decide.traceparent] and run.parent is None
    parts = [*told.of(t.MODEL), *told.of(t.TOOL)]
    assert len(parts) == 3
    for part in parts:
        assert part.parent == run.traceparent, "part of a span that there is only later"
    assert all(span.ended for span in told.spans)
    assert {fact.traceparent for fact in world.read.facts if fact.stream == thread} == {decide.traceparent}
    assert decide.attributes["parley.outcome"] == "message.posted"


async def test_a_command_without_a_trace_begins_one(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, post("/text A"))
        await world.read.ended(thread)
    [decide] = told.of(t.DECIDE)
    assert decide.joins == []
    assert {trace_of(span.traceparent) for span in told.spans} == {trace_of(decide.traceparent)}


async def test_without_telemetry_the_callers_trace_goes_on_as_it_came(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post("/text A"), traceparent=SENT)
        await world.read.ended(thread)
    assert {fact.traceparent for fact in world.read.facts if fact.stream == thread} == {SENT}


async def test_a_refused_command_is_no_error_and_says_why(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, c.CancelRun(principal=ANN, run_id=run_id(thread, "none")))
    [decide] = told.of(t.DECIDE)
    assert decide.attributes["parley.outcome"] == "command.rejected"
    assert decide.attributes["parley.refusal"] == "not_found"
    assert decide.error is None


async def test_each_attempt_at_a_model_call_is_a_span_with_what_it_came_to(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, post("/error 529 2\n/usage 10 4\n/text A"))
        await world.read.ended(thread)
    calls = told.of(t.MODEL)
    assert [call.error for call in calls] == ["529", "529", None]
    assert [call.attributes["parley.attempt"] for call in calls] == [1, 2, 3]
    assert calls[2].attributes["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert calls[2].attributes["gen_ai.usage.input_tokens"] == 10
    assert calls[2].attributes["gen_ai.usage.output_tokens"] == 4
    durations = [attributes.get("error.type") for _, attributes in told.said(t.MODEL_DURATION)]
    assert durations == ["529", "529", None]
    tokens = {said["gen_ai.token.type"]: value for value, said in told.said(t.TOKENS) if value in (10, 4)}
    assert tokens == {"input": 10, "output": 4}
    [(_, ended)] = told.said(t.RUN_DURATION)
    assert ended["parley.run.end"] == "run.completed"


@pytest.mark.parametrize(
    ("model", "base_url", "default", "provider", "called"),
    [
        ("scripted", None, "claude-sonnet-4-5", "parley.scripted", "scripted"),
        ("default", None, "scripted", "parley.scripted", "scripted"),
        ("default", None, "claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("my-model", "http://127.0.0.1:9000", "scripted", "anthropic", "my-model"),
    ],
)
async def test_a_model_call_names_the_model_that_was_called_and_the_way_it_speaks(
    tmp_path: Path, told: Recorder, model: str, base_url: str | None, default: str, provider: str, called: str
) -> None:
    thread, spec = new_thread(), agent(model=model, base_url=base_url)
    providers = {"scripted": ScriptedModel(60.0), "claude": ScriptedModel(60.0)}
    async with (
        make_world(tmp_path, spec) as world,
        world.dispatcher(telemetry=told, providers=providers, model=default),
    ):
        await world.ask(thread, post("/text A"))
        await world.read.ended(thread)
    [span], [(_, counted)] = told.of(t.MODEL), told.said(t.MODEL_DURATION)
    for attributes in (span.attributes, counted):
        assert attributes["gen_ai.provider.name"] == provider
        assert attributes["gen_ai.request.model"] == called


class Cached(ScriptedModel):
    """A model that had read most of what it was given before."""

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        async for event in super().stream(request):
            if isinstance(event, Stopped):
                usage = Usage(input_tokens=10, output_tokens=4, cache_read_tokens=200, cache_write_tokens=3000)
                event = Stopped(event.stop_reason, usage)
            yield event


async def test_what_came_from_the_cache_is_within_the_input(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told, providers={"scripted": Cached(60.0)}):
        await world.ask(thread, post("/text A"))
        await world.read.ended(thread)
    for span in (*told.of(t.MODEL), *told.of(t.RUN)):
        said = {name.removeprefix("gen_ai.usage."): value for name, value in span.attributes.items()}
        assert (said["input_tokens"], said["output_tokens"]) == (3210, 4)
        assert (said["cache_read.input_tokens"], said["cache_creation.input_tokens"]) == (200, 3000)
    tokens = {said["gen_ai.token.type"]: value for value, said in told.said(t.TOKENS)}
    assert tokens == {"input": 3210, "output": 4, "cache_read": 200, "cache_creation": 3000}


async def test_a_run_that_fails_says_how(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told, model_attempts=1):
        await world.ask(thread, post("/error 529 always"))
        end = await world.read.ended(thread)
    [run] = told.of(t.RUN)
    assert run.error == end.code
    assert run.attributes["parley.run.end"] == "run.failed"


async def test_a_cancelled_model_call_is_shown_as_cancelled(world: World, told: Recorder) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(telemetry=told, providers={"scripted": model}):
        posted = await world.ask(thread, post("/text HOLD"))
        await within(model.holding.wait())
        await world.ask(thread, c.CancelRun(principal=ANN, run_id=posted.run_id))
        await world.read.ended(thread)
        await eventually(lambda: all(span.ended for span in told.spans))
    assert [call.error for call in told.of(t.MODEL)] == ["cancelled"]
    assert told.of(t.RUN)[0].attributes["parley.run.end"] == "run.cancelled"


async def test_tools_are_shown_with_what_came_of_them_and_made_up_names_are_not(world: World, told: Recorder) -> None:
    thread = new_thread()
    script = (
        f'/tool fail {{"message": "{SECRET}"}}\n/tool {SECRET} {{}}\n/tool echo {{"a": "{SECRET}"}}\n/text {SECRET}'
    )
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, post(script))
        await world.read.ended(thread)
    tools = {span.attributes["gen_ai.tool.name"]: span for span in told.of(t.TOOL)}
    assert {name: span.error for name, span in tools.items()} == {"fail": "error", "_OTHER": "error", "echo": None}
    assert tools["echo"].attributes["parley.tool.status"] == "ok"
    everything = [span.attributes for span in told.spans] + [attributes for _, _, attributes in told.values]
    assert SECRET not in str(everything)
    kinds = {attributes["gen_ai.tool.name"] for _, attributes in told.said(t.TOOL_DURATION)}
    assert kinds == {"fail", "_OTHER", "echo"}


async def test_what_was_written_is_shown_when_it_is_asked_for_and_is_cut(world: World) -> None:
    thread, told = new_thread(), Recorder(content=True)
    long = SECRET * 2000
    async with world.dispatcher(telemetry=told):
        await world.ask(thread, post(f'/tool echo {{"a": "{long}"}}\n/text {SECRET}'))
        await world.read.ended(thread)
    [tool] = told.of(t.TOOL)
    for name in t.TOOL.content:
        assert SECRET in tool.attributes[name]
        assert len(tool.attributes[name]) <= t.MOST_CONTENT + 10
    assert SECRET in told.of(t.MODEL)[1].attributes["gen_ai.output.messages"]
    assert SECRET in told.of(t.RUN)[0].attributes["gen_ai.input.messages"]
    allowed = {span.what: {*span.what.attributes, *span.what.content} for span in told.spans}
    assert all(set(span.attributes) <= allowed[span.what] for span in told.spans)


async def test_an_agent_asked_by_an_agent_is_part_of_the_run_that_asked(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told):
        await world.ask(
            thread, post('/tool ask_agent {"agent_id": "assistant", "message": "/text inner"}\n/text outer')
        )
        await world.read.ended(thread, count=2)
    child, parent = told.of(t.RUN)
    assert child.parent == parent.traceparent
    assert child.attributes["gen_ai.agent.name"] == "assistant"
    inner = [call for call in told.of(t.MODEL) if call.parent == child.traceparent]
    assert len(inner) == 1


async def test_a_run_that_moves_is_one_span_made_by_the_one_who_ends_it(world: World, told: Recorder) -> None:
    thread, first = new_thread(), Recorder()
    held = HeldModel()
    async with world.dispatcher(telemetry=first, providers={"scripted": held}):
        await world.ask(thread, post("/text HOLD"))
        await within(held.holding.wait())
    assert not first.of(t.RUN)
    assert [call.error for call in first.of(t.MODEL)] == ["abandoned"]
    async with world.dispatcher(telemetry=told):
        await world.read.ended(thread)
    [run], [decide] = told.of(t.RUN), first.of(t.DECIDE)
    assert run.joins == [decide.traceparent]
    assert {first.of(t.MODEL)[0].parent, told.of(t.MODEL)[0].parent} == {run.traceparent}


async def test_a_run_that_was_opened_without_telemetry_is_counted_and_not_traced(world: World, told: Recorder) -> None:
    thread = new_thread()
    held = HeldModel()
    async with world.dispatcher(providers={"scripted": held}):
        await world.ask(thread, post("/text HOLD"))
        await within(held.holding.wait())
    async with world.dispatcher(telemetry=told):
        await world.read.ended(thread)
    assert told.spans == []
    assert len(told.said(t.RUN_DURATION)) == len(told.said(t.MODEL_DURATION)) == 1


async def test_gauges_show_what_is_so_now(world: World, told: Recorder) -> None:
    thread, model = new_thread(0), HeldModel()
    async with world.dispatcher(telemetry=told, providers={"scripted": model}):
        await world.ask(thread, post("/text HOLD"))
        await within(model.holding.wait())
        assert await told.look(t.RUNS) == [(1, {})]
        assert await told.look(t.WAITING) == [(0, {})]
        [(lag, said)] = await told.look(t.LAG)
        assert lag in (0, 1), "its outcome may not have been read back yet"
        assert said["messaging.destination.partition.id"] == "0"
        assert set(told.watched) == {metric.name for metric in t.METRICS if metric.instrument == "gauge"} | {
            t.DROPPED.name
        }


class Counting:
    """A provider whose deltas are many."""

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        for _ in range(500):
            yield Said(0, "text", "x")
        yield Stopped("end_turn", Usage())


async def test_nothing_is_told_per_delta(world: World, told: Recorder) -> None:
    thread = new_thread()
    async with world.dispatcher(telemetry=told, providers={"scripted": Counting()}):
        await world.ask(thread, post("hello"))
        await world.read.ended(thread)
    assert len(told.spans) == 3
    assert len(told.values) == 3

"""The adapter on the OpenTelemetry SDK, as a receiver sees it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from parley_events.serve import JsonLines
from parley_events.telemetry import OFF, Metric, SpanName, Telemetry, TelemetrySettings, about, open_telemetry
from tests.support.otlp import Received, Receiver, receiver

WORK = SpanName("work {a}", "internal", "work", ("a", "b"))
STEP = SpanName("step", "client", "a step", ())
TOOK = Metric("took", "histogram", "s", "how long", ("a",))
SEEN = Metric("seen", "counter", "1", "how often", ("a",))
HELD = Metric("held", "gauge", "1", "how many")
TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1" * 32
FROM = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"
TEST_LIMIT_S = 10.0


@pytest.fixture
def got(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@asynccontextmanager
async def telemetry(**settings: bool) -> AsyncIterator[Telemetry]:
    """Telemetry as a process has it; all of it is exported at the end."""
    opened = open_telemetry("test", TelemetrySettings(**({"traces": True, "metrics": True} | settings)))
    try:
        yield opened
    finally:
        await asyncio.to_thread(opened.close, TEST_LIMIT_S)


def one(got: Receiver, name: str) -> Received:
    [span] = [span for span in got.spans if span.name == name]
    return span


async def test_a_span_over_the_log_has_no_parent_a_link_and_the_trace(got: Receiver) -> None:
    async with telemetry() as on:
        with on.span(WORK, {"a": "x", "b": None}, joins=[FROM]) as work, on.span(STEP, {}):
            assert work.traceparent is not None and work.traceparent.startswith(f"00-{TRACE}-")
    work_span, step = one(got, "work x"), one(got, "step")
    assert (work_span.trace_id, work_span.parent_id) == (TRACE, "")
    assert work_span.links == ((TRACE, "b7ad6b7169203331"),)
    assert work_span.attributes == {"a": "x"}
    assert (step.trace_id, step.parent_id, step.kind) == (TRACE, work_span.span_id, "client")
    assert work_span.service == "test"


async def test_a_span_with_a_parent_is_part_of_it_whatever_is_around_it(got: Receiver) -> None:
    async with telemetry() as on:
        with on.span(WORK, {"a": "around"}, joins=[]):
            with on.span(STEP, {}, parent=FROM):
                pass
            with on.span(WORK, {"a": "joined"}, joins=[f"00-{OTHER}-b7ad6b7169203331-01"]):
                pass
    assert (one(got, "step").trace_id, one(got, "step").parent_id) == (TRACE, "b7ad6b7169203331")
    assert (one(got, "work joined").trace_id, one(got, "work joined").parent_id) == (OTHER, "")
    assert one(got, "work around").trace_id not in (TRACE, OTHER)


async def test_a_batch_of_several_traces_is_in_one_of_its_own_with_a_bounded_number_of_links(got: Receiver) -> None:
    joins = [f"00-{n:032x}-b7ad6b7169203331-01" for n in range(1, 101)]
    async with telemetry() as on:
        on.span(WORK, {"a": "batch"}, joins=joins).end()
        on.span(WORK, {"a": "same"}, joins=[FROM, FROM.replace("b7", "c8")]).end()
        on.span(WORK, {"a": "after"}, joins=[]).end()
    batch = one(got, "work batch")
    assert len(batch.links) == 32
    assert batch.trace_id not in {link for link, _ in batch.links}
    assert one(got, "work same").trace_id == TRACE
    assert one(got, "work after").trace_id not in (TRACE, batch.trace_id), "nothing of it is left for the next one"


async def test_a_context_that_is_none_is_as_good_as_none(got: Receiver) -> None:
    async with telemetry() as on:
        on.span(WORK, {"a": "bad"}, joins=["nonsense", f"00-{'0' * 32}-{'1' * 16}-01"]).end()
        on.span(WORK, {"a": "half"}, joins=["nonsense", FROM]).end()
    assert one(got, "work bad").links == ()
    assert one(got, "work half").links == ((TRACE, "b7ad6b7169203331"),)
    assert one(got, "work half").trace_id == TRACE


async def test_what_was_not_sampled_is_not_sampled_over_the_log_either_but_goes_on(got: Receiver) -> None:
    async with telemetry() as on:
        joined = on.span(WORK, {"a": "hidden"}, joins=[UNSAMPLED])
        part = on.span(STEP, {}, parent=UNSAMPLED)
        on.span(WORK, {"a": "mixed"}, joins=[UNSAMPLED, f"00-{OTHER}-b7ad6b7169203331-01"]).end()
        for span in (joined, part):
            assert span.traceparent is not None
            assert span.traceparent.startswith(f"00-{TRACE}-") and span.traceparent.endswith("-00")
            span.end()
    assert [span.name for span in got.spans] == ["work mixed"], "a batch is shown if any of it is"


async def test_the_sampler_of_the_environment_decides_where_a_trace_begins(
    got: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with telemetry() as on:
        on.span(WORK, {"a": "begun"}, joins=[]).end()
        on.span(WORK, {"a": "joined"}, joins=[FROM]).end()
    assert [span.name for span in got.spans] == ["work joined"]


async def test_a_span_may_have_its_id_before_it_is_made_and_its_beginning_before_it_is_begun(got: Receiver) -> None:
    async with telemetry() as on:
        on.span(WORK, {"a": "late"}, joins=[FROM], span_id=0xABC, start_ms=1_776_695_400_123).end(1_776_695_401_000)
        on.span(WORK, {"a": "next"}, joins=[FROM]).end()
    late = one(got, "work late")
    assert late.span_id == "0000000000000abc"
    assert (late.start_ns, late.end_ns) == (1_776_695_400_123_000_000, 1_776_695_401_000_000_000)
    assert one(got, "work next").span_id != late.span_id


async def test_an_error_is_shown_by_its_kind_and_never_by_its_message(got: Receiver) -> None:
    async with telemetry() as on:
        with pytest.raises(ValueError), on.span(WORK, {"a": "broken"}):
            raise ValueError("rumpelstiltskin")
        with pytest.raises(ValueError), on.span(STEP, {}) as step:
            step.fail("cancelled")
            raise ValueError("rumpelstiltskin")
    assert one(got, "work broken").failed
    assert one(got, "work broken").attributes["error.type"] == "ValueError"
    assert one(got, "step").attributes["error.type"] == "cancelled"
    assert not got.holds("rumpelstiltskin")


async def test_metrics_of_one_name_in_two_parts_are_two(got: Receiver) -> None:
    async with telemetry() as on:
        left, right = on.scope("left"), on.scope("right")
        left.record(TOOK, 0.3, {"a": "x", "b": None})
        right.record(TOOK, 0.5, {"a": "x"})
        right.record(TOOK, 0.5, {"a": "x"})
        left.record(SEEN, 3, {"a": "y"})
        number = 7

        async def look() -> list[tuple[float, dict[str, str]]]:
            asyncio.get_running_loop()
            return [(number, {})]

        left.watch(HELD, look)
        right.watch(HELD, lambda: [(9, {})])
    assert got.values("left", "took") == [(1, {"a": "x"})]
    assert got.values("right", "took") == [(2, {"a": "x"})]
    assert got.values("left", "seen") == [(3, {"a": "y"})]
    assert got.values("left", "held") == [(7, {})]
    assert got.values("right", "held") == [(9, {})]


async def test_a_look_that_fails_leaves_the_others(got: Receiver) -> None:
    async with telemetry() as on:

        async def broken() -> list[tuple[float, dict[str, str]]]:
            raise RuntimeError("away")

        on.watch(HELD, broken)
        on.watch(Metric("fine", "gauge", "1", "fine"), lambda: [(1, {})])
    assert got.values("parley", "fine") == [(1, {})]
    assert got.values("parley", "held") == []


async def test_spans_alone_or_metrics_alone(got: Receiver) -> None:
    async with telemetry(metrics=False) as on:
        on.span(WORK, {"a": "x"}).end()
        on.record(TOOK, 1, {})
    assert got.spans and not got.points
    got.spans.clear()
    async with telemetry(traces=False) as on:
        with on.span(WORK, {"a": "x"}) as span:
            assert span.traceparent is None
        on.record(TOOK, 1, {})
    assert got.points and not got.spans


@pytest.mark.parametrize("answers", ["never", "refuse"])
async def test_closing_takes_its_limit_and_no_longer(
    answers: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver("never" if answers == "never" else "refuse") as silent:
        for name, value in silent.environment.items():
            monkeypatch.setenv(name, value)
        on = open_telemetry("test", TelemetrySettings(traces=True, metrics=True))
        began = time.monotonic()
        for n in range(20_000):
            on.span(WORK, {"a": str(n)}).end()
        assert time.monotonic() - began < TEST_LIMIT_S, "a full queue is no reason to wait"
        began = time.monotonic()
        on.close(0.5)
        assert time.monotonic() - began < 2.0
    # Once the endpoint lets go of them, the SDK's threads end: nothing is tried again and again in the background.
    async with asyncio.timeout(TEST_LIMIT_S):
        while any(thread.name.startswith("Otel") for thread in threading.enumerate()):
            await asyncio.sleep(0.02)
    complaints = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(complaints) <= 12, "a line of a kind per minute, of 20,000 spans that did not fit or did not arrive"


async def test_what_the_sdk_complains_of_again_and_again_is_logged_once_a_minute(
    got: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with telemetry():
        logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        for n in range(100):
            logger.warning("Transient error %s", n)
        logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["Transient error 0", "something else"]


async def test_a_line_of_the_log_names_the_span_it_was_written_in(got: Receiver) -> None:
    line = logging.LogRecord("x", logging.INFO, "x.py", 1, "hello", (), None)
    async with telemetry() as on:
        with about(thread_id="t", run_id=None), on.span(WORK, {"a": "x"}, joins=[FROM]) as span:
            assert span.traceparent is not None
            within = json.loads(JsonLines().format(line))
        after = json.loads(JsonLines().format(line))
    assert (within["trace_id"], within["span_id"]) == tuple(span.traceparent.split("-")[1:3])
    assert within["thread_id"] == "t" and "run_id" not in within
    assert not {"trace_id", "span_id", "thread_id"} & after.keys()


def test_while_it_is_off_there_is_nothing_of_it() -> None:
    assert open_telemetry("test", TelemetrySettings(content=True)) is OFF
    code = (
        "import sys; import parley_gateway.app, parley_dispatcher.app, parley_history.app, parley_standalone.up;"
        "sys.exit('opentelemetry.sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "the SDK was imported"

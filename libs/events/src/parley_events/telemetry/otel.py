"""Telemetry on the OpenTelemetry SDK, exported over OTLP (http/protobuf). The only importer of `opentelemetry`.

The SDK reads its own `OTEL_…` variables: endpoints, headers, time-outs, intervals, limits, sampler, resource. Exporting
happens on the SDK's threads with bounded queues: an endpoint that is away costs spans, never time.

Two things the SDK does not do by itself. A span that joins a trace over the log has no parent, and is in that trace all
the same: `_Ids` hands out the trace id that is wanted. And it is sampled as if what it joins were its parent:
`_AcrossTheLog` asks the sampler so.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Token
from copy import copy
from inspect import isawaitable
from types import TracebackType
from typing import Any, ClassVar

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from parley_events.quiet import quieten
from parley_events.telemetry.names import Metric, SpanName
from parley_events.telemetry.port import ABOUT, NO_SPAN, Attributes, Read, Sample, Span, Telemetry
from parley_events.telemetry.settings import TelemetrySettings
from parley_events.tracing import traceparent

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
MOST_LINKS = 32
"""More joined contexts than these are counted, not linked."""
_QUIET_S = 60.0
_LOOK_S = 2.0
"""How long the export waits for a look at a gauge: a loop that hangs must not hang it."""
_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}


class _Ids(RandomIdGenerator):
    """Random ids, or the ones that are wanted for the next span. Spans are begun on one thread, the event loop's."""

    trace_id: int | None = None
    span_id: int | None = None

    def generate_trace_id(self) -> int:
        return self.trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.span_id or super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        return self.trace_id is None


class _AcrossTheLog(Sampler):
    """Asks a sampler about a span without a parent as if what it is linked to were its parent."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if links and not trace.get_current_span(parent_context).get_span_context().is_valid:
            joined = next((link.context for link in links if link.context.trace_flags.sampled), links[0].context)
            parent_context = trace.set_span_in_context(NonRecordingSpan(joined), parent_context)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return f"AcrossTheLog{{{self._sampler.get_description()}}}"


class _Span(Span):
    """A span of the SDK. One that is not sampled has a context all the same: it goes on, as not sampled."""

    __slots__ = ("_about", "_attached", "_failed", "_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._attached: Any = None
        self._about: Token[Any] | None = None
        self._failed = False
        context = span.get_span_context()
        flags = context.trace_flags & TraceFlags.SAMPLED
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_said(attributes))

    def fail(self, error_type: str) -> None:
        self._failed = True
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, end_ms: int | None = None) -> None:
        if self._span.is_recording():
            self._span.end(None if end_ms is None else end_ms * 1_000_000)

    def __enter__(self) -> Span:
        context = self._span.get_span_context()
        ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        self._about = ABOUT.set({**ABOUT.get(), **ids})
        self._attached = attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._attached)
        if self._about is not None:
            ABOUT.reset(self._about)
        if kind is not None and not self._failed:
            # The class alone: a message may have in it what somebody wrote.
            self.fail(kind.__qualname__)
        self.end()


class OpenTelemetry(Telemetry):
    """See the module. One per process."""

    on: ClassVar[bool] = True

    def __init__(self, service: str, settings: TelemetrySettings) -> None:
        self.content = settings.content
        self._ids = _Ids()
        self._closing: list[Callable[[], object]] = []
        self._exporters: list[OTLPSpanExporter | OTLPMetricExporter] = []
        self._tracers: TracerProvider | None = None
        resource = _resource(service)
        if settings.traces:
            self._tracers = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
            self._tracers.sampler = _AcrossTheLog(self._tracers.sampler)
            self._exporters.append(spans := OTLPSpanExporter())
            self._tracers.add_span_processor(BatchSpanProcessor(spans))
            self._closing.append(self._tracers.shutdown)
        readers = []
        if settings.metrics:
            self._exporters.append(points := OTLPMetricExporter())
            readers.append(PeriodicExportingMetricReader(points))
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._closing.append(self._meters.shutdown)
        self._enter("parley")
        quieten("opentelemetry", _QUIET_S)

    def _enter(self, scope: str) -> None:
        self._tracer = None if self._tracers is None else self._tracers.get_tracer(scope, schema_url=SCHEMA)
        self._meter = self._meters.get_meter(scope, schema_url=SCHEMA)
        self._instruments: dict[str, Counter | Histogram] = {}

    def scope(self, name: str) -> OpenTelemetry:
        scoped = copy(self)
        scoped._enter(name)
        return scoped

    def span(
        self,
        what: SpanName,
        attributes: Attributes,
        *,
        parent: str | None = None,
        joins: Sequence[str] | None = None,
        span_id: int | None = None,
        start_ms: int | None = None,
    ) -> Span:
        if self._tracer is None:
            return NO_SPAN
        context: Context | None = None
        links: list[Link] = []
        said = _said(attributes)
        if parent is not None:
            context = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), Context())
        elif joins is not None:
            context = Context()
            joined = [found for one in joins if (found := _context_of(one)).is_valid]
            links = [Link(one) for one in joined[:MOST_LINKS]]
            if len({one.trace_id for one in joined}) == 1:
                self._ids.trace_id = joined[0].trace_id
        self._ids.span_id = span_id
        try:
            span = self._tracer.start_span(
                _named(what.name, said),
                context,
                _KINDS[what.kind],
                said,
                links,
                None if start_ms is None else start_ms * 1_000_000,
            )
        finally:
            self._ids.trace_id = self._ids.span_id = None
        return _Span(span)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        instrument = self._instruments.get(metric.name)
        if instrument is None:
            instrument = self._instruments[metric.name] = (
                self._meter.create_counter(metric.name, metric.unit, metric.says)
                if metric.instrument == "counter"
                else self._meter.create_histogram(
                    metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=metric.bounds
                )
            )
        if isinstance(instrument, Counter):
            instrument.add(value, _said(attributes))
        else:
            instrument.record(value, _said(attributes))

    def watch(self, metric: Metric, read: Read) -> None:
        loop = asyncio.get_running_loop()

        async def look() -> Iterable[Sample]:
            found = read()
            return await found if isawaitable(found) else found

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            # The SDK calls on a thread of its own, and what is looked at changes on the loop.
            looking = look()
            try:
                samples = asyncio.run_coroutine_threadsafe(looking, loop)
            except RuntimeError:
                looking.close()  # the loop is closed: the process is about to end
                return []
            try:
                return [Observation(value, _said(attributes)) for value, attributes in samples.result(_LOOK_S)]
            except Exception:
                samples.cancel()
                return []

        create = (
            self._meter.create_observable_counter
            if metric.instrument == "counter"
            else self._meter.create_observable_gauge
        )
        create(metric.name, [observe], metric.unit, metric.says)

    def close(self, limit_s: float = 2.0) -> None:
        until = time.monotonic() + limit_s
        # Daemons: one that waits for an endpoint that does not answer is left behind.
        threads = [threading.Thread(target=shut, daemon=True, name="telemetry-close") for shut in self._closing]
        self._closing.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            # What waits to try again gives up, and tries no more.
            for exporter in self._exporters:
                exporter.shutdown()


def _resource(service: str) -> Resource:
    """Who is speaking: what the environment says, then what is known here."""
    found = Resource.create()
    ours = {
        "service.name": service,
        "service.namespace": "parley",
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    if not str(found.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        del ours["service.name"]
    return found.merge(Resource({k: v for k, v in ours.items() if k == "service.name" or k not in found.attributes}))


def _context_of(text: str) -> SpanContext:
    """The context that a `traceparent` names; an invalid one where it is none."""
    if traceparent(text) is None:
        return trace.INVALID_SPAN_CONTEXT
    _, trace_id, span_id, flags = text.split("-")[:4]
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))


def _said(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _named(name: str, attributes: dict[str, Any]) -> str:
    for key, value in attributes.items():
        if f"{{{key}}}" in name:
            name = name.replace(f"{{{key}}}", str(value))
    return name

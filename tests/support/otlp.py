"""An OTLP receiver on loopback (http/protobuf): what it got, as plain values. It can also refuse, or never answer."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it was received. `kind` as in `SpanName`; `links` are (trace id, span id)."""

    service: str
    scope: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int
    failed: bool


@dataclass(slots=True)
class Receiver:
    """`answers`: what it does with what comes. `points`: the newest points of each metric, by scope and name."""

    url: str = ""
    answers: Literal["ok", "refuse", "never"] = "ok"
    spans: list[Received] = field(default_factory=list)
    points: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)
    requests: int = 0
    paths: list[str] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a process that exports to it, often."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "NO_PROXY": "127.0.0.1",
        }

    def of_trace(self, trace_id: str) -> list[Received]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def metrics(self, scope: str) -> set[str]:
        return {name for found, name in self.points if found == scope}

    def values(self, scope: str, name: str) -> list[tuple[Any, dict[str, Any]]]:
        """Each series of a metric: its value (of a histogram: its count), and its attributes."""
        return [
            (
                point.count if hasattr(point, "bucket_counts") else point.as_int or point.as_double,
                _plain(point.attributes),
            )
            for point in self.points.get((scope, name), [])
        ]

    def holds(self, text: str) -> bool:
        """Whether a text was in anything that came, as it went over the wire."""
        return any(text.encode() in body for body in self.raw)


@contextmanager
def receiver(answers: Literal["ok", "refuse", "never"] = "ok") -> Iterator[Receiver]:
    """A receiver on a free port, while the block lasts."""
    got = Receiver(answers=answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.requests += 1
            got.paths.append(self.path)
            if got.answers == "never":
                got.released.wait(60)
            elif got.answers == "ok":
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                _take(got, self.path, body)
            self.send_response(200 if got.answers == "ok" else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    got.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield got
    finally:
        got.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _take(got: Receiver, path: str, body: bytes) -> None:
    got.raw.append(body)
    if path == "/v1/traces":
        for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(traced.resource.attributes)
            got.resources.append(resource)
            for scoped in traced.scope_spans:
                got.spans += [_received(resource, scoped.scope.name, span) for span in scoped.spans]
    elif path == "/v1/metrics":
        for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in measured.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data") or "gauge")
                    got.points[scope.scope.name, metric.name] = list(data.data_points)


def _received(resource: dict[str, Any], scope: str, span: Any) -> Received:
    kinds = ("", "internal", "server", "client", "producer", "consumer")
    return Received(
        service=resource["service.name"],
        scope=scope,
        name=span.name,
        kind=kinds[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_plain(span.attributes),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == 2,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None

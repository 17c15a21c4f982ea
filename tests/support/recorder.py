"""Telemetry that keeps what it was told, for tests of what the services tell."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, ClassVar

from parley_events.telemetry import Attributes, Metric, Sample, Span, SpanName, Telemetry
from parley_events.telemetry.port import Read


class Kept(Span):
    """A span that was begun. `context` is (trace id, span id)."""

    def __init__(self, what: SpanName, attributes: Attributes, parent: str | None, joins: Sequence[str] | None) -> None:
        self.what, self.parent, self.joins = what, parent, joins
        self.attributes: dict[str, Any] = {name: value for name, value in attributes.items() if value is not None}
        self.error: str | None = None
        self.ended = False
        self.traceparent: str | None = None

    @property
    def span_id(self) -> str:
        assert self.traceparent is not None
        return self.traceparent.split("-")[2]

    def set(self, attributes: Attributes) -> None:
        assert not self.ended, "what is said after the end is lost"
        self.attributes |= {name: value for name, value in attributes.items() if value is not None}

    def fail(self, error_type: str) -> None:
        assert not self.ended, "what is said after the end is lost"
        self.error = error_type

    def end(self, end_ms: int | None = None) -> None:
        self.ended = True

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None and self.error is None:
            self.error = kind.__qualname__
        self.end()


@dataclass
class Recorder(Telemetry):
    """Spans in the order in which they were begun; recorded values; what may be looked at."""

    on: ClassVar[bool] = True
    content: bool = False
    spans: list[Kept] = field(default_factory=list)
    values: list[tuple[Metric, float, dict[str, Any]]] = field(default_factory=list)
    watched: dict[str, Read] = field(default_factory=dict)

    def span(
        self,
        what: SpanName,
        attributes: Attributes,
        *,
        parent: str | None = None,
        joins: Sequence[str] | None = None,
        span_id: int | None = None,
        start_ms: int | None = None,
    ) -> Kept:
        kept = Kept(what, attributes, parent, joins)
        before = parent or (joins[0] if joins else None)
        trace_id = before.split("-")[1] if before else secrets.token_hex(16)
        kept.traceparent = f"00-{trace_id}-{span_id or secrets.randbits(63):016x}-01"
        self.spans.append(kept)
        return kept

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        self.values.append((metric, value, {name: said for name, said in attributes.items() if said is not None}))

    def watch(self, metric: Metric, read: Read) -> None:
        self.watched[metric.name] = read

    def of(self, what: SpanName) -> list[Kept]:
        return [span for span in self.spans if span.what is what]

    def said(self, metric: Metric) -> list[tuple[float, dict[str, Any]]]:
        return [(value, attributes) for found, value, attributes in self.values if found is metric]

    async def look(self, metric: Metric) -> list[tuple[float, dict[str, Any]]]:
        """What a gauge shows now."""
        found = self.watched[metric.name]()
        samples: Iterable[Sample] = await found if isawaitable(found) else found
        return [(value, dict(attributes)) for value, attributes in samples]

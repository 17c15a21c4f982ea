"""What a span and a metric are, as entries of the services' lists (`SPANS`, `METRICS` in each `telemetry.py`).

`docs/telemetry.md` shows the lists, and a test compares. The names are OpenTelemetry's where it has one: the semantic
conventions 1.44.0 (messaging, HTTP), and of generative AI 0.1.0, which have a repository of their own; what is Parley's
alone begins with `parley.`. Metrics take no id of anything that there may be many of: each value is a series for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["server", "client", "producer", "consumer", "internal"]
Instrument = Literal["counter", "gauge", "histogram"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""The bounds of histograms of durations: from a decision to a long run."""
POWERS = tuple(4**n for n in range(14))
"""The bounds of histograms of numbers, as the conventions give them for tokens."""


@dataclass(frozen=True, slots=True)
class SpanName:
    """A span. What stands in braces in `name` is the value of that attribute. `content`: what people, models or tools
    wrote, there only if it is asked for (`PARLEY_TRACE_CONTENT`)."""

    name: str
    kind: Kind
    says: str
    attributes: tuple[str, ...]
    content: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. Gauges are looked at when they are exported; the others are told."""

    name: str
    instrument: Instrument
    unit: str
    says: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = SECONDS

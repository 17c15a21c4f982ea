"""What Parley shows of itself: spans, metrics, and ids in its logs. Off unless an OTLP endpoint is set.

names      what a span and a metric are; each service lists its own in its `telemetry.py`
port       what the services ask of telemetry, and the one that does nothing
settings   whether it is on
otel       the one that exports, on the OpenTelemetry SDK (its only importer; not imported while telemetry is off)
"""

from __future__ import annotations

from parley_events.telemetry.names import Kind, Metric, SpanName
from parley_events.telemetry.port import OFF, Attributes, Sample, Span, Telemetry, about
from parley_events.telemetry.settings import TelemetrySettings


def open_telemetry(service: str, settings: TelemetrySettings) -> Telemetry:
    """The telemetry of a process that calls itself `service`; close it in the end, or use it in a `with`."""
    if not settings.on:
        return OFF
    # Here and not above: the SDK takes a third of a second and 20 MB, and who does not want it does not pay.
    from parley_events.telemetry.otel import OpenTelemetry

    return OpenTelemetry(service, settings)


__all__ = [
    "OFF",
    "Attributes",
    "Kind",
    "Metric",
    "Sample",
    "Span",
    "SpanName",
    "Telemetry",
    "TelemetrySettings",
    "about",
    "open_telemetry",
]

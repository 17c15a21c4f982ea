"""Whether telemetry is on, read from the environment. How it is exported the OpenTelemetry SDK reads for itself, from
the standard `OTEL_…` variables (docs/telemetry.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "http/protobuf"


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Which signals are exported, and whether spans show what was written (`content`)."""

    traces: bool = False
    metrics: bool = False
    content: bool = False

    @property
    def on(self) -> bool:
        return self.traces or self.metrics

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> TelemetrySettings:
        """What the environment asks for; ValueError names a variable whose value cannot be."""
        env = os.environ if env is None else env
        if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls()
        content = env.get("PARLEY_TRACE_CONTENT", "").strip().lower()
        if content not in ("", "0", "1", "true", "false", "yes", "no"):
            raise ValueError(f"PARLEY_TRACE_CONTENT={content!r}: 1 or 0 is wanted")
        return cls(_exported(env, "TRACES"), _exported(env, "METRICS"), content in ("1", "true", "yes"))


def _exported(env: Mapping[str, str], signal: str) -> bool:
    if not (env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get(_ENDPOINT)):
        return False
    exporter = f"OTEL_{signal}_EXPORTER"
    if (wanted := env.get(exporter, "otlp").strip().lower()) not in ("otlp", ""):
        if wanted == "none":
            return False
        raise ValueError(f"{exporter}={wanted!r}: otlp or none is wanted")
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = env.get(name)
        if protocol:
            if protocol.strip().lower() != _PROTOCOL:
                raise ValueError(f"{name}={protocol!r}: only {_PROTOCOL} is spoken (a collector has it on port 4318)")
            break
    return True

"""`python -m parley_gateway`: one gateway as a process."""

from __future__ import annotations

import sys

from parley_events.serve import end_process, serve, set_up_logs
from parley_events.telemetry import TelemetrySettings, open_telemetry
from parley_gateway.app import build, drain
from parley_gateway.settings import Settings

ROTATING = 0.8
"""The part of the time that open answers have at a stop in which streams are ended; the rest is for slow clients."""


def main() -> int:
    """Serve until a signal; the exit status."""
    try:
        settings, shown = Settings.from_env(), TelemetrySettings.from_env()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    set_up_logs(settings.log_level, settings.log_file)
    with open_telemetry("parley-gateway", shown) as telemetry:
        app = build(settings, telemetry=telemetry, on_failure=end_process)
        return serve(
            app,
            settings.host,
            settings.port,
            loop_limit_s=settings.loop_limit_s,
            grace_s=settings.drain_s,
            on_stop=lambda: drain(app, settings.drain_s * ROTATING),
        )


if __name__ == "__main__":
    sys.exit(main())

"""`python -m parley_dispatcher`: the dispatcher as a process of its own."""

from __future__ import annotations

import sys

from parley_dispatcher.app import build
from parley_dispatcher.settings import Settings
from parley_events.serve import end_process, serve, set_up_logs
from parley_events.telemetry import TelemetrySettings, open_telemetry


def main() -> int:
    """Serve until a signal; the exit status."""
    try:
        settings, shown = Settings.from_env(), TelemetrySettings.from_env()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    set_up_logs(settings.log_level, settings.log_file)
    with open_telemetry("parley-dispatcher", shown) as telemetry:
        app = build(settings, telemetry=telemetry, on_failure=end_process)
        return serve(app, settings.host, settings.port, loop_limit_s=settings.loop_limit_s, grace_s=1.0)


if __name__ == "__main__":
    sys.exit(main())

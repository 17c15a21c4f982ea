"""`python -m parley_history [serve|migrate|rebuild]`: history as a process of its own, its tables made, or rebuilt."""

from __future__ import annotations

import asyncio
import sys

from parley_events.serve import end_process, serve, set_up_logs
from parley_events.telemetry import TelemetrySettings, open_telemetry
from parley_history.app import build
from parley_history.errors import HistoryError
from parley_history.migrate import migrate
from parley_history.rebuild import command
from parley_history.settings import SettingsError, from_env


def main(arguments: list[str]) -> int:
    """The process's exit status."""
    asked = command.read_arguments(arguments[1:]) if arguments[:1] == ["rebuild"] else None
    if asked is None and arguments not in ([], ["serve"], ["migrate"]):
        print(f"usage: python -m parley_history [serve|migrate|{command.USAGE}]", file=sys.stderr)
        return 2
    try:
        settings, shown = from_env(), TelemetrySettings.from_env()
    except (SettingsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        set_up_logs(settings.log_level, settings.log_file)
        if arguments == ["migrate"]:
            print(f"the schema is at migration {asyncio.run(migrate(settings))}")
            return 0
        if asked is not None:
            lines, status = command.said(settings, asked, asyncio.run(command.run(settings, asked, command.by_lines())))
            print("\n".join(lines))
            return status
        with open_telemetry("parley-history", shown) as telemetry:
            app = build(settings, telemetry=telemetry, on_failure=end_process)
            return serve(app, settings.host, settings.port, loop_limit_s=settings.loop_limit_s)
    except (SettingsError, HistoryError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m parley_dispatcher`: the dispatcher as a process of its own."""

from __future__ import annotations

import sys

from parley_dispatcher.app import build
from parley_dispatcher.settings import Settings
from parley_events.serve import end_process, serve, set_up_logs


def main() -> int:
    """Serve until a signal; the exit status."""
    try:
        settings = Settings.from_env()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    set_up_logs(settings.log_level, settings.log_file)
    return serve(build(settings, on_failure=end_process), settings.host, settings.port, grace_s=1.0)


if __name__ == "__main__":
    sys.exit(main())

"""A filter for the loggers of libraries that repeat themselves during an outage."""

from __future__ import annotations

import logging


class Quiet(logging.Filter):
    """At most one line of a kind per `pause_s`; a kind is a message before its arguments are put in."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self._pause_s = pause_s
        self._last: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        before = self._last.get(record.msg)
        if before is not None and record.created - before < self._pause_s:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[record.msg] = record.created
        return True


def quieten(package: str, pause_s: float) -> None:
    """Put the filter on every logger that a package has made so far (a logger's filter does not bind its children)."""
    for name in (package, *logging.root.manager.loggerDict):
        if name == package or name.startswith(f"{package}."):
            logger = logging.getLogger(name)
            if not any(isinstance(known, Quiet) for known in logger.filters):
                logger.addFilter(Quiet(pause_s))

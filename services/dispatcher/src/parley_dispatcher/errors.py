"""What can go wrong in a dispatcher, named by what to do next.

DispatcherError
├── NotOwner            stop at once: another dispatcher has the partition; write nothing more
├── HistoryUnavailable  try again later: history (or its PostgreSQL) is away
├── ModelError          record the attempt; `retry` says whether another one makes sense
└── ToolError           show the message to the model as the tool's result
"""

from __future__ import annotations

from parley_events.body import Usage


class DispatcherError(Exception):
    """The root of this package's errors."""


class NotOwner(DispatcherError):
    """The partition's newest claim is not ours any more."""


class HistoryUnavailable(DispatcherError):
    """History did not answer, or is behind what was asked for."""


class ModelError(DispatcherError):
    """A model call failed. `kind` is the status as text (`429`), or a word: `connect` (no connection), `cut` (it broke
    off), `stall` (silence), `garbled` (not what the protocol says), `objects` (a file could not be read), `too_long`.
    `message` goes on record: it holds no key and no header. `usage` is what the attempt cost so far."""

    def __init__(
        self, kind: str, message: str, *, retry: bool, usage: Usage | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry, self.retry_after_ms = kind, message, retry, retry_after_ms
        self.usage = usage or Usage()


class ToolError(DispatcherError):
    """A tool answered with an error that the model should read."""

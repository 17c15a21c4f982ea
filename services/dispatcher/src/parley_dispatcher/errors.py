"""What can go wrong in a dispatcher, named by what to do next.

DispatcherError
├── NotOwner            stop at once: another dispatcher has the partition; write nothing more
├── HistoryUnavailable  try again later: history (or its PostgreSQL) is away
├── ModelError          record the attempt; `retry` says whether another one makes sense
├── ServerAway          an MCP server cannot be reached, and nothing was sent: go on without it, try again later
├── ToolDoubt           record the call as `unknown`: it may have taken place
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


class ServerAway(DispatcherError):
    """An MCP server cannot be reached, or gave nothing that can be used. Nothing was asked of it."""


class ToolDoubt(DispatcherError):
    """A tool was called and nothing came back: nobody knows whether it did what was asked."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class ToolError(DispatcherError):
    """A tool answered with an error that the model should read."""


class Parked(DispatcherError):
    """A run inside this one waits for somebody outside: the call that started it stays open."""

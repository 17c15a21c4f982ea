"""What the services ask of telemetry. `Telemetry` itself is the one that does nothing; `otel` has the one that exports.

A span stands to what came before it in one of three ways. `parent`: it is part of that, in the same piece of work.
`joins`: it follows from a record on the log; it is then a root without a parent, linked to the span that wrote the
record, and in the same trace. Neither: it is part of the span around it, if there is one. Contexts are `traceparent`
texts (see `tracing`), as records carry them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import ClassVar

from parley_events.telemetry.names import Metric, SpanName

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value | None]
"""Attributes by name; None: it is not said."""
Sample = tuple[float, Attributes]
Read = Callable[[], Iterable[Sample] | Awaitable[Iterable[Sample]]]
"""Looks at something that has a value now. Called on the event loop."""

ABOUT: ContextVar[Mapping[str, str]] = ContextVar("ABOUT", default={})  # noqa: B039 - never changed, only replaced
"""What every line of the log says beside its message: ids of trace, span, thread, run."""


class about:
    """Within `with about(run_id=…)` every line of the log says these ids (those that are not None)."""

    __slots__ = ("_ids", "_token")

    def __init__(self, **ids: str | None) -> None:
        self._ids = ids
        self._token: Token[Mapping[str, str]] | None = None

    def __enter__(self) -> None:
        known = {name: value for name, value in self._ids.items() if value is not None}
        self._token = ABOUT.set({**ABOUT.get(), **known})

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            ABOUT.reset(self._token)


class Span:
    """A span that nobody sees. Used in a `with`, it is the span around what is done in it, and ends with it; an
    exception that leaves it is its error. Otherwise it is ended with `end`."""

    traceparent: str | None = None
    """What a record written within the span carries; None: what it would carry anyway."""

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""

    def fail(self, error_type: str) -> None:
        """It came to nothing: a short word of a few, never a message."""

    def end(self, end_ms: int | None = None) -> None:
        """It is over, now or at that time. A second end is none."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NO_SPAN = Span()


class Telemetry:
    """Telemetry that is off: every call returns at once."""

    on: ClassVar[bool] = False
    content: bool = False
    """Whether spans show what was written."""

    def scope(self, name: str) -> Telemetry:
        """The same for one part of the process: two parts may have metrics of one name."""
        return self

    def span(
        self,
        what: SpanName,
        attributes: Attributes,
        *,
        parent: str | None = None,
        joins: Sequence[str] | None = None,
        span_id: int | None = None,
        start_ms: int | None = None,
    ) -> Span:
        """Begin a span (see the module). With several `joins` it is in the first one's trace only if all are of one.
        `span_id`: where it must be known before there is a span; `start_ms`: where it began before it was begun."""
        return NO_SPAN

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        """Add to a counter, or a value to a histogram."""

    def watch(self, metric: Metric, read: Read) -> None:
        """Look at a gauge, or at a counter that is kept elsewhere as a plain number, whenever metrics are exported. To
        be called on the event loop."""

    def close(self, limit_s: float = 2.0) -> None:
        """Export what is left, for at most `limit_s`."""

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


OFF = Telemetry()

"""What the gateway shows of itself: all its `SPANS` and `METRICS`, and `Instruments`, which requests go through.

Above it: `http` (requests), `send` (commands), `core` (streams). Below it: the telemetry port. A stream may be open for
days: a request's span ends when its answer begins, and of a stream there are only numbers. The time to the first delta
is taken by a `show` that replaces itself with the real one: nothing is left of it for the second delta.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from parley_events import tracing
from parley_events.codec import COMMANDS_TOPIC, Command
from parley_events.log import Outgoing
from parley_events.telemetry import OFF, Metric, SpanName, Telemetry
from parley_events.telemetry.port import NO_SPAN, Span, Value
from parley_gateway.feed.follow import Shown, ShownFact

if TYPE_CHECKING:
    from parley_gateway.feed.frames import Frame
    from parley_gateway.feed.hub import Hub
from parley_gateway.feed.sse import EventStream

REQUEST = SpanName(
    "{http.request.method} {http.route}",
    "server",
    "a request, from its being routed to its answer's beginning; part of the trace that it came with",
    (
        "http.request.method",
        "http.route",
        "url.scheme",
        "http.response.status_code",
        "gen_ai.conversation.id",
        "parley.run.id",
        "parley.stream",
        "error.type",
    ),
)
SEND = SpanName(
    "send {messaging.destination.name}",
    "producer",
    "a command is sent, until the log has it; part of its request",
    (
        "messaging.system",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.destination.name",
        "messaging.destination.partition.id",
        "messaging.kafka.offset",
        "messaging.message.id",
        "messaging.message.body.size",
        "gen_ai.conversation.id",
        "parley.workspace.id",
        "parley.command.type",
        "error.type",
    ),
)
SPANS = (REQUEST, SEND)
"""Every span of the gateway."""

REQUEST_DURATION = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "how long a request took until its answer began; its count is the rate",
    ("http.request.method", "http.route", "http.response.status_code", "url.scheme", "error.type"),
)
SEND_DURATION = Metric(
    "messaging.client.operation.duration",
    "histogram",
    "s",
    "how long the log took to have a command",
    ("messaging.system", "messaging.operation.name", "messaging.destination.name", "parley.command.type", "error.type"),
)
FIRST_DELTA = Metric(
    "parley.gateway.first_delta",
    "histogram",
    "s",
    "from a POST that is answered with a stream to its first piece of text or thought",
    ("http.route",),
)
REQUESTS = Metric("parley.gateway.requests", "gauge", "{request}", "requests whose answer has not begun yet")
STREAMS = Metric("parley.gateway.streams", "gauge", "{stream}", "open streams")
LISTENERS = Metric(
    "parley.gateway.listeners", "gauge", "{listener}", "who listens at the hub: streams, and calls that wait"
)
QUEUED = Metric("parley.gateway.queued", "gauge", "{item}", "facts and pieces that wait for their clients")
QUEUED_BYTES = Metric("parley.gateway.queued.size", "gauge", "By", "about what they take in memory")
KEPT_BYTES = Metric("parley.gateway.kept.size", "gauge", "By", "pieces of unfinished answers, kept for who joins late")
UNREAD = Metric(
    "parley.consumer.lag",
    "gauge",
    "{record}",
    "facts of a partition that lie on the log and that this gateway has not read yet",
    ("messaging.destination.name", "messaging.destination.partition.id"),
)
LOST = Metric(
    "parley.gateway.slow_clients",
    "counter",
    "{event}",
    "what was lost by clients that take too slowly: `pieces` left out, feeds `closed`, streams `stalled`",
    ("parley.loss",),
)
METRICS = (
    REQUEST_DURATION,
    SEND_DURATION,
    FIRST_DELTA,
    REQUESTS,
    STREAMS,
    LISTENERS,
    QUEUED,
    QUEUED_BYTES,
    KEPT_BYTES,
    UNREAD,
    LOST,
)
"""Every metric of the gateway."""

Said = dict[str, Value | None]
_Answered = Callable[[Response], Response]

_POSTED: ContextVar[tuple[float, str] | None] = ContextVar("_POSTED", default=None)
"""When the POST that is being answered came, and its route."""


class Instruments:
    """What requests go through. `system` names the log, as OpenTelemetry names messaging systems."""

    def __init__(self, telemetry: Telemetry = OFF, system: str = "kafka") -> None:
        self._telemetry, self._system = telemetry.scope("parley.gateway"), system
        self._requests = 0

    def request(self, request: Request, route: str) -> AbstractContextManager[_Answered]:
        """One request. Gives a function that is to be handed the answer, and hands it on."""
        return self._request(request, route) if self._telemetry.on else nullcontext(_itself)

    @contextmanager
    def _request(self, request: Request, route: str) -> Iterator[_Answered]:
        thread_id, run_id = request.path_params.get("thread_id"), request.path_params.get("run_id")
        what: Said = {"http.request.method": request.method, "http.route": route, "url.scheme": request.url.scheme}
        more: Said = {"gen_ai.conversation.id": thread_id, "parley.run.id": run_id}
        came_with = tracing.traceparent(request.headers.get("traceparent"))
        began = perf_counter()
        posted = _POSTED.set((began, route) if request.method == "POST" else None)

        def answered(response: Response) -> Response:
            status = response.status_code
            outcome: Said = {"http.response.status_code": status}
            span.set(outcome | {"parley.stream": True if response.media_type == "text/event-stream" else None})
            if status >= 500:
                outcome["error.type"] = str(status)
                span.fail(str(status))
            self._telemetry.record(REQUEST_DURATION, perf_counter() - began, what | outcome)
            return response

        # A request without a trace begins one, whatever is around it in the process.
        joins = () if came_with is None else None
        self._requests += 1
        try:
            with self._telemetry.span(REQUEST, what | more, parent=came_with, joins=joins) as span:
                yield answered
        finally:
            self._requests -= 1
            _POSTED.reset(posted)

    def sending(self, command: Command) -> Sending:
        """A command is about to be sent."""
        if not self._telemetry.on:
            return Sending(command)
        kind: Said = {
            "messaging.system": self._system,
            "messaging.operation.name": "send",
            "messaging.destination.name": COMMANDS_TOPIC,
            "parley.command.type": command.type,
        }
        more: Said = {
            "messaging.operation.type": "send",
            "messaging.message.id": command.id,
            "parley.workspace.id": command.workspace_id,
            "gen_ai.conversation.id": None if command.stream.startswith("ws:") else command.stream,
        }
        span = self._telemetry.span(SEND, kind | more)
        return Sending(
            replace(command, traceparent=span.traceparent or command.traceparent), span, self._telemetry, kind
        )

    def first_delta(self, stream: EventStream) -> None:
        """Take the time to the first piece that a stream shows, if it answers a POST."""
        posted = _POSTED.get()
        if not self._telemetry.on or posted is None:
            return
        (began, route), show = posted, stream.show

        def waiting(shown: Shown) -> list[Frame]:
            if not isinstance(shown, ShownFact):
                stream.show = show
                self._telemetry.record(FIRST_DELTA, perf_counter() - began, {"http.route": route})
            return show(shown)

        stream.show = waiting

    def watch(self, hub: Hub) -> None:
        """Look at what has a value now, whenever metrics are exported."""
        if not self._telemetry.on:
            return
        counts = hub.counts
        self._telemetry.watch(REQUESTS, lambda: [(self._requests, {})])
        self._telemetry.watch(STREAMS, lambda: [(counts.streams, {})])
        self._telemetry.watch(LISTENERS, lambda: [(hub.listening, {})])
        self._telemetry.watch(QUEUED, lambda: [(hub.queued()[0], {})])
        self._telemetry.watch(QUEUED_BYTES, lambda: [(hub.queued()[1], {})])
        self._telemetry.watch(KEPT_BYTES, lambda: [(hub.unfinished.bytes, {})])
        self._telemetry.watch(
            LOST,
            lambda: [
                (counts.pieces, {"parley.loss": "pieces"}),
                (counts.closed, {"parley.loss": "closed"}),
                (counts.stalled, {"parley.loss": "stalled"}),
            ],
        )

        async def unread() -> list[tuple[float, Said]]:
            return [
                (lag, {"messaging.destination.name": topic, "messaging.destination.partition.id": str(p)})
                for topic, p, lag in await hub.lag()
            ]

        self._telemetry.watch(UNREAD, unread)


class Sending:
    """A command on its way. `command` is the one to be sent. `taken` is told what the log made of it; `close` ends
    what was never handed to the log."""

    def __init__(
        self, command: Command, span: Span = NO_SPAN, telemetry: Telemetry = OFF, kind: Said | None = None
    ) -> None:
        self.command = command
        self._span, self._telemetry, self._kind = span, telemetry, kind or {}
        self._began = perf_counter()
        self._handed = False

    def watch(self, record: Outgoing, taken: Future[int]) -> None:
        """The log was handed the command as that record."""
        self._handed = True
        if self._telemetry.on:
            size = len(record.value or b"")
            self._span.set(
                {"messaging.destination.partition.id": str(record.partition), "messaging.message.body.size": size}
            )
            taken.add_done_callback(self._taken)

    def close(self) -> None:
        """Nothing more is done about it."""
        if not self._handed:
            self._ended("not_sent")

    def _taken(self, taken: Future[int]) -> None:
        if taken.cancelled():
            self._ended("cancelled")
        elif (error := taken.exception()) is not None:
            self._ended(type(error).__qualname__)
        else:
            self._span.set({"messaging.kafka.offset": taken.result()})
            self._ended(None)

    def _ended(self, error: str | None) -> None:
        failed: Said = {} if error is None else {"error.type": error}
        if error is not None:
            self._span.fail(error)
        self._span.end()
        self._telemetry.record(SEND_DURATION, perf_counter() - self._began, self._kind | failed)


def _itself(response: Response) -> Response:
    return response

"""What history shows of itself: all its `SPANS` and `METRICS`, and `Instruments`, which the work goes through.

Above it: `projector`. Below it: the telemetry port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

from parley_events.codec import EVENTS_TOPIC
from parley_events.log.port import Log
from parley_events.telemetry import OFF, Metric, SpanName, Telemetry
from parley_events.telemetry.names import POWERS
from parley_events.telemetry.port import Sample, Value
from parley_history.batch import Batch

if TYPE_CHECKING:
    from parley_history.projector import Projector

FOLD = SpanName(
    "process {messaging.destination.name}",
    "consumer",
    "facts are folded into the view, in one transaction; linked to the decisions that they follow from (32 at most), "
    "and in their trace if they are all of one",
    (
        "messaging.system",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.destination.name",
        "messaging.batch.message_count",
        "parley.fold.partitions",
        "parley.fold.traces",
        "error.type",
    ),
)
SPANS = (FOLD,)
"""Every span of history."""

FOLD_DURATION = Metric(
    "messaging.process.duration",
    "histogram",
    "s",
    "how long a transaction that folds facts took; its count is the rate",
    ("messaging.system", "messaging.operation.name", "messaging.destination.name", "error.type"),
)
BATCH = Metric("parley.history.batch", "histogram", "{fact}", "facts folded in one transaction", (), POWERS)
LAG = Metric(
    "parley.consumer.lag",
    "gauge",
    "{record}",
    "records of a partition that this history folds and has not folded yet",
    ("messaging.destination.name", "messaging.destination.partition.id"),
)
FOLDED = Metric("parley.history.facts.folded", "counter", "{fact}", "facts folded")
FENCED = Metric("parley.history.facts.fenced", "counter", "{fact}", "facts of superseded writers that were passed over")
STOPPED = Metric("parley.history.partitions.stopped", "gauge", "{partition}", "partitions that need a person")
METRICS = (FOLD_DURATION, BATCH, LAG, FOLDED, FENCED, STOPPED)
"""Every metric of history."""


class Instruments:
    """What the projector's work goes through. `system` names the log, as OpenTelemetry names messaging systems."""

    def __init__(self, telemetry: Telemetry = OFF, system: str = "kafka") -> None:
        self._telemetry, self._system = telemetry.scope("parley.history"), system

    def folding(self, batches: Mapping[int, Batch]) -> AbstractContextManager[None]:
        """One transaction."""
        return self._folding(batches) if self._telemetry.on else nullcontext()

    @contextmanager
    def _folding(self, batches: Mapping[int, Batch]) -> Iterator[None]:
        what: dict[str, Value | None] = {
            "messaging.system": self._system,
            "messaging.operation.name": "process",
            "messaging.destination.name": EVENTS_TOPIC,
        }
        count = sum(len(batch.facts) for batch in batches.values())
        contexts = dict.fromkeys(
            fact.traceparent for batch in batches.values() for fact, _ in batch.facts if fact.traceparent is not None
        )
        more: dict[str, Value | None] = {
            "messaging.operation.type": "process",
            "messaging.batch.message_count": count,
            "parley.fold.partitions": len(batches),
            "parley.fold.traces": len(contexts),
        }
        # What nobody traces (claims, facts of the time before) needs no span of its own.
        span = self._telemetry.span(FOLD, what | more, joins=list(contexts)) if contexts else OFF.span(FOLD, {})
        began, error = perf_counter(), None
        try:
            with span:
                yield
        except BaseException as raised:
            error = type(raised).__qualname__
            raise
        finally:
            failed = {} if error is None else {"error.type": error}
            self._telemetry.record(FOLD_DURATION, perf_counter() - began, what | failed)
            self._telemetry.record(BATCH, count, {})

    def watch(self, projector: Projector, log: Log) -> None:
        """Look at what has a value now, whenever metrics are exported."""
        if not self._telemetry.on:
            return

        async def lag() -> list[Sample]:
            ends = await log.ends(EVENTS_TOPIC)
            return [
                (
                    max(ends[p] - position, 0),
                    {"messaging.destination.name": EVENTS_TOPIC, "messaging.destination.partition.id": str(p)},
                )
                for p, position in projector.stands.items()
            ]

        self._telemetry.watch(LAG, lag)
        self._telemetry.watch(FOLDED, lambda: [(projector.health.folded, {})])
        self._telemetry.watch(FENCED, lambda: [(projector.health.fenced, {})])
        self._telemetry.watch(STOPPED, lambda: [(len(projector.health.stopped), {})])

"""What history tells telemetry of a transaction that folds facts."""

from __future__ import annotations

import pytest

from parley_events import facts as f
from parley_events.codec import Fact
from parley_history import telemetry as t
from parley_history.batch import Batch, Position
from parley_history.errors import Moved
from parley_history.telemetry import Instruments
from tests.support.recorder import Recorder

ONE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TWO = "00-11111111111111111111111111111111-b7ad6b7169203331-01"


def batch(*traceparents: str | None) -> Batch:
    facts = [
        Fact("thread.deleted", "s", n + 1, 0, "w", 0, f.ThreadDeleted(by="ann"), traceparent=traceparent)
        for n, traceparent in enumerate(traceparents)
    ]
    return Batch(Position(), Position(len(facts)), [(fact, None) for fact in facts])  # type: ignore[misc]


def test_a_transaction_joins_each_decision_once() -> None:
    told = Recorder()
    with Instruments(told).folding({0: batch(ONE, ONE, None), 1: batch(TWO, ONE)}):
        pass
    [span] = told.spans
    assert span.joins == [ONE, TWO] and span.ended and span.error is None
    assert span.attributes["messaging.batch.message_count"] == 5
    assert span.attributes["parley.fold.traces"] == 2
    assert [value for value, _ in told.said(t.BATCH)] == [5]


def test_facts_that_nobody_traces_are_counted_and_make_no_span() -> None:
    told = Recorder()
    with Instruments(told).folding({0: batch(None, None)}):
        pass
    assert told.spans == []
    assert len(told.said(t.FOLD_DURATION)) == len(told.said(t.BATCH)) == 1


def test_a_transaction_that_fails_is_an_error_by_its_kind() -> None:
    told = Recorder()
    with pytest.raises(Moved), Instruments(told).folding({0: batch(ONE)}):
        raise Moved
    assert told.spans[0].error == "Moved"
    [(_, said)] = told.said(t.FOLD_DURATION)
    assert said["error.type"] == "Moved"
    for metric, _, attributes in told.values:
        assert set(attributes) <= set(metric.attributes)
    assert set(told.spans[0].attributes) <= set(t.FOLD.attributes)

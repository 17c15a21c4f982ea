"""The numbers of a run of the suite: a takeover lasts from the strike to the next fact under a newer claim."""

from __future__ import annotations

from dataclasses import replace

from parley_events.codec import decode_fact
from tests.faults.check import check
from tests.faults.check.figures import figures
from tests.faults.check.story import read
from tests.faults.evidence import Evidence
from tests.unit.faults.made import PARTITIONS
from tests.unit.faults.sound import ONE, TWO, sound


def test_a_takeover_is_measured_on_the_log() -> None:
    evidence = sound().evidence
    claim = next(
        record for record in evidence.events if decode_fact(record).epoch == -1 and record.offset > 0
    )  # the second claim of the first thread's partition
    story = read(evidence)
    new = next(fact for fact in story.streams[ONE] if fact.epoch == claim.offset)
    fault = replace(
        evidence.faults[0], struck_wall_ms=claim.time_ms - 1, victims=(ONE, TWO)
    )  # the second thread was not touched
    found = figures(replace(evidence, faults=(fault,)))
    slow = replace(evidence, faults=(fault,), limits=replace(evidence.limits, takeover_s=0.0))
    assert [v.promise for v in check(slow) if "until another owner was at work" in v.what] == [6]
    assert found.takeovers_ms == (story.appended_ms(new) - fault.struck_wall_ms,)
    assert (found.runs, found.faults) == (4, 1)
    assert "4 runs" in str(found) and "1 takeovers, p50 0.0 s" in str(found)


def test_nothing_was_taken_over_where_nothing_was_struck() -> None:
    assert str(figures(Evidence("nothing", 1, PARTITIONS))).endswith("0 faults; no takeovers")

"""1 and 3, where somebody outside is waited for: one answer per question, timers that fire once and not too early, and
a tool that needs an approval is called because it was approved, as it was approved. A cancel that was accepted is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from parley_events import facts as f
from parley_events.codec import Fact
from tests.faults.check.story import Story
from tests.faults.check.violation import Violation

Place = tuple[str, int, int]


def check_waits(story: Story) -> list[Violation]:
    """Answers, timers and cancels."""
    return [*_answers(story), *_approved(story), *_expiries(story), *_cancels(story)]


def _requests(story: Story) -> dict[str, tuple[Fact, f.ApprovalRequested]]:
    return {
        fact.body.approval_id: (fact, fact.body) for fact in story.facts if isinstance(fact.body, f.ApprovalRequested)
    }


def _answers(story: Story) -> Iterator[Violation]:
    """What is asked is answered once, or expires, and not before its time."""
    asked = _requests(story)
    over: dict[str, str] = {}
    for fact in story.facts:
        body = fact.body
        if not isinstance(body, f.ApprovalAnswered | f.ApprovalExpired):
            continue
        if body.approval_id in over:
            what = f"{body.approval_id} has {fact.type}, and had {over[body.approval_id]}"
            yield Violation(1, what, story.where(fact))
        over[body.approval_id] = fact.type
        if body.approval_id not in asked:
            yield Violation(1, f"{body.approval_id} was never asked", story.where(fact))
        elif isinstance(body, f.ApprovalExpired):
            yield from _early(story, fact, asked[body.approval_id][1].due_at_ms)


def _early(story: Story, fact: Fact, due_ms: int) -> Iterator[Violation]:
    if fact.time_ms < due_ms:
        yield Violation(1, f"{fact.type} came {due_ms - fact.time_ms} ms before it was due", story.where(fact))


def _approved(story: Story) -> Iterator[Violation]:
    """A call that somebody was asked about: made once it was approved, with the arguments that were approved, and not
    made otherwise."""
    waiting: dict[Place, tuple[str, f.ApprovalRequested]] = {}
    granted: dict[str, f.ApprovalAnswered] = {}
    for fact in story.facts:
        body = fact.body
        if isinstance(body, f.ApprovalRequested):
            place = (body.run_id, body.call, body.index)
            if place in waiting:
                yield Violation(1, "an approval was asked for twice for one call", story.where(fact))
            waiting[place] = (body.approval_id, body)
        elif isinstance(body, f.ApprovalAnswered):
            granted.setdefault(body.approval_id, body)
        elif isinstance(body, f.ToolCalled) and (body.run_id, body.call, body.index) in waiting:
            approval_id, asked = waiting[body.run_id, body.call, body.index]
            answer = granted.get(approval_id)
            if answer is None or answer.decision != "approve":
                yield Violation(3, f"{body.name} was called, and nobody approved it", story.where(fact))
            elif body.arguments != (asked.arguments if answer.arguments is None else answer.arguments):
                yield Violation(3, f"{body.name} was called with other arguments than approved", story.where(fact))


def _expiries(story: Story) -> Iterator[Violation]:
    """A client's tool expires once, and a thread too; a run's deadline is the one that its last attempt named."""
    due: dict[Place, int] = {}
    expired: set[object] = set()
    deadlines: dict[str, int] = {}
    for fact in story.facts:
        body = fact.body
        if isinstance(body, f.ToolCalled) and body.due_at_ms is not None:
            due[body.run_id, body.call, body.index] = body.due_at_ms
        elif isinstance(body, f.ModelCalled) and body.due_at_ms is not None:
            deadlines[body.run_id] = body.due_at_ms
        elif isinstance(body, f.ToolExpired | f.ThreadExpired):
            what = (body.run_id, body.call, body.index) if isinstance(body, f.ToolExpired) else fact.stream
            if what in expired:
                yield Violation(1, f"a second {fact.type}", story.where(fact))
            expired.add(what)
            if isinstance(body, f.ToolExpired):
                yield from _early(story, fact, due.get((body.run_id, body.call, body.index), 0))
        elif isinstance(body, f.RunCancelling) and body.code is not None:
            yield from _early(story, fact, deadlines.get(body.run_id, 0))


def _cancels(story: Story) -> Iterator[Violation]:
    """Who was told that a run is being stopped finds it stopped: it does not complete, and is told of it once."""
    for run in story.runs.values():
        stops = [fact for fact in run.facts if isinstance(fact.body, f.RunCancelling)]
        if len(stops) > 1:
            yield Violation(1, f"{run.run_id} was begun to be cancelled {len(stops)} times", story.where(stops[1]))
        for stop in stops[:1]:
            assert isinstance(stop.body, f.RunCancelling)
            wanted = f.RunCancelled.type if stop.body.code is None else f.RunFailed.type
            for end in run.ends[:1]:
                if end.type != wanted:
                    yield Violation(1, f"{run.run_id} was being cancelled, and ended as {end.type}", story.where(end))

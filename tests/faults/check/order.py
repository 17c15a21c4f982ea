"""2. A stream's facts have dense seqs; its commands take effect in the order of the log; a thread's top-level runs do
not overlap, and start in the order in which they were posted. (Holes and doubled seqs are found while reading.)
"""

from __future__ import annotations

from collections.abc import Iterator

from parley_events import facts as f
from tests.faults.check.story import RunStory, Story, run_of
from tests.faults.check.violation import Violation

WORK = (f.ModelCalled, f.ToolCalled, f.ApprovalRequested)
"""Facts that only a run whose turn it is may have."""


def check_order(story: Story) -> list[Violation]:
    """Promise 2."""
    return [*_begins_at_one(story), *_as_asked(story), *_one_at_a_time(story), *_numbers(story)]


def _begins_at_one(story: Story) -> Iterator[Violation]:
    for stream, facts in story.streams.items():
        if facts and facts[0].seq != 1:
            yield Violation(2, f"the stream {stream} begins with seq {facts[0].seq}", story.where(facts[0]))


def _as_asked(story: Story) -> Iterator[Violation]:
    """The first outcomes of a stream's commands lie in the order of the commands."""
    first: dict[str, int] = {}
    for fact in story.outcomes:
        first.setdefault(str(fact.causation_id), fact.offset or 0)
    reached: dict[str, tuple[int, str]] = {}
    seen: set[str] = set()
    for asked in story.asked:
        if asked.head is None or asked.problem or asked.head.id in seen or asked.head.id not in first:
            continue
        seen.add(asked.head.id)
        offset = first[asked.head.id]
        before, other = reached.get(asked.head.stream, (-1, ""))
        if offset < before:
            where = f"{asked.place}, {asked.head.stream}"
            yield Violation(2, f"{asked.head.id} took effect before {other}, which was asked first", where)
        else:
            reached[asked.head.stream] = (offset, asked.head.id)


def _one_at_a_time(story: Story) -> Iterator[Violation]:
    for facts in story.streams.values():
        open_runs: list[RunStory] = []
        for fact in facts:
            run = story.runs.get(run_of(fact) or "")
            if run is None or not run.top:
                continue
            if fact is run.origin:
                assert isinstance(fact.body, f.MessagePosted)
                if (fact.body.disposition == "started") == bool(open_runs):
                    what = f"{run.run_id} is said to be {fact.body.disposition}, with {len(open_runs)} open before it"
                    yield Violation(2, what, story.where(fact))
                open_runs.append(run)
            elif fact.type in f.RUN_ENDS:
                open_runs = [other for other in open_runs if other is not run]
            elif isinstance(fact.body, WORK) and open_runs and open_runs[0] is not run:
                what = f"{run.run_id} is at work while {open_runs[0].run_id}, posted before it, is open"
                yield Violation(2, what, story.where(fact))


def _numbers(story: Story) -> Iterator[Violation]:
    """Integer ids rise within a partition."""
    last: dict[int, int] = {}
    for fact in story.facts:
        partition = story.partition(fact)
        for number in getattr(fact.body, "numbers", ()):
            if number <= last.get(partition, 0):
                what = f"the integer id {number} is not above {last[partition]}, given before"
                yield Violation(2, what, story.where(fact))
            if number % 256 != partition:
                yield Violation(2, f"the integer id {number} is another partition's", story.where(fact))
            last[partition] = max(number, last.get(partition, 0))

"""6. After a process dies, or Kafka or PostgreSQL restarts, another one takes over in time and every open run ends;
other threads keep moving; all is finished in the end: no run is left open, and no command's offset is uncommitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from parley_events import facts as f
from parley_events.codec import Fact
from tests.faults.check.story import RunStory, Story, run_of
from tests.faults.check.violation import Violation
from tests.faults.evidence import Fault

GOES_ON = (f.ApprovalAnswered, f.ApprovalExpired, f.ToolAnswered, f.ToolExpired)
"""After these a parked run has something to do again."""


def check_recovery(story: Story) -> list[Violation]:
    """Promise 6."""
    return [*_taken_over(story), *_ended_in_time(story), *_left_open(story), *_bystanders(story), *_committed(story)]


def takeovers(story: Story, fault: Fault) -> dict[str, int]:
    """Thread → how many ms after the strike another owner wrote its first fact there. A victim in which nothing was
    to be done, or whose thread stayed with its owner (another process was hit), was not taken over."""
    found: dict[str, int] = {}
    struck = fault.struck_wall_ms
    for thread in fault.victims:
        facts = story.streams.get(thread, [])
        before = [fact for fact in facts if story.appended_ms(fact) <= struck]
        after = [fact for fact in facts if story.appended_ms(fact) > struck]
        at_work = _open_throughout(story, thread, struck, struck + 1) or _asked_before(story, thread, struck)
        if not before or not at_work:
            continue
        first = next((fact for fact in after if fact.epoch > before[-1].epoch), None)
        if first is not None:
            found[thread] = story.appended_ms(first) - fault.struck_wall_ms
    return found


def _asked_before(story: Story, thread: str, at: int) -> bool:
    """Whether a command of the thread waited for its outcome at that time."""
    waiting = {
        asked.head.id
        for asked in story.asked
        if asked.head is not None and asked.head.stream == thread and asked.record.time_ms <= at
    }
    decided = {fact.causation_id for fact in story.outcomes if fact.stream == thread and story.appended_ms(fact) <= at}
    return bool(waiting - decided)


def _taken_over(story: Story) -> Iterator[Violation]:
    limit_ms = int(story.evidence.limits.takeover_s * 1000)
    for fault in story.evidence.faults:
        for thread, took_ms in takeovers(story, fault).items():
            if took_ms > limit_ms:
                what = f"{took_ms / 1000:.1f} s until another owner was at work after {fault.name} of {fault.target}"
                yield Violation(6, what, thread)


def _ended_in_time(story: Story) -> Iterator[Violation]:
    limit_ms = int(story.evidence.limits.end_s * 1000)
    for run in story.runs.values():
        if not run.ends:
            continue
        ended = story.appended_ms(run.ends[0])
        since = _at_work_since(story, run)
        healed = [fault.healed_wall_ms for fault in story.evidence.faults if fault.struck_wall_ms <= ended]
        late = ended - max([since, *healed]) - limit_ms
        if late > 0:
            what = f"{run.run_id} ended {late / 1000:.1f} s after its limit of {limit_ms / 1000:g} s"
            yield Violation(6, what, story.where(run.ends[0]))


def _at_work_since(story: Story, run: RunStory) -> int:
    """When it was the run's turn: it was posted, the one before it had ended, or what it was parked for came."""
    since = story.appended_ms(run.origin)
    end = run.ends[0].seq or 0
    for fact in story.streams[run.origin.stream]:
        if (fact.seq or 0) >= end:
            break
        mine = run_of(fact) == run.run_id
        if (mine and isinstance(fact.body, GOES_ON)) or (not mine and fact.type in f.RUN_ENDS and run.top):
            since = max(since, story.appended_ms(fact))
    return since


def _left_open(story: Story) -> Iterator[Violation]:
    for run in story.runs.values():
        meant = run.run_id in story.evidence.left_open
        if not run.ends and not meant:
            yield Violation(6, f"{run.run_id} is open still", story.where(run.facts[-1]))
        if meant and not run.ends and run.facts[-1].type != f.RunWaiting.type:
            yield Violation(6, f"{run.run_id} should be parked, and is not", story.where(run.facts[-1]))
    for run_id in story.evidence.left_open:
        if run_id not in story.runs:
            yield Violation(6, "a run that was left open on purpose is not on the log", run_id)


def _bystanders(story: Story) -> Iterator[Violation]:
    """While something is broken, threads that have nothing to do with it go on: their facts and what is seen of their
    texts have no long pause."""
    limit_ms = int(story.evidence.limits.pause_s * 1000)
    for fault in story.evidence.faults:
        for thread in fault.bystanders:
            pause_ms, at = _longest_pause(story, fault, thread)
            if pause_ms > limit_ms:
                what = f"{thread} stood still for {pause_ms / 1000:.1f} s during {fault.name} of {fault.target}"
                yield Violation(6, what, f"from {at} (wall clock, ms)")


def _longest_pause(story: Story, fault: Fault, thread: str) -> tuple[int, int]:
    """The longest time, within the fault, in which a run was open in the thread and nothing came of it."""
    shift = fault.struck_wall_ms - fault.struck_mono_ms
    moments = [story.appended_ms(fact) for fact in story.streams.get(thread, ())]
    moments += [
        frame.mono_ms + shift
        for follower in story.evidence.followers
        if follower.thread_id == thread
        for frame in follower.frames
    ]
    within = sorted(moment for moment in moments if fault.struck_wall_ms < moment < fault.healed_wall_ms)
    points = [fault.struck_wall_ms, *within, fault.healed_wall_ms]
    found = (0, fault.struck_wall_ms)
    for start, end in pairwise(points):
        if end - start > found[0] and _open_throughout(story, thread, start, end):
            found = (end - start, start)
    return found


def _open_throughout(story: Story, thread: str, start: int, end: int) -> bool:
    """Whether one run of the thread was open from `start` to `end`, and not parked."""
    for run in story.runs.values():
        if run.origin.stream != thread or story.appended_ms(run.origin) > start:
            continue
        if run.ends and story.appended_ms(run.ends[0]) < end:
            continue
        before: list[Fact] = [fact for fact in run.facts if story.appended_ms(fact) <= start]
        if not before or before[-1].type != f.RunWaiting.type:
            return True
    return False


def _committed(story: Story) -> Iterator[Violation]:
    evidence = story.evidence
    if "committed" in evidence.without:
        return
    for partition, end in evidence.ends.get("parley.commands", {}).items():
        committed = evidence.committed.get(partition, 0)
        if committed != end:
            what = f"the offset {committed} is committed, and the topic ends at {end}"
            yield Violation(6, what, f"parley.commands[{partition}]")

"""0. The evidence itself: that it is all there, so that a check cannot pass because it was given nothing to look at."""

from __future__ import annotations

from collections.abc import Iterator

from parley_events import facts as f
from tests.faults.check.story import Story
from tests.faults.check.violation import Violation
from tests.faults.evidence import Follower

NEEDED = ("commands", "events", "requests", "followers", "views", "ends", "committed", "memory")
"""Parts that must hold something, unless they are named in `without`."""


def check_whole(story: Story) -> list[Violation]:
    """Nothing that should have been gathered is missing, and what was gathered can be read."""
    return [*story.flaws, *_parts(story), *_topics(story), *_followers(story)]


def _parts(story: Story) -> Iterator[Violation]:
    evidence = story.evidence
    for name in NEEDED:
        if not getattr(evidence, name) and name not in evidence.without:
            yield Violation(0, f"there are no {name}: nothing can be told from that")
    if not story.runs:
        yield Violation(0, "there is not one run on the log that counts")
    called = [
        fact for fact in story.facts if isinstance(fact.body, f.ToolCalled) and fact.body.name in evidence.ledger_tools
    ]
    if called and not evidence.ledger and "ledger" not in evidence.without:
        yield Violation(0, "tools of the ledger were called, and the ledger is empty", story.where(called[0]))


def _topics(story: Story) -> Iterator[Violation]:
    """Every record of a topic from offset 0 to its end."""
    evidence = story.evidence
    topics = {
        "parley.commands": evidence.commands,
        "parley.events": evidence.events,
        "parley.rejected": evidence.rejected,
    }
    for topic, records in topics.items():
        offsets: dict[int, list[int]] = {}
        for record in records:
            offsets.setdefault(record.partition, []).append(record.offset)
        for partition, end in evidence.ends.get(topic, {}).items():
            if offsets.get(partition, []) != list(range(end)):
                yield Violation(0, f"not every record below offset {end} was read, in order", f"{topic}[{partition}]")


def _followers(story: Story) -> Iterator[Violation]:
    for follower in story.evidence.followers:
        yield from _resumed_where_it_left(follower)


def _resumed_where_it_left(follower: Follower) -> Iterator[Violation]:
    """A follower that resumed elsewhere than it stood would have gaps of its own making."""
    last: str | None = follower.legs[0].cursor if follower.legs else None
    for number, leg in enumerate(follower.legs):
        if leg.cursor != last:
            yield Violation(0, f"leg {number} asked for {leg.cursor!r}, and had seen {last!r}", follower.name)
        last = next((frame.id for frame in reversed(leg.frames) if frame.id is not None), last)

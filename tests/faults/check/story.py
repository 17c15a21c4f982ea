"""What the evidence's topics say, read by rules of its own: which facts count, what each run did, what was asked.

The rules of the log (the epoch, a seq that is there already) are written anew here, so that a mistake in Parley's own
reading of them is not repeated by the one who checks it. `read` gives a `Story`; every check is a function of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.codec import Command, CommandHead, Fact, command_head, decode_command, decode_fact
from parley_events.errors import Undecodable
from parley_events.log.port import Incoming
from parley_events.partition import partition_of
from tests.faults.check.violation import Violation
from tests.faults.evidence import Evidence

CLAIM = "partition.claimed"
NOTES = frozenset({"command.tried"})
"""Facts of a partition and of no stream, like claims: what an owner notes for the next one."""
AFTER_THE_END = frozenset({f.ToolSettled.type})
"""Facts that may follow their run's end: a person says later what became of a call."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A record of `parley.commands`. `problem`: why nobody can read it, or why it lies in the wrong place."""

    record: Incoming
    head: CommandHead | None = None
    command: Command | None = None
    problem: str | None = None

    @property
    def place(self) -> str:
        return f"parley.commands[{self.record.partition}]@{self.record.offset}"


@dataclass(slots=True)
class RunStory:
    """A run: the fact that opened it, and all of its facts in order, that one included."""

    run_id: str
    origin: Fact
    facts: list[Fact] = field(default_factory=list)

    @property
    def ends(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.type in f.RUN_ENDS]

    @property
    def top(self) -> bool:
        """Whether a message opened it, and not another run."""
        return isinstance(self.origin.body, f.MessagePosted)


@dataclass(slots=True)
class Story:
    """`facts`: those that count and have a seq, in the order of their partition; `outcomes`: those that count and name
    a command, `command.rejected` and `command.repeated` too; `claims`: per partition the offsets of its claims."""

    evidence: Evidence
    facts: list[Fact] = field(default_factory=list)
    outcomes: list[Fact] = field(default_factory=list)
    claims: dict[int, list[int]] = field(default_factory=dict)
    streams: dict[str, list[Fact]] = field(default_factory=dict)
    runs: dict[str, RunStory] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    log_ms: dict[tuple[int, int], int] = field(default_factory=dict)
    """(partition, offset) of `parley.events` → the log's time of the record."""
    flaws: list[Violation] = field(default_factory=list)
    """What was wrong already when it was read."""

    def partition(self, fact: Fact) -> int:
        return partition_of(fact.stream.encode(), self.evidence.partitions)

    def where(self, fact: Fact) -> str:
        """The fact, for whoever looks for it."""
        return f"{fact.type} {fact.stream}@{fact.seq}, parley.events[{self.partition(fact)}]@{fact.offset}"

    def appended_ms(self, fact: Fact) -> int:
        """When the log had the fact."""
        return self.log_ms.get((self.partition(fact), fact.offset or 0), fact.time_ms)

    def of_run(self, run_id: str | None, stream: str) -> list[Fact]:
        """The facts that a follower of the run is about; of the whole thread, where no run is named."""
        return [fact for fact in self.streams.get(stream, ()) if run_id is None or run_of(fact) == run_id]


def read(evidence: Evidence) -> Story:
    """Read the topics."""
    story = Story(evidence)
    for record in believed(evidence.events, story.claims):
        _take(story, record)
    for fact in story.facts:
        body, run_id = fact.body, run_of(fact)
        if isinstance(body, f.MessagePosted | f.ChildStarted):
            if body.run_id in story.runs:
                story.flaws.append(Violation(1, f"{body.run_id} was opened twice", story.where(fact)))
            else:
                story.runs[body.run_id] = RunStory(body.run_id, fact)
        if run_id is not None and run_id in story.runs:
            story.runs[run_id].facts.append(fact)
        elif run_id is not None:
            story.flaws.append(Violation(2, f"a fact of {run_id}, which was never opened", story.where(fact)))
    story.asked = [_asked(record, evidence.partitions) for record in evidence.commands]
    return story


def run_of(fact: Fact) -> str | None:
    """The run that a fact belongs to."""
    return fact.run_id or getattr(fact.body, "run_id", None)


def believed(records: Iterable[Incoming], claims: dict[int, list[int]]) -> list[Incoming]:
    """The records that count: those that carry the offset of the newest claim before them in their partition.
    `claims` is filled with the offsets of all claims."""
    newest: dict[int, int] = {}
    found = []
    for record in records:
        headers = dict(record.headers)
        if headers.get("ce_type") == CLAIM.encode():
            newest[record.partition] = record.offset
            claims.setdefault(record.partition, []).append(record.offset)
        elif headers.get("ce_epoch") == b"%d" % newest.get(record.partition, -1):
            found.append(record)
    return found


def _take(story: Story, record: Incoming) -> None:
    """A record that counts: decode it, and drop it if its seq is there already."""
    place = f"parley.events[{record.partition}]@{record.offset}"
    try:
        fact = decode_fact(record)
    except Undecodable as error:
        story.flaws.append(Violation(0, f"a fact cannot be decoded: {error}", place))
        return
    if fact.type in NOTES:
        return
    if record.key != fact.stream.encode() or story.partition(fact) != record.partition:
        story.flaws.append(
            Violation(2, f"a fact of {fact.stream} lies in another partition, or has another key", place)
        )
        return
    story.log_ms[record.partition, record.offset] = record.time_ms
    if fact.seq is not None:
        known = story.streams.setdefault(fact.stream, [])
        last = known[-1].seq if known else 0
        assert last is not None
        if fact.seq <= last:
            earlier = next((one for one in known if one.seq == fact.seq), None)
            if earlier is None or (earlier.type, earlier.body) != (fact.type, fact.body):
                story.flaws.append(Violation(2, "a seq was given to two different facts", story.where(fact)))
            return
        if fact.seq != last + 1:
            story.flaws.append(Violation(2, f"seq {fact.seq} follows {last}: there is a hole", story.where(fact)))
        known.append(fact)
        story.facts.append(fact)
    if fact.causation_id is not None:
        story.outcomes.append(fact)


def _asked(record: Incoming, partitions: int) -> Asked:
    try:
        head = command_head(record)
        if partition_of(head.stream.encode(), partitions) != record.partition:
            return Asked(record, head, problem="wrong_partition")
        return Asked(record, head, decode_command(record, head))
    except Undecodable as error:
        return Asked(record, problem=str(error))

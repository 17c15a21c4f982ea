"""The epoch rule: the newest claim alone is believed, whatever a superseded writer still sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parley_events.facts import PartitionClaimed
from parley_events.fence import FactFence, PieceFence

CLAIM = PartitionClaimed.type
FACT = "run.completed"


def test_before_any_claim_nothing_is_believed() -> None:
    fence = FactFence()
    assert not fence.accepts(0, FACT, 0)
    assert fence.accepts(1, CLAIM, 0)
    assert fence.epoch == 1


def test_a_claim_is_always_accepted_and_in_force_from_there() -> None:
    fence = FactFence()
    assert fence.accepts(10, CLAIM, 999)
    assert fence.accepts(11, FACT, 10)
    assert fence.accepts(12, CLAIM, 0)
    assert not fence.accepts(13, FACT, 10)
    assert fence.accepts(14, FACT, 12)


def test_the_last_claim_wins_also_over_an_earlier_one_that_was_sent_again() -> None:
    """Of two appends of one claim the later stands: its writer, who knows the earlier alone, is not believed."""
    fence = FactFence()
    fence.accepts(5, CLAIM, 0)
    fence.accepts(6, CLAIM, 0)
    assert not fence.accepts(7, FACT, 5)


def test_a_reader_starts_with_the_epoch_in_force_where_it_starts() -> None:
    fence = FactFence(40)
    assert fence.accepts(50, FACT, 40)
    assert not fence.accepts(51, FACT, 39)
    assert not fence.accepts(52, FACT, 41), "an epoch that no claim was read of"


def test_pieces_of_a_newer_epoch_are_believed_at_once_and_older_ones_never_again() -> None:
    fence = PieceFence()
    assert fence.accepts(3)
    assert fence.accepts(7)
    assert not fence.accepts(3)
    fence.claimed(5)
    assert fence.epoch == 7
    fence.claimed(9)
    assert not fence.accepts(7)
    assert fence.accepts(9)


def test_the_two_counters_never_mix() -> None:
    """Pieces may be ahead of the facts that were read: they say nothing about which facts count."""
    facts, pieces = FactFence(3), PieceFence(3)
    assert pieces.accepts(8)
    assert facts.accepts(4, FACT, 3)
    assert not facts.accepts(5, FACT, 8)
    facts.accepts(6, CLAIM, 0)
    assert (facts.epoch, pieces.epoch) == (6, 8)
    assert not pieces.accepts(6), "the claim of 8 is on its way on the other topic"


class Writer:
    """A dispatcher: it claims, and writes with the epoch that it knows, however old that is."""

    def __init__(self) -> None:
        self.epoch = -1


@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from(["claim", "write", "write"])), max_size=60), st.data()
)
def test_any_interleaving_of_two_writers_yields_the_facts_of_the_newest_claim_alone(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    writers = [Writer(), Writer()]
    log: list[tuple[str, int, int]] = []  # kind, epoch, writer
    newest = -1
    for who, what in steps:
        writer = writers[who]
        if what == "claim":
            log.append((CLAIM, 0, who))
            # Its acknowledgement may come late: until then it writes with the epoch that it had.
            newest = len(log) - 1
            if data.draw(st.booleans()):
                writer.epoch = newest
        elif writer.epoch >= 0:  # nobody writes before a first claim
            log.append((FACT, writer.epoch, who))
            if newest >= 0 and log[newest][2] == who:
                writer.epoch = newest
    fence = FactFence()
    accepted = [(offset, one) for offset, one in enumerate(log) if fence.accepts(offset, one[0], one[1])]
    believed = [(offset, epoch) for offset, (kind, epoch, _) in accepted if kind == FACT]
    assert [n for n, one in accepted if one[0] == CLAIM] == [n for n, one in enumerate(log) if one[0] == CLAIM]
    for offset, epoch in believed:
        claims = [place for place in range(offset) if log[place][0] == CLAIM]
        assert claims and epoch == claims[-1]
        assert log[offset][2] == log[claims[-1]][2], "a fact of a writer that is not the one in force"
    wanted = [
        (offset, epoch)
        for offset, (kind, epoch, _) in enumerate(log)
        if kind == FACT and epoch >= 0 and epoch == max((p for p in range(offset) if log[p][0] == CLAIM), default=-1)
    ]
    assert believed == wanted


@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 20)), max_size=40))
def test_the_epochs_of_believed_pieces_never_fall(steps: list[tuple[bool, int]]) -> None:
    fence = PieceFence()
    believed: list[int] = []
    highest = -1
    for claim, epoch in steps:
        if claim:
            fence.claimed(epoch)
        elif fence.accepts(epoch):
            assert epoch >= highest
            believed.append(epoch)
        else:
            assert epoch < highest
        highest = max(highest, epoch)
    assert believed == sorted(believed)

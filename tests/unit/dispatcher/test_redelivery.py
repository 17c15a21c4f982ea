"""What a new owner knows of commands that it is given a second time: pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parley_dispatcher.redelivery import MOST_ALONE, Redelivered, reading_from
from parley_events.codec import FactHead


def head(kind: str, command: int | None, cause: str | None) -> FactHead:
    return FactHead(0, kind, 3, "", None, None, None, cause, "", command)


def outcome(command: int) -> FactHead:
    return head("message.posted", command, f"command-{command}")


def tried(command: int) -> FactHead:
    return head("command.tried", command, None)


def test_a_command_is_finished_once_its_outcome_was_seen_whatever_it_was() -> None:
    known = Redelivered()
    for seen in (outcome(4), head("command.rejected", 6, "x"), head("command.repeated", 7, "x"), tried(5)):
        known.see(seen)
    known.see(head("model.called", None, None))
    known.see(head("partition.claimed", None, "somebody"))
    assert known.finished == {4, 6, 7}
    assert known.first_unfinished(4, 9) == 5
    assert known.first_unfinished(6, 8) is None
    assert (known.tries(5), known.tries(4)) == (1, 0)


def test_what_is_finished_is_forgotten_once_new_commands_come() -> None:
    known = Redelivered()
    known.see(outcome(4))
    known.until = 6
    assert known.done(4) and not known.done(5) and known.finished
    assert not known.done(6) and not known.finished


def test_suspects_are_those_that_the_owner_before_may_have_begun() -> None:
    known = Redelivered()
    known.until = 10
    assert known.suspect(9) and not known.suspect(10)


def test_only_the_first_suspects_are_begun_alone_and_those_that_were_tried() -> None:
    known = Redelivered()
    known.until = 10_000
    known.see(tried(5000))
    assert sum(known.suspect(offset) for offset in range(1000)) == MOST_ALONE
    assert known.suspect(5000) and not known.suspect(5001)


def test_reading_begins_where_the_epoch_in_force_is_known() -> None:
    assert reading_from(100, 40, (10, 40), since=120) == (100, 40)
    assert reading_from(100, 40, (10, 40), since=60) == (60, 40)
    assert reading_from(100, 40, (10, 40), since=40) == (40, 10)
    assert reading_from(100, 40, (10, 40), since=20) == (20, 10)
    # Nobody knows whom to believe before the oldest claim: reading begins with it.
    assert reading_from(100, 40, (10, 40), since=5) == (10, -1)
    assert reading_from(100, 40, (), since=20) == (40, -1)
    assert reading_from(0, -1, (), since=0) == (0, -1)


@given(st.lists(st.integers(0, 99), unique=True), st.integers(0, 120))
def test_where_reading_begins_the_newest_claim_before_is_in_force(claims: list[int], since: int) -> None:
    epoch = max(claims, default=-1)
    start, in_force = reading_from(100, epoch, claims, since)
    assert 0 <= start <= 100
    assert in_force == max((claim for claim in claims if claim < start), default=-1)

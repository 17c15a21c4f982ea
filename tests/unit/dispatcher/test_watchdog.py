"""A partition that stands still though nothing outside keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from parley_dispatcher.watchdog import EXCUSE_S, Watchdog

LIMIT_S = 100.0


@dataclass
class Partition:
    partition: int = 0
    ready: bool = True
    closed: bool = False
    read_to: int = 0
    next_command: int = 5
    waited_at: float = 0.0
    mark: int = 4

    def watermark(self) -> int:
        return self.mark


def looks(owner: Partition, until: float, unacknowledged_s: float = 0.0, dog: Watchdog | None = None) -> str | None:
    """Looked at once a second; what is said last."""
    dog = dog or Watchdog(LIMIT_S)
    said = None
    for second in range(int(until) + 1):
        said = dog.look([owner], unacknowledged_s, float(second))
    return said


def test_a_command_that_is_not_finished_in_time_is_noticed() -> None:
    assert looks(Partition(), LIMIT_S) is None
    assert looks(Partition(), LIMIT_S + 1) == "partition 0 stands still: the command at 4 is not finished since 101 s"


def test_a_claim_that_does_not_come_about_is_noticed() -> None:
    stuck = Partition(ready=False, mark=-1)
    assert looks(stuck, LIMIT_S + 1) == "partition 0 stands still: it is not claimed since 101 s"


def test_nothing_to_do_is_no_standing_still() -> None:
    assert looks(Partition(mark=5), 10 * LIMIT_S) is None


def test_whoever_moves_is_not_stuck() -> None:
    owner, dog = Partition(next_command=10_000), Watchdog(LIMIT_S)
    for second in range(1000):
        owner.mark = second // 90
        assert dog.look([owner], 0.0, float(second)) is None


def test_what_is_away_outside_is_an_excuse_and_the_time_begins_anew_after_it() -> None:
    assert looks(Partition(), 3 * LIMIT_S, unacknowledged_s=6.0) is None
    owner, dog = Partition(), Watchdog(LIMIT_S)
    for second in range(300):
        owner.waited_at = float(second)
        assert dog.look([owner], 0.0, float(second)) is None
    said = {second: dog.look([owner], 0.0, float(second)) for second in range(300, 500)}
    first = next(second for second, words in said.items() if words is not None)
    assert LIMIT_S <= first - (299 + EXCUSE_S) < LIMIT_S + 3


def test_a_new_owner_has_its_own_time() -> None:
    dog = Watchdog(LIMIT_S)
    assert looks(Partition(), LIMIT_S - 1, dog=dog) is None
    assert dog.look([Partition()], 0.0, LIMIT_S + 5) is None
    closed = Partition(closed=True)
    assert looks(closed, 2 * LIMIT_S) is None

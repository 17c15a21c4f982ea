"""What each key was told last: bounded, and never backwards."""

from __future__ import annotations

from parley_gateway.told import MOST_KEYS, MOST_STREAMS, Told


def test_the_newest_of_each_stream_is_what_a_read_waits_for() -> None:
    told = Told()
    for stream, seq in (("a", 2), ("b", 1), ("a", 3), ("a", 1)):
        told.tell("key", stream, seq)
    assert sorted(told.positions("key")) == ["a@3", "b@1"]
    assert told.positions("another") == []


def test_what_was_seen_needs_no_waiting_for() -> None:
    told = Told()
    told.tell("key", "a", 3)
    waiting = told.positions("key")
    told.tell("key", "a", 4)
    told.seen("key", waiting)
    assert told.positions("key") == ["a@4"], "what was told meanwhile is kept"
    told.seen("key", told.positions("key"))
    assert told.positions("key") == []
    told.seen("another", ["a@4"])


def test_it_is_bounded_and_forgets_the_oldest() -> None:
    told = Told()
    for n in range(MOST_STREAMS + 3):
        told.tell("key", f"s{n}", 1)
    assert told.positions("key") == [f"s{n}@1" for n in range(3, MOST_STREAMS + 3)]
    for n in range(MOST_KEYS):
        told.tell(f"key-{n}", "s", 1)
    assert told.positions("key") == [] and told.positions(f"key-{MOST_KEYS - 1}") == ["s@1"]

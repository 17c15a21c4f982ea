"""Rows held while a partition is loaded: what is new, what has changed, what is let go of and must be fetched again."""

from __future__ import annotations

from parley_history.rebuild.held import Held


def test_what_is_new_goes_out_once_and_what_changed_since_goes_out_as_changed() -> None:
    held: Held[str] = Held()
    held.take({"a": "a1", "b": "b1"})
    held.take({"a": "a2"})
    assert held.spill() == (["b1", "a2"], [])
    assert held.spill() == ([], [])
    held.take({"b": "b2"})
    assert held.spill() == ([], ["b2"])


def test_those_touched_longest_ago_are_let_go_of_and_known_to_be_missing() -> None:
    held: Held[str] = Held()
    held.take({"a": "a1", "b": "b1", "c": "c1"})
    assert held.missing(["z"]) == [], "nothing is in the table alone"
    held.take({"a": "a2"})
    held.spill()
    held.forget(2)
    assert held.of(["a", "b", "c"]) == ["a2", "c1"]
    assert held.missing(["a", "b", "z"]) == ["b", "z"]
    held.fetched({"b": "b1"})
    held.take({"b": "b2"})
    assert held.spill() == ([], ["b2"]), "what came from the table is changed there, not put there anew"

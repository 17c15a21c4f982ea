"""The window: what the tail has read and history may not know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parley_dispatcher.window import Window
from parley_events.log import Incoming


def record(offset: int, size: int = 10) -> Incoming:
    return Incoming("parley.events", 0, offset, 0, None, b"x" * size, ())


def test_it_gives_what_lies_beyond_a_seq_in_order_and_each_once() -> None:
    window = Window()
    for offset, seq in enumerate([1, 2, 2, 3, 1]):
        window.add("a", seq, record(offset))
    window.add("b", 1, record(5))
    assert [kept.offset for kept in window.since("a", 1)] == [1, 3]
    assert [kept.offset for kept in window.since("a", 0)] == [0, 1, 3]
    assert window.since("c", 0) == []


def test_what_history_knows_is_let_go_of_and_where_it_begins_is_known() -> None:
    window = Window()
    window.trim(7)
    for offset in range(7, 12):
        window.add("a", offset, record(offset))
    window.trim(10)
    assert window.start == 10
    assert [kept.offset for kept in window.since("a", 0)] == [10, 11]
    window.trim(8)
    assert window.start == 10
    window.trim(100)
    assert (window.start, window.size, window.since("a", 0)) == (100, 0, [])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40), st.integers(0, 45))
def test_its_size_is_that_of_what_it_holds(added: list[tuple[str, int]], cut: int) -> None:
    window = Window()
    for offset, (stream, size) in enumerate(added):
        window.add(stream, offset, record(offset, size))
    window.trim(cut)
    kept = [size for offset, (_, size) in enumerate(added) if offset >= cut]
    assert window.size == sum(size + 700 for size in kept)
    assert sum(len(window.since(stream, -1)) for stream in "abc") == len(kept)

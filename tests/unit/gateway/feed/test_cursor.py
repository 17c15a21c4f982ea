"""Cursors: what is written is read back, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_gateway.errors import Problem
from parley_gateway.feed.cursor import MAX_BLOCKS, Cursor, parse_cursor

places = st.tuples(st.integers(1, 50), st.integers(0, 9))


@given(
    st.integers(50, 10**14),
    st.integers(0, 9999),
    st.dictionaries(places, st.integers(1, 10**8), max_size=MAX_BLOCKS),
)
def test_a_cursor_is_read_back_as_it_was_written(seq: int, frames: int, blocks: dict[tuple[int, int], int]) -> None:
    cursor = Cursor(seq, frames, blocks)
    assert parse_cursor(str(cursor)) == cursor


def test_the_forms_are_those_that_clients_know() -> None:
    assert str(Cursor(7)) == "7"
    assert str(Cursor(7, 2)) == "7-2"
    assert str(Cursor(7, 0, {(5, 1): 4, (5, 0): 12})) == "7/5.0:12/5.1:4"
    assert Cursor(7).done == 7
    assert Cursor(7, 1).done == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 7",
        "7 ",
        "07",
        "-1",
        "7-0",
        "7-",
        "0-1",
        "7/",
        "7/5.0",
        "7/5.0:0",
        "7/5.0:04",
        "7/05.0:4",
        "7/0.0:4",
        "7/8.0:4",
        "7/5.1:4/5.0:4",
        "7/5.0:4/5.0:4",
        "7/5.0:4/",
        "7/5.0:-4",
        "٧",
        "7\n",
        "1e3",
        "9" * 16,
        "7" + "/5.0:4" * 2000,
        "100" + "".join(f"/{n}.0:1" for n in range(1, MAX_BLOCKS + 2)),
    ],
)
def test_anything_else_is_garbage(text: str) -> None:
    with pytest.raises(Problem) as problem:
        parse_cursor(text)
    assert (problem.value.status, problem.value.code) == (400, "bad_cursor")


@given(st.text(max_size=40))
def test_whatever_is_taken_is_written_the_same_way(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except Problem as problem:
        assert problem.code == "bad_cursor"
    else:
        assert str(cursor) == text

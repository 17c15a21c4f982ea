"""Positions: two forms, each of which comes back as it was; anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events.errors import Undecodable
from parley_events.positions import (
    MOST_POSITIONS,
    PartitionPosition,
    Position,
    StreamPosition,
    parse_position,
    parse_positions,
    written,
)

THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"

POSITIONS = st.builds(
    StreamPosition, st.sampled_from([THREAD, f"ws:{THREAD}"]), st.integers(0, 10**15 - 1)
) | st.builds(PartitionPosition, st.integers(0, 255), st.integers(0, 10**18 - 1))


@given(POSITIONS)
def test_a_position_comes_back_as_it_was(position: Position) -> None:
    assert parse_position(str(position)) == position


@given(st.lists(POSITIONS, min_size=1, max_size=20))
def test_several_come_back_as_they_were(positions: list[Position]) -> None:
    assert list(parse_positions(written(positions))) == positions


@pytest.mark.parametrize(
    "text", ["", ",", "1.5,", ",1.5", "1.5, 2.6", "1.5,soon", ",".join(["1.5"] * (MOST_POSITIONS + 1))]
)
def test_a_list_with_one_that_is_none_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(Undecodable):
        parse_positions(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", ".", "1", "1.", ".1", "-1.5", "1.-5", "1.5.6", "1000.5", "1." + "9" * 19, "1,5", "1.٤x"),
        *(f"{THREAD}@", f"{THREAD}@-1", f"{THREAD}@{'9' * 16}", f"{THREAD}@1@2", f"{THREAD}@1 ", "thread@1", "@1"),
    ],
)
def test_what_parley_never_gave_out_is_refused(text: str) -> None:
    with pytest.raises(Undecodable):
        parse_position(text)


@given(st.text(alphabet="0123456789.@-:ws" + "٤²", max_size=12))
def test_anything_else_is_refused_and_raises_nothing_else(text: str) -> None:
    try:
        parse_position(text)
    except Undecodable as error:
        assert str(error)

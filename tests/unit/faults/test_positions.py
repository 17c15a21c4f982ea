"""Positions of the view that go back, or are moved from where they do not stand, are found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.check.positions import check_positions
from tests.faults.check.story import Story
from tests.faults.evidence import Evidence


def moves(*made: tuple[int, int, int]) -> Story:
    rows: list[dict[str, Any]] = [
        dict(zip(("partition", "from_offset", "to_offset"), move, strict=True)) for move in made
    ]
    return Story(replace(Evidence(scenario="moves", seed=0, partitions=2), moves=tuple(rows)))


def test_positions_that_go_on_from_where_they_stand_are_right() -> None:
    assert check_positions(moves((0, 0, 5), (1, 0, 3), (0, 5, 6), (1, 3, 9))) == []


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (((0, 0, 5), (0, 5, 3)), "went back from 5 to 3"),
        (((0, 0, 5), (0, 2, 8)), "was moved from 2, and stood at 5"),
    ],
)
def test_others_are_found(made: tuple[tuple[int, int, int], ...], what: str) -> None:
    [violation] = check_positions(moves(*made))
    assert what in str(violation) and violation.promise == 4

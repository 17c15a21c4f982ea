"""How partitions are shared between processes, and how a process is handed its part."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from parley_history.rebuild.spread import Part, part_in, shares
from tests.unit.history.rebuild.test_command import SETTINGS


def test_the_longest_go_first_each_to_who_has_the_least() -> None:
    assert shares({0: 10, 1: 60, 2: 30, 3: 20}, 2) == [{1: 60}, {2: 30, 3: 20, 0: 10}]


@pytest.mark.parametrize(("count", "made"), [(1, 1), (2, 2), (8, 3)])
def test_there_are_no_more_shares_than_partitions_with_anything_and_each_partition_is_in_one(
    count: int, made: int
) -> None:
    ends = {0: 5, 1: 0, 2: 7, 3: 0, 4: 1}
    found = shares(ends, count)
    assert len(found) == made and all(any(share.values()) for share in found)
    assert {p: end for share in found for p, end in share.items()} == ends
    assert sum(map(len, found)) == len(ends)


def test_a_log_that_is_empty_is_one_share() -> None:
    assert shares({0: 0, 1: 0}, 4) == [{0: 0, 1: 0}]


@pytest.mark.parametrize("file", [None, Path("history.log")])
def test_a_part_is_handed_over_whole(file: Path | None) -> None:
    settings = replace(SETTINGS, postgres="postgresql://owner:x@h/d", log="embedded", data=Path("é"), log_file=file)
    part = Part(settings, "parley_next", {3: 9, 250: 0}, 77)
    line = part.line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert part_in(line) == part
    assert {type(getattr(part_in(line).settings, one.name)) for one in fields(settings)} == {
        type(getattr(settings, one.name)) for one in fields(settings)
    }

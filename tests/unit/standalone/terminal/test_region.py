"""The end of the screen: whatever was drawn on the way, what stays is right, also after a resize."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_standalone.terminal.region import EMPTY, Region, Row
from tests.support.terminal import Emulator


def row(text: str) -> Row:
    return Row(text, len(text), text)


STATUS = row("status")
STEP = st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 3))
"""How many rows become final, how many are alive after that, and which version of them."""


@given(st.lists(STEP, max_size=25), st.integers(4, 12))
@settings(max_examples=100, deadline=None)
def test_the_scrollback_has_every_final_row_once_and_nothing_else(
    steps: list[tuple[int, int, int]], lines: int
) -> None:
    screen, region = Emulator(20, lines), Region()
    final: list[str] = []
    for count, alive, version in steps:
        rows = [row(f"row {len(final) + n}") for n in range(count)]
        final += [each.plain for each in rows]
        live = [row(f"row {len(final)}" if n == 0 else f"live {n} v{version}") for n in range(alive)]
        screen.feed(region.draw(rows, [*live, STATUS], 20, lines))
        shown = [*[each.plain for each in live], "status"][-(lines - 1) :]
        assert screen.text().split("\n") == [*final, *shown]
    screen.feed(region.close([row("end")], 20, lines))
    assert screen.text().split("\n") == [*final, "end"]
    assert screen.x == 0, "what comes next begins a line"


def test_a_row_that_did_not_change_is_not_written_again() -> None:
    region = Region()
    region.draw([], [row("one"), row("two"), STATUS], 20, 10)
    assert region.draw([], [row("one"), row("two"), STATUS], 20, 10) == ""
    again = region.draw([row("one")], [row("two"), row("three"), STATUS], 20, 10)
    assert "one" not in again and "two" not in again and "three" in again


def test_rows_that_go_leave_nothing_behind() -> None:
    screen, region = Emulator(20, 10), Region()
    screen.feed(region.draw([], [EMPTY, row("void"), STATUS], 20, 10))
    screen.feed(region.close([], 20, 10))
    assert screen.text() == ""
    assert (screen.x, screen.y) == (0, 0)


def test_after_a_resize_the_rows_are_found_where_the_terminal_wrapped_them() -> None:
    region = Region()
    region.draw([], [row("x" * 30), STATUS], 40, 10)
    out = region.draw([], [row("x" * 15), row("x" * 15), STATUS], 20, 10)
    # Thirty cells are two rows of twenty, and the status is the third: the cursor goes two up.
    assert "\x1b[2A" in out

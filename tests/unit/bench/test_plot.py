"""The plots: what is drawn where, and that it is SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.plot import Line, Panel, steps, svg

SVG = "{http://www.w3.org/2000/svg}"


def panel(*points: tuple[float, float], log: bool = False) -> Panel:
    ticks = ((1.0, "1"), (2.0, "2"), (4.0, "4"))
    return Panel("threads & more", "threads", "×", ticks, (Line("a <line>", points),), log=log, band=(0.9, 1.1))


def points_of(text: str) -> list[tuple[float, float]]:
    [line] = ElementTree.fromstring(text).iter(f"{SVG}polyline")
    return [(float(x), float(y)) for x, y in (at.split(",") for at in line.attrib["points"].split())]


def test_higher_is_more_and_doublings_are_as_far_apart_as_each_other() -> None:
    found = points_of(svg("Growth", [panel((1, 1.0), (2, 2.0), (4, 3.0), log=True)]))
    (x1, y1), (x2, y2), (x4, y4) = found
    assert y1 > y2 > y4
    assert y1 - y2 == pytest.approx(y2 - y4, abs=0.2)
    assert x2 - x1 == pytest.approx(x4 - x2, abs=0.2)


def test_without_logarithm_places_are_as_far_apart_as_their_numbers() -> None:
    (x1, _), (x2, _), (x4, _) = points_of(svg("Memory", [panel((1, 1.0), (2, 1.0), (4, 1.0))]))
    assert (x4 - x2) == pytest.approx(2 * (x2 - x1), abs=0.3)


def test_names_are_written_as_they_are_and_once_for_all_panels() -> None:
    made = svg("Growth", [panel((1, 1.0)), panel((1, 2.0))])
    words = [text.text for text in ElementTree.fromstring(made).iter(f"{SVG}text")]
    assert words.count("a <line>") == 1
    assert words.count("threads & more") == 2
    assert "prefers-color-scheme: dark" in made


@given(
    st.lists(
        st.tuples(st.floats(min_value=1, max_value=4), st.floats(min_value=0, max_value=1e9)), min_size=1, max_size=30
    )
)
def test_whatever_is_drawn_lies_within_the_picture(points: list[tuple[float, float]]) -> None:
    for x, y in points_of(svg("Any", [panel(*points)])):
        assert 0 <= x <= 300
        assert 0 <= y <= 330


@pytest.mark.parametrize(
    ("highest", "marks"),
    [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (7, [0, 2, 4, 6, 8]), (1050, [0, 250, 500, 750, 1000, 1250])],
)
def test_the_axis_has_round_numbers(highest: float, marks: list[float]) -> None:
    assert steps(highest) == pytest.approx(marks)

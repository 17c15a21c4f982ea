"""The table of the benchmark, and how it gets into its page."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.__main__ import PARTS, run
from tests.bench.report import RESULTS, Report, Row, markers, page, rewritten, table

ROW = Row("first delta", "≤ 10 ms", "8.1 ms", True)


def test_a_row_says_what_was_wanted_what_was_reached_and_whether_that_is_enough() -> None:
    rows = (ROW, Row("idle", "≤ 20 KB", "25 KB", False), Row("fold", "fast", "not measured", None))
    assert table(rows).split("\n") == [
        "| what | target | reached | met |",
        "|---|---|---|---|",
        "| first delta | ≤ 10 ms | 8.1 ms | yes |",
        "| idle | ≤ 20 KB | 25 KB | **no** |",
        "| fold | fast | not measured | – |",
    ]


def test_a_page_has_one_table_of_all_parts_and_then_their_details() -> None:
    made = page("on two cores", [Report((ROW,), "more\n"), Report(), Report((ROW,))])
    assert made == f"on two cores\n\n{table((ROW, ROW))}\n\nmore"


def test_what_people_wrote_around_a_measured_part_stays() -> None:
    first, last = markers("bench")
    text = f"# Seen\n\n{first}\n\nold\n\n{last}\n\nBy hand.\n"
    assert rewritten(text, "bench", "new\n") == f"# Seen\n\n{first}\n\nnew\n\n{last}\n\nBy hand.\n"
    assert rewritten(rewritten(text, "bench", "new"), "bench", "old") == text


@pytest.mark.parametrize(
    "text",
    ["", "{first}", "{last}", "{last} {first}", "{first} {first} {last}", "{first} {last} {last}"],
)
def test_a_page_without_its_place_is_left_alone(text: str) -> None:
    first, last = markers("soak")
    with pytest.raises(ValueError, match="once each"):
        rewritten(text.format(first=first, last=last), "soak", "new")


@pytest.mark.parametrize("name", ["bench", "soak"])
def test_the_page_of_results_has_a_place_for_each(name: str) -> None:
    assert "new" in rewritten(RESULTS.read_text(), name, "new")


async def test_a_part_that_fails_or_hangs_says_so_and_the_others_go_on() -> None:
    async def fails() -> Report:
        raise RuntimeError("no | broker\nand more")

    async def hangs() -> Report:
        await asyncio.Event().wait()
        return Report()

    async def works() -> Report:
        return Report((ROW,))

    reports = await run({"a": fails, "b": hangs, "c": works}, limit_s=0.05)
    rows = [row for report in reports for row in report.rows]
    assert [(row.what, row.reached, row.met) for row in rows] == [
        ("the part `a`", "failed: RuntimeError: no / broker", False),
        ("the part `b`", "failed: TimeoutError", False),
        ("first delta", "8.1 ms", True),
    ]


def test_the_parts_are_those_that_the_page_speaks_of() -> None:
    assert list(PARTS) == ["streams", "up", "watch", "idle", "fold", "growth"]

"""The bar of `parley rebuild`: every stage has its line, and the load says how far it is."""

from __future__ import annotations

import io

import pytest

from parley_history.rebuild.fill import Progress
from parley_standalone.terminal.bar import bar_on, drawn


def test_every_stage_is_drawn_with_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    screen = io.StringIO()
    with bar_on(screen) as bar:
        tell = drawn(bar)
        for progress in (
            Progress("load", 0, 2000),
            Progress("load", 1000, 2000),
            Progress("load", 2000, 2000),
            Progress("indexes"),
            Progress("compare", 1, 18),
            Progress("switch"),
        ):
            tell(progress)
    shown = screen.getvalue()
    for words in (
        "folding the log",
        "2000/2000",
        "making indexes",
        "comparing",
        "1/18",
        "switching",
    ):
        assert words in shown

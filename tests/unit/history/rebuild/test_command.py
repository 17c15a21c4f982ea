"""The words of `rebuild`: what is read, what a person is told, and the exit status."""

from __future__ import annotations

import pytest

from parley_history.rebuild.command import DIFFERS, Asked, by_lines, line, read_arguments, said
from parley_history.rebuild.compare import Difference
from parley_history.rebuild.fill import Progress
from parley_history.rebuild.run import Outcome
from parley_history.settings import Settings

SETTINGS = Settings(
    postgres_projector="postgresql://parley_projector:x@h/d",
    postgres_reader="postgresql://parley_reader:x@h/d",
    internal_token="a-token-of-tests",
)


def test_arguments() -> None:
    assert read_arguments([]) == Asked()
    assert read_arguments(["--drop", "--accept"]) == Asked(accept=True, drop=True)
    assert read_arguments(["--back"]) == Asked(back=True)
    assert read_arguments(["--processes=4", "--drop"]) == Asked(drop=True, processes=4)
    for bad in (
        *(["--back", "--drop"], ["--drop", "--drop"], ["--force"], ["now"], ["--back", "--processes=2"]),
        *([f"--processes={bad}"] for bad in ("", "0", "-1", "x", "65", "1000", "٣")),
        ["--processes=2", "--processes=2"],
    ):
        assert read_arguments(bad) is None


def test_what_is_told() -> None:
    differs = Difference("runs", 3, 4, "for example {} is only in the rebuilt one")
    lines, status = said(SETTINGS, Asked(), Outcome(1000, 2.0, False, [differs]))
    assert status == DIFFERS and "500 per second" in lines[0] and "3 rows in the live view, 4 rebuilt" in lines[1]
    assert "--accept" in lines[2] and "parley_next" in lines[2]
    lines, status = said(SETTINGS, Asked(accept=True), Outcome(0, 0.0, True, [differs]))
    assert status == 0 and "parley_before" in lines[-1] and "differs" in lines[1]
    assert said(SETTINGS, Asked(back=True), Outcome(switched=True))[1] == 0


def test_the_line_has_the_rate_and_the_time_left() -> None:
    assert line(Progress("load", 300, 1200), 3.0) == "load: 300 of 1200, 100 per second, 9 s left"
    assert line(Progress("indexes"), 3.0) == "indexes"


def test_a_line_every_two_seconds_and_at_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    tell = by_lines(lambda: now[0])
    for now[0], stage in ((0.0, "load"), (1.0, "load"), (2.0, "load"), (2.1, "indexes")):
        tell(Progress(stage, 1, 10))
    assert [one.split(":")[0] for one in capsys.readouterr().err.splitlines()] == ["load", "load", "indexes"]

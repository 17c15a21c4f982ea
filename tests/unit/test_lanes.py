"""`make test` runs every test once, its lanes at the same time, and ends with what failed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lanes import LANES, Command, run_all

TOP = Path(__file__).parents[2]
LIMIT_S = 30.0


def python(code: str) -> Command:
    return (sys.executable, "-c", code)


async def outcome(**lanes: Sequence[Command]) -> tuple[int, list[str]]:
    """The status, and what was said, in order."""
    said: list[str] = []
    async with asyncio.timeout(LIMIT_S):
        return await run_all(lanes, said.append), said


def test_every_test_is_in_exactly_one_lane() -> None:
    commands = [list(command) for lane in LANES.values() for command in lane]
    assert any("mypy" in command for command in commands)
    folders: dict[str, list[str]] = {}
    for words in (command[command.index("pytest") :] for command in commands if "pytest" in command):
        mark = words[words.index("-m") + 1] if "-m" in words else ""
        for folder in (word for word in words if word.startswith("tests/")):
            folders.setdefault(folder, []).append(mark)
    assert {folder: sorted(marks) for folder, marks in folders.items()} == {
        "tests/unit": [""],
        "tests/contract": [""],
        "tests/e2e": ["breaks", "not breaks"],
        "tests/faults": ["breaks"],
    }
    for file in (TOP / "tests").rglob("test_*.py"):
        folder = str(file.relative_to(TOP).parents[-3])
        assert folder in folders, f"{file} is in no lane"
        if folder == "tests/faults":
            assert "\npytestmark = pytest.mark.breaks\n" in file.read_text(), f"{file} is in no lane"


async def test_lanes_run_at_the_same_time(tmp_path: Path) -> None:
    meet = "import pathlib, sys, time\n" + "\n".join(
        (
            "mine, other = map(pathlib.Path, sys.argv[1:])",
            "mine.touch()",
            "while not other.exists(): time.sleep(0.01)",
        )
    )
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    status, said = await outcome(a=[(*python(meet), one, two)], b=[(*python(meet), two, one)])
    assert status == 0
    assert said[-1] == "==== everything passed"


async def test_what_failed_is_said_at_once_and_whole_at_the_end(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    wrong = python("print('why it failed'); print('FAILED tests/x.py::test_y - why'); raise SystemExit(3)")
    never = python(f"open({str(tmp_path / 'never')!r}, 'w')")
    patient = python(f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)\nprint('well')")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "FAILED tests/x.py" in text:
            seen.touch()

    async with asyncio.timeout(LIMIT_S):
        status = await run_all({"bad": [wrong, never], "good": [patient]}, say)
    assert status == 1
    assert not (tmp_path / "never").exists(), "a lane ends at its first failure"
    first, good, bad, last = said
    assert first.startswith("==== bad: FAILED") and "why it failed" not in first
    assert good.startswith("==== good: passed") and good.endswith("\nwell")
    assert bad.splitlines()[1:] == ["why it failed", "FAILED tests/x.py::test_y - why"]
    assert last == "==== failed: bad"


async def test_the_way_so_far_is_shown_while_it_runs() -> None:
    lines = ["." * 9 + f" [{percent:3d}%]" for percent in (4, 9, 12, 15, 20, 100)]
    status, said = await outcome(a=[python(f"for line in {lines!r}: print(line)"), python("print('other')")])
    assert (status, said[:3]) == (0, ["a: 12 %", "a: 20 %", "a: 100 %"])
    assert said[3].startswith("==== a: passed") and len(said) == 5


async def test_every_command_of_a_lane_must_go_well() -> None:
    fine, wrong = python("print('fine')"), python("raise SystemExit(1)")
    assert (await outcome(a=[fine, wrong]))[0] == 1
    assert (await outcome(a=[wrong, fine]))[0] == 1
    assert (await outcome(a=[fine, fine]))[0] == 0


async def test_a_program_that_is_not_there_and_one_that_is_killed_have_failed() -> None:
    status, said = await outcome(a=[("/no/such/program",)], b=[python("import os; os.kill(os.getpid(), 9)")])
    assert status == 1
    assert "/no/such/program" in "\n".join(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """One lane ends at once, the other has something to put away first."""
    pid_file, put_away = tmp_path / "pid", tmp_path / "put away"
    slow = "\n".join(
        (
            "import os, pathlib, time",
            f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()) + ' ')",
            "try: time.sleep(600)",
            "except KeyboardInterrupt: time.sleep(1)",
            f"pathlib.Path({str(put_away)!r}).touch()",
        )
    )
    made = {"quick": [python("import time; time.sleep(600)")], "slow": [python(slow)]}
    code = f"import sys; from tests import lanes; sys.exit(lanes.main({made!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=TOP)
    until = time.monotonic() + LIMIT_S
    while not (pid_file.exists() and pid_file.read_text().endswith(" ")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(LIMIT_S)
    assert process.returncode != 0
    assert put_away.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)

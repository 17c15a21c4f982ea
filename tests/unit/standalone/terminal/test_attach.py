"""Files to attach: refused before anything is sent."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from parley_standalone.errors import CommandError
from parley_standalone.terminal.attach import LIMIT, attach, encoded


def test_a_file_goes_along_with_its_name_type_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "b.zzz").write_bytes(b"\x00")
    files = [attach(str(tmp_path / "a.pdf"), [])]
    files.append(attach(str(tmp_path / "b.zzz"), files))
    assert encoded(files) == [
        {"name": "a.pdf", "content_base64": base64.b64encode(b"%PDF").decode(), "content_type": "application/pdf"},
        {"name": "b.zzz", "content_base64": "AA==", "content_type": "application/octet-stream"},
    ]


def test_what_cannot_be_attached_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "a").write_text("a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("b")
    os.mkfifo(tmp_path / "fifo")
    already = [attach(str(tmp_path / "a"), [])]
    for path, why in [
        ("none", "cannot be read: No such file"),
        ("other", "is no file"),
        ("fifo", "is no file"),
        ("empty", "is empty"),
        ("other/a", "a file named a is attached already"),
        ("nul\x00", "cannot be read"),
    ]:
        with pytest.raises(CommandError, match=why) as caught:
            attach(str(tmp_path / path), already)
        assert "\n" not in str(caught.value)


def test_a_home_of_nobody_is_one_line() -> None:
    with pytest.raises(CommandError, match="~nobody-of-this-name/a cannot be read"):
        attach("~nobody-of-this-name/a", [])


def test_twenty_five_mib_together_are_the_limit(tmp_path: Path) -> None:
    for name, size in (("half", LIMIT // 2), ("rest", LIMIT - LIMIT // 2), ("more", LIMIT - LIMIT // 2 + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    half = [attach(str(tmp_path / "half"), [])]
    attach(str(tmp_path / "rest"), half)
    with pytest.raises(CommandError, match="25 MiB is the limit"):
        attach(str(tmp_path / "more"), half)


def test_a_file_that_grew_meanwhile_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    files = [attach(str(tmp_path / "a"), [])]
    with (tmp_path / "a").open("wb") as file:
        file.truncate(LIMIT + 5)
    with pytest.raises(CommandError, match="25 MiB is the limit"):
        encoded(files)
    (tmp_path / "a").unlink()
    with pytest.raises(CommandError, match="cannot be read"):
        encoded(files)

"""Fetching a file: its name cannot lead anywhere, and nothing that is there is written over."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from parley_standalone.errors import CommandError
from parley_standalone.terminal.save import asked, order, save


@pytest.mark.parametrize(
    ("rest", "name", "path"),
    [
        ("report.md", "report.md", ""),
        ("report.md ~/a folder/x.md", "report.md", "~/a folder/x.md"),
        ('"my report.md"', "my report.md", ""),
        ('"my report.md" out/', "my report.md", "out/"),
        ('"my "own" report.md" out', 'my "own" report.md', "out"),
        ("bob's.md", "bob's.md", ""),
        ("世界.md", "世界.md", ""),
    ],
)
def test_a_name_and_a_path_are_read(rest: str, name: str, path: str) -> None:
    assert asked(rest) == (name, path)


@pytest.mark.parametrize(
    "name", ["report.md", "my report.md", "a  b", '"', '"a', '"a"', 'a"b', 'a "b" c', "-rf", "é.md"]
)
def test_what_the_screen_says_to_type_fetches_that_name(name: str) -> None:
    assert asked(order(name).removeprefix(":save ")) == (name, "")


@pytest.mark.parametrize(
    "rest",
    ["../x", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:x", '"../my x"', "a\x00b", "a\u202eb", "x" * 256, '" "'],
)
def test_a_name_that_could_lead_somewhere_is_refused(rest: str) -> None:
    with pytest.raises(CommandError):
        asked(rest)


def test_a_file_is_saved_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert save(b"1", "a.md", "") == Path("a.md")
    assert save(b"2", "a.md", "~").read_bytes() == b"2"
    assert save(b"3", "a.md", "other.txt").read_bytes() == b"3"
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == {"a.md", "home/a.md", "other.txt"}


def test_a_name_that_is_taken_gets_a_number_and_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    for content in (b"1", b"2", b"3"):
        save(content, "a.tar.gz", str(tmp_path))
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"a.tar.gz": b"1", "a.tar-2.gz": b"2", "a.tar-3.gz": b"3"}
    with pytest.raises(CommandError, match="is there already"):
        save(b"4", "x", str(tmp_path / "a.tar.gz"))
    assert (tmp_path / "a.tar.gz").read_bytes() == b"1"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to(tmp_path / "elsewhere")
    assert save(b"1", "a.md", str(tmp_path)).name == "a-2.md"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("none/", "none/ is no folder"),
        ("none/x.md", "none/x.md cannot be written: No such file or directory"),
        ("~nobody-of-this-name/x", "cannot be written: "),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    path: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError) as raised:
        save(b"1", "a.md", path)
    assert why in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_half_a_file_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    class Full:
        def __init__(self, file: object) -> None:
            self._file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, *how: Full(opened(path, *how)))
    with pytest.raises(CommandError, match="No space left on device"):
        save(b"1", "a.md", str(tmp_path))
    assert list(tmp_path.iterdir()) == []

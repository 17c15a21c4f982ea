"""READY: exactly the keys that scripts were promised, whole, private, and gone at the end."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.ready import Ready, announce, banner

PIDS = {"standalone": [1], "postgres": [2]}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder.open(tmp_path / "data")
    yield opened
    opened.close()


def test_it_holds_what_scripts_were_promised_and_is_private(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "new" / "ready.json"
    before = os.umask(0)
    try:
        Ready(folder, file).write(["http://a", "http://b"], "127.0.0.1:1", "postgresql://x", PIDS)
    finally:
        os.umask(before)
    content: dict[str, Any] = json.loads(file.read_text())
    kept = folder.secrets
    assert content == {
        "base_url": "http://a",
        "gateways": ["http://a", "http://b"],
        "api_key": kept.api_key,
        "admin_key": kept.admin_key,
        "workspace": "default",
        "workspace_id": kept.workspace_id,
        "user": kept.user,
        "kafka": "127.0.0.1:1",
        "postgres": "postgresql://x",
        "pids": PIDS,
    }
    for each in (file, folder.path / "ready.json"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
        assert json.loads(each.read_text()) == content


def test_it_is_replaced_whole(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    ready = Ready(folder, file)
    ready.write(["http://a"], None, "postgresql://x", PIDS)
    with file.open() as reader:
        ready.write(["http://a"], None, "postgresql://x", {"standalone": [3], "postgres": [4]})
        # Who was reading the old one reads it to its end.
        assert json.loads(reader.read())["pids"] == PIDS
    assert json.loads(file.read_text())["pids"] == {"standalone": [3], "postgres": [4]}
    assert json.loads(file.read_text())["kafka"] is None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_it_is_removed_at_the_end_and_what_a_crash_left_at_the_start(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    for left in (file, folder.path / "ready.json"):
        left.write_text("{}")
    ready = Ready(folder, file)
    assert not file.exists() and not (folder.path / "ready.json").exists()
    ready.write(["http://a"], None, "postgresql://x", PIDS)
    ready.remove()
    assert not file.exists() and not (folder.path / "ready.json").exists()
    ready.remove()


def test_a_place_that_cannot_be_written_is_one_line(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"READY=.* cannot be written: [^\n]*$"):
        Ready(folder, tmp_path).write(["http://a"], None, "postgresql://x", PIDS)
    assert not [path for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")]
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="cannot be written"):
        Ready(folder, tmp_path / "file" / "below").write(["http://a"], None, "postgresql://x", PIDS)


def test_the_line_to_paste_is_one_command_with_the_key_in_it(folder: Folder) -> None:
    shown = banner(["http://127.0.0.1:8080", "http://127.0.0.1:9"], folder)
    [line] = re.findall(r"^ *(curl .*)$", shown, re.MULTILINE)
    words = shlex.split(line)
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8080/api/org/chat/message"]
    assert f"Authorization: Bearer {folder.secrets.api_key}" in words
    body = json.loads(words[words.index("-d") + 1])
    assert body["structure_id"] == folder.secrets.workspace_id
    assert body["role_id"] == "assistant" and body["message"]
    assert "http://127.0.0.1:9" in shown and str(folder.logs) in shown
    assert folder.secrets.admin_key not in shown


def test_notices_come_before_the_banner(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    announce(["http://a"], folder, ["x is not served yet"], let_in=True)
    shown = capsys.readouterr().out
    assert shown.startswith("  note: x is not served yet\n")
    assert "revoked" not in shown
    announce(["http://a"], folder, [], let_in=False)
    assert "`parley keys create` makes another" in capsys.readouterr().out

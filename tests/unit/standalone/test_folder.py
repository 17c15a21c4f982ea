"""DATA: who holds it, which version it has, what is secret in it, and what a reset may delete."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from parley_standalone import folder as folders
from parley_standalone.errors import CommandError
from parley_standalone.folder import VERSION, Folder, delete, is_held, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_in_use_is_refused_and_the_line_names_the_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from parley_standalone.folder import Folder\n"
        "held = Folder.open(Path(sys.argv[1])); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_held(tmp_path / "data")
        with pytest.raises(CommandError, match=rf"in use: a Parley runs on it as process {holder.pid}; .*DATA="):
            Folder.open(tmp_path / "data")
        with pytest.raises(CommandError, match=str(holder.pid)):
            delete(tmp_path / "data")
        assert (tmp_path / "data" / "secrets.json").exists()
        holder.kill()
        holder.wait()
        # What a crash leaves behind is no obstacle.
        assert not is_held(tmp_path / "data")
        Folder.open(tmp_path / "data").close()


def test_a_closed_folder_can_be_opened_again_with_the_same_secrets(tmp_path: Path) -> None:
    first = Folder.open(tmp_path)
    first.close()
    assert not is_held(tmp_path)
    second = Folder.open(tmp_path)
    assert second.secrets == first.secrets
    second.close()


def test_two_folders_share_no_secret(tmp_path: Path) -> None:
    one, two = Folder.open(tmp_path / "one"), Folder.open(tmp_path / "two")
    same = vars_of(one) & vars_of(two)
    assert same == {"default", "owner"}
    one.close()
    two.close()


def vars_of(folder: Folder) -> set[str]:
    kept: dict[str, str] = json.loads((folder.path / "secrets.json").read_text())
    assert len(set(kept.values())) == len(kept)
    return set(kept.values())


def test_secrets_are_readable_by_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Folder.open(tmp_path / "data").close()
    finally:
        os.umask(before)
    assert mode(tmp_path / "data" / "secrets.json") == 0o600
    assert mode(tmp_path / "data" / "lock") == 0o600
    # As root the database's user has to pass through; nobody can list it.
    assert mode(tmp_path / "data") == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    place = tmp_path / "there"
    place.mkdir(mode=0o750)
    place.chmod(0o750)
    Folder.open(place).close()
    assert mode(place) == 0o750


def test_what_newer_code_wrote_is_refused(tmp_path: Path) -> None:
    Folder.open(tmp_path).close()
    (tmp_path / "version").write_text(f"{VERSION + 1}\n")
    with pytest.raises(CommandError, match=rf"newer Parley \(version {VERSION + 1}; this one knows {VERSION}\)"):
        Folder.open(tmp_path)
    assert (tmp_path / "version").read_text() == f"{VERSION + 1}\n"
    assert not is_held(tmp_path)


def test_what_older_code_wrote_is_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folder.open(tmp_path).close()
    steps: list[tuple[int, str]] = []

    def step(number: int) -> None:
        steps.append((number, (tmp_path / "version").read_text()))

    monkeypatch.setattr(folders, "VERSION", VERSION + 2)
    monkeypatch.setattr(
        folders, "MIGRATIONS", {VERSION: lambda _: step(VERSION), VERSION + 1: lambda _: step(VERSION + 1)}
    )
    Folder.open(tmp_path).close()
    assert steps == [(VERSION, f"{VERSION}\n"), (VERSION + 1, f"{VERSION + 1}\n")]
    assert (tmp_path / "version").read_text() == f"{VERSION + 2}\n"


@pytest.mark.parametrize("text", ["", "one", "1.0", "0", "-3"])
def test_a_version_that_is_none_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text)
    with pytest.raises(CommandError, match="version") as caught:
        Folder.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_secrets_that_cannot_be_read_are_never_replaced(tmp_path: Path) -> None:
    Folder.open(tmp_path).close()
    (tmp_path / "secrets.json").write_text('{"workspace": "default"}')
    with pytest.raises(CommandError, match="make reset"):
        Folder.open(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == '{"workspace": "default"}'


def test_a_place_that_cannot_be_a_folder_is_one_line_that_names_data(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CommandError, match=r"cannot be used: .*DATA="):
        Folder.open(file)
    with pytest.raises(CommandError, match=r"cannot be used: .*DATA="):
        Folder.open(file / "below")
    assert not is_held(file)
    with pytest.raises(CommandError, match="no folder of Parley's"):
        delete(file)


def test_a_folder_that_holds_somebody_elses_kafka_is_refused(tmp_path: Path) -> None:
    (tmp_path / "effects").mkdir()
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "bin").mkdir()
    with pytest.raises(CommandError, match="holds kafka, which Parley did not make"):
        Folder.open(tmp_path)
    assert not (tmp_path / "version").exists()


def test_delete_takes_what_parley_made_and_the_folder_with_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    Folder.open(data).close()
    for name in ("log", "postgres", "kafka", "cluster-postgres", "effects", "logs", "pids"):
        (data / name).mkdir()
        (data / name / "parley.log").write_text("x")
    assert delete(data) == []
    assert not data.exists()


def test_delete_leaves_what_others_put_there(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    data = tmp_path / "data"
    Folder.open(data).close()
    (data / "notes.txt").write_text("mine")
    (data / "logs").mkdir()
    for name in ("parley.log", "gateway-2.out", "screen.txt", "my.log"):
        (data / "logs" / name).write_text("x")
    (data / "effects").symlink_to(outside)
    assert delete(data) == ["logs", "notes.txt"]
    assert sorted(path.name for path in data.rglob("*")) == ["logs", "my.log", "notes.txt", "screen.txt"]
    assert (outside / "kept").exists()


def test_delete_refuses_a_folder_that_is_not_parleys(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "parley.log").write_text("x")
    with pytest.raises(CommandError, match="no folder of Parley's"):
        delete(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["logs", "parley.log"]


def test_a_private_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_private(file, "before")
    file.chmod(0o644)

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_private(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
    monkeypatch.undo()
    write_private(file, "after")
    assert (file.read_text(), mode(file)) == ("after", 0o600)

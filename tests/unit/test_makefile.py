"""`make` on a machine where something is missing: one clear line, and a status that says so."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
TOOLS = ("sh", "env", "touch", "test", "grep", "awk", "mkdir", "uname")


class Clone:
    """A folder with the Makefile and the files that it looks at, and a PATH with nothing on it but plain tools."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder.parent / "bin"
        self.path.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.path / tool).symlink_to(found)
        folder.mkdir()
        shutil.copy(TOP / "Makefile", folder)
        for file in ("pyproject.toml", "requirements.lock", *self.packages()):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / file, folder / file)

    def packages(self) -> list[str]:
        [names] = re.findall(r"^PACKAGES := (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
        return [f"{name}/pyproject.toml" for name in names.split()]

    def program(self, name: str, script: str) -> Path:
        """A program on the PATH."""
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def install(self) -> None:
        """What `make sync` would have made: an environment of its own, which sees the packages of this one."""
        venv.create(self.folder / ".venv", symlinks=True)
        [packages] = (self.folder / ".venv" / "lib").glob("python*/site-packages")
        lines = "".join(f"import site; site.addsitedir({place!r})\n" for place in site.getsitepackages())
        (packages / "all.pth").write_text(lines)
        for name, module in (("parley", "parley_standalone"), ("ruff", "ruff"), ("pytest", "pytest")):
            program = self.folder / ".venv" / "bin" / name
            program.write_text(f'#!/bin/sh\necho {name} >> ran\nexec .venv/bin/python -m {module} "$@"\n')
            program.chmod(0o755)

    def make(self, *words: str, **env: str) -> tuple[int, list[str]]:
        """The status, and what stands on the screen but for make's own words."""
        make = shutil.which("make")
        assert make is not None
        done = subprocess.run(
            [make, *words],
            cwd=self.folder,
            env={"PATH": str(self.path), "HOME": str(self.folder.parent), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if not re.match(r"g?make(\[\d+\])?: ", line)]
        return done.returncode, lines


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_help_lists_every_target(clone: Clone) -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    for words in (["help"], []):
        status, lines = clone.make(*words)
        assert status == 0
        assert sorted(line.split()[1] for line in lines) == sorted(phony.split())
    assert {"help", "sync", "check", "test", "e2e", "bench", "up", "cluster", "reset"} <= set(phony.split())


@pytest.mark.parametrize("target", ["sync", "up", "cluster", "test"])
def test_without_any_python_one_line_says_so(clone: Clone, target: str) -> None:
    for old in ("python3", "python3.11"):
        clone.program(old, "exit 1")
    status, lines = clone.make(target)
    assert status != 0
    assert lines == ["parley: Python 3.11 or newer is needed and none is on the path (PYTHON= names one)"]


def test_a_python_that_is_too_old_or_not_there_is_named(clone: Clone) -> None:
    old = clone.program("python2.7", "echo oops >&2; exit 1")
    status, lines = clone.make("up", f"PYTHON={old}")
    assert status != 0
    assert lines == [f"parley: {old} is too old: Python 3.11 or newer is needed"]
    status, lines = clone.make("up", "PYTHON=/no/such/python")
    assert status != 0
    assert lines == ["parley: PYTHON=/no/such/python is not there: name a Python 3.11 or newer"]


def test_a_python_without_venv_is_told_what_to_install(clone: Clone) -> None:
    clone.program("python3", f'case "$*" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')
    status, lines = clone.make("up")
    assert status != 0
    assert lines == ["parley: python3 cannot make environments: install its venv module (on Debian: python3-venv)"]


def test_without_a_network_one_line_says_so_and_where_pips_own_words_are(clone: Clone) -> None:
    clone.install()
    (clone.folder / "requirements.lock").write_text(f"not-there==1.0 --hash=sha256:{'0' * 64}\n")
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    status, lines = clone.make("up", f"PYTHON={sys.executable}", **unreachable)
    assert status != 0
    assert lines == [
        "installing (once) ...",
        "parley: the packages could not be installed; is there a network? (what pip said: .venv/pip.log)",
    ]
    assert "not-there" in (clone.folder / ".venv" / "pip.log").read_text()
    assert not (clone.folder / ".venv" / "installed").exists()


@pytest.mark.parametrize("target", ["test", "e2e", "contract", "cluster", "jars"])
def test_without_maven_one_line_says_so_and_nothing_is_skipped(clone: Clone, target: str) -> None:
    clone.install()
    (clone.folder / ".venv" / "installed").touch()
    status, lines = clone.make(target)
    assert status != 0
    [line] = [line for line in lines if line.startswith("parley: ")]
    assert line.startswith("parley: Maven (mvn) is not on the path")
    # No test has run, so none was skipped.
    assert (clone.folder / "ran").read_text() == "parley\n"


def test_handles_are_handed_on_to_the_command(clone: Clone) -> None:
    clone.install()
    (clone.folder / ".venv" / "installed").touch()
    status, lines = clone.make("up", "PORT=none")
    assert (status != 0, lines) == (True, ["parley: PORT='none': a whole number from 0 to 65535 is wanted"])
    status, lines = clone.make("reset", "DATA=elsewhere")
    assert (status, lines) == (0, [f"{clone.folder}/elsewhere is not there: nothing to delete"])

"""`deploy/new-env.sh`: a first .env, complete, random, for its owner's eyes; never a second one over it."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from parley_events.ids import is_uuid
from parley_events.keys import key_workspace

TOP = Path(__file__).parents[3]


def new_env(folder: Path) -> str:
    """Run the script in a copy of what it needs; what it said."""
    (folder / "deploy").mkdir(parents=True, exist_ok=True)
    shutil.copy(TOP / "deploy" / "new-env.sh", folder / "deploy")
    shutil.copy(TOP / ".env.example", folder)
    done = subprocess.run([folder / "deploy" / "new-env.sh"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return done.stdout


def values(folder: Path) -> dict[str, str]:
    lines = [line for line in (folder / ".env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    new_env(tmp_path / "one")
    return values(tmp_path / "one")


def test_every_variable_that_compose_wants_has_a_value(env: dict[str, str]) -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (TOP / "docker-compose.yml").read_text()))
    assert wanted == env.keys()
    assert all(len(value) >= 22 for value in env.values())


def test_the_keys_are_keys_of_the_workspace_and_every_secret_is_another(env: dict[str, str]) -> None:
    assert is_uuid(env["PARLEY_WORKSPACE_ID"])
    for name in ("PARLEY_API_KEY", "PARLEY_ADMIN_KEY"):
        assert key_workspace(env[name]) == env["PARLEY_WORKSPACE_ID"]
    assert len(set(env.values())) == len(env)
    for name, value in env.items():
        if "PASSWORD" in name:
            # Part of an address as it is.
            assert re.fullmatch(r"[0-9a-f]{48}", value), name
    assert re.fullmatch(r"[A-Za-z0-9]{22}", env["KAFKA_CLUSTER_ID"])


def test_no_two_are_alike_and_one_that_is_there_is_left_alone(tmp_path: Path, env: dict[str, str]) -> None:
    new_env(tmp_path / "two")
    assert not set(values(tmp_path / "two").values()) & set(env.values())
    before = (tmp_path / "one" / ".env").read_bytes()
    assert "was left as it is" in new_env(tmp_path / "one")
    assert (tmp_path / "one" / ".env").read_bytes() == before


def test_only_its_owner_can_read_it_and_nothing_of_it_is_said(tmp_path: Path) -> None:
    said = new_env(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert not any(value in said for value in values(tmp_path).values())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example", "deploy"]

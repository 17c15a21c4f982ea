"""What each service is told: where the others are, and no more than it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley_standalone.addresses import service_settings
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.postgres import Postgres
from parley_standalone.settings import Settings


def parts(tmp_path: Path, env: dict[str, str]) -> tuple[Settings, Folder, Postgres]:
    folder = Folder.open(tmp_path / "data")
    folder.close()
    postgres = Postgres(folder.path / "postgres", folder.logs / "log", folder.secrets.postgres_owner, {})
    postgres.port = 5
    return Settings.from_env({"DATA": str(tmp_path / "data"), **env}), folder, postgres


def test_only_history_is_told_how_to_get_into_the_database(tmp_path: Path) -> None:
    settings, folder, postgres = parts(tmp_path, {})
    told = service_settings(settings, folder, postgres, PARLEY_LOG="kafka", PARLEY_KAFKA="127.0.0.1:9")
    assert {"PARLEY_POSTGRES", "PARLEY_POSTGRES_READER", "PARLEY_POSTGRES_PROJECTOR"} <= told.environments[
        "history"
    ].keys()
    for kind in ("gateway", "dispatcher"):
        assert not [name for name in told.environments[kind] if "POSTGRES" in name]
        assert folder.secrets.postgres_owner not in told.environments[kind].values()
    assert told.history.postgres == postgres.dsn()
    assert told.gateway.kafka == told.dispatcher.kafka == told.history.kafka == "127.0.0.1:9"
    assert told.gateway.internal_token == told.history.internal_token == folder.secrets.internal_token
    assert told.gateway.workspace_id == folder.secrets.workspace_id
    assert told.dispatcher.data == told.history.data == folder.path


def test_what_the_user_sets_reaches_the_services_but_never_opens_a_port_to_others(tmp_path: Path) -> None:
    env = {
        "PARLEY_MODEL_ATTEMPTS": "2",
        "PARLEY_DRAIN_S": "1.5",
        "PARLEY_HOST": "0.0.0.0",
        "PARLEY_INTERNAL_TOKEN": "x",
    }
    settings, folder, postgres = parts(tmp_path, env)
    told = service_settings(settings, folder, postgres, PARLEY_LOG="embedded")
    assert told.dispatcher.model_attempts == 2
    assert told.dispatcher.drain_s == told.gateway.drain_s == 1.5
    assert told.gateway.host == told.dispatcher.host == told.history.host == "127.0.0.1"
    assert told.gateway.internal_token == folder.secrets.internal_token


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARLEY_MODEL_ATTEMPTS", "many"),
        ("PARLEY_PARTITIONS", "300"),
        ("PARLEY_PARTITIONS", "0"),
        ("PARLEY_BEAT_S", "-1"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    settings, folder, postgres = parts(tmp_path, {name: value})
    with pytest.raises(CommandError, match=f"^{name}[^\n]*{value}[^\n]*$"):
        service_settings(settings, folder, postgres, PARLEY_LOG="embedded")

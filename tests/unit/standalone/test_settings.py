"""What `parley` can be told, and what is said when that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley_standalone.settings import HANDLES, SHIPPED_AGENTS, Settings, SettingsError


def test_nothing_said_gives_the_documented_defaults() -> None:
    settings = Settings.from_env({})
    assert (settings.port, settings.data, settings.agents) == (8080, Path.cwd() / ".parley", SHIPPED_AGENTS)
    assert (settings.ready, settings.restart, settings.url, settings.key) == (None, None, None, None)
    assert (settings.gateways, settings.dispatchers, settings.histories) == (1, 1, 1)


@pytest.mark.parametrize("form", ["{}", "PARLEY_{}"])
def test_each_handle_has_a_short_and_a_long_name(form: str) -> None:
    given = ("0", "/data", "/agents.yaml", "/ready.json", "2", "3", "4", "1")
    settings = Settings.from_env({form.format(name): value for name, value in zip(HANDLES, given, strict=True)})
    assert (settings.port, settings.data, settings.agents) == (0, Path("/data"), Path("/agents.yaml"))
    assert (settings.ready, settings.restart) == (Path("/ready.json"), True)
    assert (settings.gateways, settings.dispatchers, settings.histories) == (2, 3, 4)


def test_the_short_name_wins_and_an_empty_one_says_nothing() -> None:
    assert Settings.from_env({"PORT": "1", "PARLEY_PORT": "2"}).port == 1
    assert Settings.from_env({"PORT": "", "PARLEY_PORT": "2"}).port == 2
    empty = Settings.from_env(dict.fromkeys((*HANDLES, "PARLEY_URL", "PARLEY_KEY", "PARLEY_LOG_LEVEL"), ""))
    assert (empty.port, empty.ready, empty.restart, empty.url, empty.log_level) == (8080, None, None, None, "INFO")


def test_relative_paths_are_seen_from_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"DATA": "state", "AGENTS": "mine.yaml", "READY": "out/ready.json"})
    assert settings.data == tmp_path / "state"
    assert settings.agents == tmp_path / "mine.yaml"
    assert settings.ready == tmp_path / "out" / "ready.json"


@pytest.mark.parametrize(("said", "meant"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("false", False)])
def test_restart_is_yes_or_no(said: str, meant: bool) -> None:
    assert Settings.from_env({"RESTART": said}).restart is meant


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PORT": "eighty"}, "PORT='eighty': a whole number from 0 to 65535 is wanted"),
        ({"PORT": "65536"}, "PORT='65536': a whole number"),
        ({"PORT": "-1"}, "PORT='-1': a whole number"),
        ({"GATEWAYS": "0"}, "GATEWAYS='0': a whole number from 1 to 32"),
        ({"DISPATCHERS": "2.5"}, "DISPATCHERS='2.5': a whole number"),
        ({"PARLEY_HISTORIES": "33"}, "HISTORIES='33': a whole number from 1 to 32"),
        ({"RESTART": "maybe"}, "RESTART='maybe': 1 or 0 is wanted"),
        ({"PARLEY_LOG_LEVEL": "loud"}, "PARLEY_LOG_LEVEL='LOUD': DEBUG, INFO"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_setting(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_services_get_everything_but_what_is_meant_for_the_command() -> None:
    given = {
        "PORT": "1",
        "PARLEY_DATA": "/x",
        "PARLEY_KEY": "secret",
        "PARLEY_URL": "http://x",
        "PARLEY_RUN_SLOTS": "7",
    }
    settings = Settings.from_env({**given, "HOME": "/home/me"})
    assert settings.for_services(PARLEY_HOST="here") == {
        "PARLEY_RUN_SLOTS": "7",
        "HOME": "/home/me",
        "PARLEY_LOG_LEVEL": "INFO",
        "PARLEY_HOST": "here",
    }


def test_no_secret_is_in_the_settings_text() -> None:
    assert "hush" not in repr(Settings.from_env({"PARLEY_KEY": "hush", "PARLEY_URL": "http://x"}))

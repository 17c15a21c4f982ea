"""`docs/settings.md` and the settings are the same: nothing is missing, made up, or has another default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher.settings import UNPREFIXED
from parley_dispatcher.settings import Settings as DispatcherSettings
from parley_gateway.settings import Settings as GatewaySettings
from parley_history.settings import Settings as HistorySettings
from parley_history.settings import from_env as history_from_env
from parley_standalone.settings import HANDLES
from parley_standalone.settings import Settings as CommandSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
NEEDED = {
    "PARLEY_POSTGRES_PROJECTOR": "postgresql://parley_projector:p@db/parley",
    "PARLEY_POSTGRES_READER": "postgresql://parley_reader:p@db/parley",
    "PARLEY_INTERNAL_TOKEN": "0123456789",
}
SERVICES: dict[str, tuple[type[Any], Any]] = {
    "Gateway": (GatewaySettings, GatewaySettings.from_env),
    "Dispatcher": (DispatcherSettings, DispatcherSettings.from_env),
    "History": (HistorySettings, lambda env: history_from_env({**NEEDED, **env})),
}
OTHER_VALUES = {
    "log": "embedded",
    "log_level": "DEBUG",
    "postgres_projector": "postgresql://parley_projector:q@db/parley",
    "postgres_reader": "postgresql://parley_reader:q@db/parley",
    "anonymous_key_forced": "1",
    "mcp_commands": "1",
    "internal_token": "9876543210",
    "rate_limit": "60/minute",
    "workspace_rate_limit": "60/minute",
}


def rows(section: str) -> dict[str, str]:
    """The settings of a section of the page, each with its default as shown."""
    text = PAGE.read_text()
    [part] = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    row = r"^\| (?:`[A-Z]+` or )?`((?:PARLEY|ANTHROPIC)_[A-Z_]+)` \| (.*?) \| (.+) \|$"
    found = re.findall(row, part, re.MULTILINE)
    assert len(found) == part.count("\n| `"), "a row of another form"
    shown = {name: default.strip("`") for name, default, _ in found}
    assert len(shown) == len(found), "a setting stands twice"
    return shown


def variable(field: dataclasses.Field[Any]) -> str:
    """The environment variable of a field."""
    return field.name.upper() if field.name in UNPREFIXED else f"PARLEY_{field.name.upper()}"


def default_of(field: dataclasses.Field[Any]) -> str:
    """A field's default as the page shows it."""
    value = field.default
    if value is dataclasses.MISSING:
        # Three services share the token; the page shows it once.
        return "none" if field.name == "internal_token" else "needed"
    if value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("service", SERVICES)
def test_the_page_has_every_setting_of_a_service_with_its_default_and_no_other(service: str) -> None:
    wanted = {variable(f): default_of(f) for f in dataclasses.fields(SERVICES[service][0])}
    assert rows("All services") | rows(service) == wanted
    assert not rows("All services").keys() & rows(service).keys()


def other_value(field: dataclasses.Field[Any], default: Any) -> str:
    if field.name in OTHER_VALUES:
        return OTHER_VALUES[field.name]
    return str(default + 1) if isinstance(default, int | float) else "another"


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_the_page_is_an_environment_variable_that_is_read(service: str) -> None:
    kind, from_env = SERVICES[service]
    default = from_env({})
    for field in dataclasses.fields(kind):
        before = getattr(default, field.name)
        after = getattr(from_env({variable(field): other_value(field, before)}), field.name)
        assert after != before, field.name
        assert type(after) is type(before) or before is None, field.name


def test_the_page_has_every_setting_of_the_command_with_its_default_and_no_other() -> None:
    wanted = {f"PARLEY_{f.name.upper()}": default_of(f) for f in dataclasses.fields(CommandSettings) if f.name != "env"}
    wanted["PARLEY_AGENTS"] = "the shipped `agents.yaml"
    assert rows("The `parley` command") == wanted


def test_the_page_names_the_short_form_of_every_handle_and_of_nothing_else() -> None:
    short = re.findall(r"^\| `([A-Z]+)` or `PARLEY_([A-Z]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in short] == list(HANDLES)
    assert all(name == long for name, long in short)


def test_a_wrong_value_of_any_number_is_refused() -> None:
    for kind, from_env in SERVICES.values():
        for field in dataclasses.fields(kind):
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                name = f"PARLEY_{field.name.upper()}"
                with pytest.raises(Exception, match=name):
                    from_env({name: "many"})

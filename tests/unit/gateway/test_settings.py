"""Settings: every field from its variable, and a clear word for what cannot be read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from parley_gateway.settings import Settings

OTHERS: dict[str, tuple[str, Any]] = {
    "log": ("embedded", "embedded"),
    "kafka": ("k:1", "k:1"),
    "data": ("/d", Path("/d")),
    "objects": ("s3://b/p", "s3://b/p"),
    "history_url": ("http://a/ , http://b", ("http://a", "http://b")),
    "internal_token": ("t", "t"),
    "host": ("::1", "::1"),
    "log_file": ("/f", Path("/f")),
    "group": ("g", "g"),
    "log_level": ("DEBUG", "DEBUG"),
    "workspace_id": ("w", "w"),
    "anonymous_key": ("k", "k"),
    "anonymous_key_forced": ("1", True),
}
"""What is no number: its text, and what becomes of it."""


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_field_is_read_from_its_variable(name: str) -> None:
    text, value = OTHERS.get(name, ("7", 7))
    read = Settings.from_env({f"PARLEY_{name.upper()}": text})
    assert getattr(read, name) == value
    assert getattr(Settings.from_env({}), name) == getattr(Settings(), name)


@pytest.mark.parametrize("name", [f.name for f in fields(Settings) if f.name not in OTHERS])
def test_a_number_that_is_none_is_named(name: str) -> None:
    variable = f"PARLEY_{name.upper()}"
    for text in ("x", "-1"):
        with pytest.raises(ValueError, match=variable):
            Settings.from_env({variable: text})
    assert getattr(Settings.from_env({variable: ""}), name) == getattr(Settings(), name)


def test_the_address_of_kafka_is_read_at_once_and_its_password_shown_to_nobody() -> None:
    with pytest.raises(ValueError, match="PARLEY_KAFKA begins with none of") as caught:
        Settings.from_env({"PARLEY_KAFKA": "tls://me:hush@a:1"})
    address = "sasl_plaintext://me:hush@a:1"
    settings = Settings.from_env({"PARLEY_KAFKA": address})
    assert settings.kafka == address
    assert "hush" not in repr(settings) + str(caught.value)


def test_secrets_are_not_in_what_settings_look_like() -> None:
    shown = repr(Settings.from_env({"PARLEY_INTERNAL_TOKEN": "hush-1", "PARLEY_ANONYMOUS_KEY": "hush-2"}))
    assert "hush" not in shown

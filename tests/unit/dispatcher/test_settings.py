"""What can be set, and what is said when it is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from parley_dispatcher.settings import CURRENT_CLAUDE, UNPREFIXED, Settings, secret_of


def test_nothing_needs_to_be_set() -> None:
    assert Settings.from_env({}) == Settings()


def test_the_models_attempts_are_as_documented() -> None:
    settings = Settings.from_env({})
    assert (settings.model_attempts, settings.model_backoff_ms, settings.model_stall_s) == (5, 500, 60.0)


def test_every_field_is_a_variable_of_its_name() -> None:
    values = {
        "int": "7",
        "float": "2.5",
        "str": "word",
        "Path": "/p",
        "Path | None": "/p",
        "tuple[str, ...]": "a,b",
        "bool": "1",
    }
    env = {
        ("" if field.name in UNPREFIXED else "PARLEY_") + field.name.upper(): values[str(field.type)]
        for field in fields(Settings)
    }
    settings, default = Settings.from_env(env), Settings()
    for field in fields(Settings):
        found = getattr(settings, field.name)
        assert found != getattr(default, field.name), field.name
        assert found in (7, 2.5, "word", Path("/p"), ("a", "b"), True)


@pytest.mark.parametrize("value", ["x", "1.5", "-1"])
def test_a_variable_that_cannot_be_read_is_named(value: str) -> None:
    with pytest.raises(ValueError, match="PARLEY_MODEL_ATTEMPTS"):
        Settings.from_env({"PARLEY_MODEL_ATTEMPTS": value})


def test_an_empty_number_is_the_default() -> None:
    assert Settings.from_env({"PARLEY_PORT": ""}).port == Settings().port


def test_the_default_model_is_claude_where_there_is_a_key_and_scripted_where_there_is_none() -> None:
    assert Settings.from_env({}).default_model == "scripted"
    assert Settings.from_env({"ANTHROPIC_API_KEY": "k"}).default_model == CURRENT_CLAUDE
    assert Settings.from_env({"ANTHROPIC_API_KEY": "k", "PARLEY_MODEL": "scripted"}).default_model == "scripted"
    assert Settings.from_env({"PARLEY_MODEL": "claude-opus-5-5"}).default_model == "claude-opus-5-5"


def test_the_key_is_not_in_what_settings_look_like() -> None:
    env = {"ANTHROPIC_API_KEY": "sk-secret", "PARLEY_INTERNAL_TOKEN": "sk-secret"}
    assert "sk-secret" not in repr(Settings.from_env(env))


def test_a_secret_is_looked_up_by_its_name_and_parleys_own_are_not_for_agents() -> None:
    ours = (
        "PARLEY_INTERNAL_TOKEN",
        "ANTHROPIC_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "aws_secret_access_key",
        "OTEL_EXPORTER_OTLP_HEADERS",
    )
    env = {"MINE": "value", "EMPTY": ""} | dict.fromkeys(ours, "ours")
    assert secret_of("env:MINE", env) == "value"
    for reference in ("env:EMPTY", "env:NOT_THERE", *(f"env:{name}" for name in ours), "MINE", ""):
        assert secret_of(reference, env) is None


def test_the_address_of_kafka_is_read_at_once_and_its_password_shown_to_nobody() -> None:
    with pytest.raises(ValueError, match="PARLEY_KAFKA begins with none of") as caught:
        Settings.from_env({"PARLEY_KAFKA": "tls://me:hush@a:1"})
    address = "sasl_plaintext://me:hush@a:1"
    settings = Settings.from_env({"PARLEY_KAFKA": address})
    assert settings.kafka == address
    assert "hush" not in repr(settings) + str(caught.value)

"""What can be set, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley_history.settings import SettingsError, dsn_login, from_env

ENVIRON = {
    "PARLEY_POSTGRES_PROJECTOR": "postgresql://parley_projector:p%40ss@db/parley",
    "PARLEY_POSTGRES_READER": "postgresql:///parley?user=parley_reader&host=/run/pg&password=secret",
    "PARLEY_INTERNAL_TOKEN": "0123456789",
}


def test_three_settings_are_enough() -> None:
    settings = from_env(ENVIRON)
    assert (settings.log, settings.port, settings.partitions, settings.log_file) == ("kafka", 8082, 8, None)


def test_everything_can_be_set() -> None:
    more = {
        "PARLEY_LOG": "embedded",
        "PARLEY_DATA": "/data",
        "PARLEY_PORT": "9",
        "PARLEY_PARTITIONS": "16",
        "PARLEY_LOG_FILE": "/x.log",
        "PARLEY_LOG_LEVEL": "debug",
        "PARLEY_SCHEMA": "another",
        "PARLEY_QUERY_TIMEOUT_S": "2.5",
        "PARLEY_BATCH": "10",
    }
    settings = from_env(ENVIRON | more)
    assert (settings.log, settings.data, settings.port) == ("embedded", Path("/data"), 9)
    assert (settings.partitions, settings.log_file, settings.log_level) == (16, Path("/x.log"), "DEBUG")
    assert (settings.schema, settings.query_timeout_s, settings.batch) == ("another", 2.5, 10)


def test_logins_are_read_off_a_dsn() -> None:
    assert dsn_login(ENVIRON["PARLEY_POSTGRES_PROJECTOR"]) == ("parley_projector", "p@ss")
    assert dsn_login(ENVIRON["PARLEY_POSTGRES_READER"]) == ("parley_reader", "secret")
    assert dsn_login("postgresql://db/parley") == (None, None)


def test_no_secret_is_in_the_settings_text() -> None:
    text = repr(
        from_env(
            {
                **ENVIRON,
                "PARLEY_POSTGRES": "postgresql://owner:hush@db/parley",
                "PARLEY_KAFKA": "sasl_plaintext://history:hush@kafka:9092",
            }
        )
    )
    assert not any(secret in text for secret in ("p%40ss", "secret", "0123456789", "hush"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PARLEY_POSTGRES_READER": ""}, "PARLEY_POSTGRES_READER is not set"),
        ({"PARLEY_INTERNAL_TOKEN": "short"}, "at least 8"),
        ({"PARLEY_POSTGRES_READER": "postgresql://owner@db/parley"}, "must log in as parley_reader"),
        ({"PARLEY_LOG": "files"}, "kafka or embedded"),
        ({"PARLEY_KAFKA": "tls://me:hush@a:1"}, "PARLEY_KAFKA begins with none of"),
        ({"PARLEY_PORT": "x"}, "PARLEY_PORT must be a number"),
        ({"PARLEY_PARTITIONS": "257"}, "from 1 to 256"),
        ({"PARLEY_SCHEMA": 'a"b'}, "plain lower-case identifier"),
        ({"PARLEY_QUERY_TIMEOUT_S": "nan"}, "PARLEY_QUERY_TIMEOUT_S must be a number of seconds"),
        ({"PARLEY_QUERY_TIMEOUT_S": "soon"}, "PARLEY_QUERY_TIMEOUT_S must be a number of seconds"),
        ({"PARLEY_BATCH": "0"}, "PARLEY_BATCH must be a number from 1"),
    ],
)
def test_a_mistake_is_named(change: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        from_env(ENVIRON | change)

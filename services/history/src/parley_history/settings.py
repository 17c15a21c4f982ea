"""History's settings: one frozen value, read from the environment here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from parley_events.errors import BadAddress
from parley_events.log.kafka_address import check_address

PROJECTOR_ROLE = "parley_projector"
READER_ROLE = "parley_reader"


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Secrets are left out of its text."""

    postgres_projector: str = field(repr=False)
    postgres_reader: str = field(repr=False)
    internal_token: str = field(repr=False)
    postgres: str | None = field(default=None, repr=False)
    """The owner's DSN; only migrations need it."""
    log: Literal["kafka", "embedded"] = "kafka"
    kafka: str = field(default="127.0.0.1:9092", repr=False)
    data: Path = Path(".parley")
    objects: str = ""
    partitions: int = 8
    schema: str = "parley"
    host: str = "127.0.0.1"
    port: int = 8082
    log_file: Path | None = None
    log_level: str = "INFO"
    query_timeout_s: float = 5.0
    batch: int = 1000
    """Facts folded in one transaction, at most."""
    loop_limit_s: float = 30.0
    poll_limit_s: float = 60.0

    def __post_init__(self) -> None:
        for name, dsn, role in (
            ("PARLEY_POSTGRES_PROJECTOR", self.postgres_projector, PROJECTOR_ROLE),
            ("PARLEY_POSTGRES_READER", self.postgres_reader, READER_ROLE),
        ):
            if dsn_login(dsn)[0] != role:
                raise SettingsError(f"{name} must log in as {role}, the role that the row policies are written for")
        if len(self.internal_token) < 8:
            raise SettingsError("PARLEY_INTERNAL_TOKEN must have at least 8 characters")
        if not self.schema.isidentifier() or not self.schema.islower():
            raise SettingsError("the schema's name must be a plain lower-case identifier")


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the environment. Raises SettingsError with one line that says what to set."""
    kind = environ.get("PARLEY_LOG", "kafka")
    if kind not in ("kafka", "embedded"):
        raise SettingsError(f"PARLEY_LOG must be kafka or embedded, not {kind!r}")
    try:
        kafka = check_address(environ.get("PARLEY_KAFKA", "127.0.0.1:9092"))
    except BadAddress as error:
        raise SettingsError(str(error)) from None
    log_file = environ.get("PARLEY_LOG_FILE")
    return Settings(
        postgres_projector=_needed(environ, "PARLEY_POSTGRES_PROJECTOR"),
        postgres_reader=_needed(environ, "PARLEY_POSTGRES_READER"),
        internal_token=_needed(environ, "PARLEY_INTERNAL_TOKEN"),
        postgres=environ.get("PARLEY_POSTGRES"),
        log="kafka" if kind == "kafka" else "embedded",
        kafka=kafka,
        data=Path(environ.get("PARLEY_DATA", ".parley")),
        objects=environ.get("PARLEY_OBJECTS", ""),
        partitions=_number(environ, "PARLEY_PARTITIONS", 8, 1, 256),
        schema=environ.get("PARLEY_SCHEMA", "parley"),
        host=environ.get("PARLEY_HOST", "127.0.0.1"),
        port=_number(environ, "PARLEY_PORT", 8082, 0, 65535),
        log_file=Path(log_file) if log_file else None,
        log_level=environ.get("PARLEY_LOG_LEVEL", "INFO").upper(),
        query_timeout_s=_seconds(environ, "PARLEY_QUERY_TIMEOUT_S", 5.0),
        batch=_number(environ, "PARLEY_BATCH", 1000, 1, 100_000),
        loop_limit_s=_seconds(environ, "PARLEY_LOOP_LIMIT_S", 30.0),
        poll_limit_s=_seconds(environ, "PARLEY_POLL_LIMIT_S", 60.0),
    )


def dsn_login(dsn: str) -> tuple[str | None, str | None]:
    """The user and password that a DSN names."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    user = unquote(parts.username) if parts.username else query.get("user", [None])[0]
    password = unquote(parts.password) if parts.password else query.get("password", [None])[0]
    return user, password


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SettingsError(f"{name} must be a number from {low} to {high}, not {text!r}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise SettingsError(f"{name} must be a number of seconds, more than 0 and below 3600, not {text!r}")
    return value

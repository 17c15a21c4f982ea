"""The settings of `python -m parley_events`. The only module of this package that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from parley_events.errors import EventsError
from parley_events.log.kafka_address import check_address


@dataclass(frozen=True, slots=True)
class Settings:
    """Where Kafka is, and how topics are made."""

    kafka: str = field(default="127.0.0.1:9092", repr=False)
    partitions: int = 8
    replication: int = 1

    @classmethod
    def from_env(cls) -> Settings:
        """`PARLEY_KAFKA`, `PARLEY_PARTITIONS`, `PARLEY_REPLICATION`. Raises EventsError."""
        return cls(
            check_address(os.environ.get("PARLEY_KAFKA", "127.0.0.1:9092")),
            _number("PARLEY_PARTITIONS", 8),
            _number("PARLEY_REPLICATION", 1),
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise EventsError(f"{name} must be a whole number, not {text!r}") from None

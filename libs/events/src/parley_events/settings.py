"""The settings of `python -m parley_events`. The only module of this package that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Where Kafka is, and how topics are made."""

    kafka: str = "127.0.0.1:9092"
    partitions: int = 8
    replication: int = 1

    @classmethod
    def from_env(cls) -> Settings:
        """`PARLEY_KAFKA`, `PARLEY_PARTITIONS`, `PARLEY_REPLICATION`."""
        return cls(
            os.environ.get("PARLEY_KAFKA", "127.0.0.1:9092"),
            int(os.environ.get("PARLEY_PARTITIONS", "8")),
            int(os.environ.get("PARLEY_REPLICATION", "1")),
        )

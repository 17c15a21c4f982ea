"""Opens the log that the settings name: the one place that knows which adapters there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parley_events.log.port import Log, Reading


async def open_log(kind: str, kafka: str, data: Path, partitions: int, client_id: str, **options: Any) -> Log:
    """The log `kind` (`kafka` at the address `kafka`, or `embedded` in the folder `data/log`), opened.

    Raises LogUnavailable, TopicMismatch, LogInUse; ValueError for another kind.
    """
    if kind == "kafka":
        from parley_events.log.kafka import KafkaLog

        return await KafkaLog.open(kafka, client_id=client_id, **options)
    if kind == "embedded":
        from parley_events.log.embedded import EmbeddedLog

        return await EmbeddedLog.open(data / "log", partitions=partitions)
    raise ValueError(f"PARLEY_LOG={kind!r}: there are only kafka and embedded")


async def open_reading(kind: str, kafka: str, data: Path, client_id: str) -> Reading:
    """The log `kind`, as `open_log`, for who only reads: the embedded one too beside the process that has it open."""
    if kind == "embedded":
        from parley_events.log.embedded_reader import EmbeddedReader

        return await EmbeddedReader.open(data / "log")
    return await open_log(kind, kafka, data, 0, client_id)

"""Real Kafka brokers for tests: one for the whole session, and more for tests that break theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parley_standalone.parts.kafka import Kafka

NewBroker = Callable[[], Kafka]
"""Starts a broker that the test may `kill`, `stop` and `start` again (same port, same data); ended after the test."""


@contextmanager
def brokers(folder: Path) -> Iterator[NewBroker]:
    """Brokers with their state below `folder`; whatever still runs at the end is killed."""
    made: list[Kafka] = []

    def start() -> Kafka:
        place = folder / f"kafka{len(made)}"
        broker = Kafka(place, place.with_suffix(".log"), os.environ)
        made.append(broker)
        broker.start()
        return broker

    try:
        yield start
    finally:
        for broker in made:
            broker.kill()

"""The real parts, for every test that asks for them: started once per session, or as a test's own to break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from parley_standalone.parts.kafka import Kafka
from tests.support.kafka import NewBroker, brokers
from tests.support.postgres import NewServer, Server, servers

# A busy machine may take any time for an example; what is right does not depend on it.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker for all tests that leave it alone: `.bootstrap` is its address. Topics are named per test."""
    with brokers(tmp_path_factory.mktemp("kafka")) as start:
        yield start()


@pytest.fixture
def new_kafka(tmp_path: Path) -> Iterator[NewBroker]:
    """Starts brokers of the test's own, to kill and start again."""
    with brokers(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it alone: `.dsn()` is the owner's, `fresh_database()` makes a new one."""
    with servers(tmp_path_factory.mktemp("postgres"), safe=False) as start:
        yield start()


@pytest.fixture
def new_postgres(tmp_path: Path) -> Iterator[NewServer]:
    """Starts servers of the test's own, to kill and start again."""
    with servers(tmp_path, safe=True) as start:
        yield start

"""One running system per kind for the tests that only talk to it; tests that break parts start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.system import System, start, stop

MODEL = {"PARLEY_MODEL_BACKOFF_MS": "20", "PARLEY_MODEL_STALL_S": "1"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Real Kafka, real PostgreSQL, two gateways, two dispatchers, two histories, each a process of its own."""
    system = start("cluster", tmp_path_factory.mktemp("cluster"), GATEWAYS="2", DISPATCHERS="2", HISTORIES="2", **MODEL)
    yield system
    assert stop(system) == 0


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Everything in one process, on the embedded log."""
    system = start("up", tmp_path_factory.mktemp("up"), **MODEL)
    yield system
    assert stop(system) == 0


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A cluster for tests that break its parts: what dies is started again."""
    many = {"GATEWAYS": "2", "DISPATCHERS": "2", "HISTORIES": "2"}
    system = start("cluster", tmp_path_factory.mktemp("breakable"), RESTART="1", PARLEY_DRAIN_S="30", **many, **MODEL)
    yield system
    assert stop(system) == 0


@pytest.fixture(params=["cluster", "standalone"])
def system(request: pytest.FixtureRequest) -> System:
    """Each kind in turn."""
    found: System = request.getfixturevalue(request.param)
    return found

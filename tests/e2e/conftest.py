"""The running systems that tests share; each is started when the first test asks for it, and serves all of them.

How a new file uses them: a test that only talks to Parley takes `cluster` or `standalone`, or `system` to run on both
kinds. Others' threads, keys and agents are there too, so it makes what it looks at under names of its own (a thread,
or with the `admin_key` of `ready()` a workspace, a user, a key, an agent), and never counts what all have. A test that
kills or stalls a part takes `breakable`. Only one that needs other settings, a file of agents, or a start or stop to
look at starts a system of its own (`tests.support.system.start`), once per file: a cluster costs five seconds.

`make test` runs those that break parts beside the others (`tests/lanes.py`): whoever takes `breakable` is marked
`breaks` here, a file that breaks a system of its own says `pytestmark = pytest.mark.breaks`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.system import System, start, stop

MODEL = {"PARLEY_MODEL_BACKOFF_MS": "20", "PARLEY_MODEL_STALL_S": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what breaks parts, for the lane that it runs in."""
    for item in items:
        if "breakable" in getattr(item, "fixturenames", ()):
            item.add_marker("breaks")


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

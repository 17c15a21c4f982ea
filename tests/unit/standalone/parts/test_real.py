"""The real parts: they start, keep their port and data over a crash, and take over from what a crash left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from parley_events.log.kafka_topics import apply_topics, check_topics
from parley_standalone.parts.kafka import Kafka
from parley_standalone.parts.postgres import binaries
from parley_standalone.parts.process import end_leftover, is_free
from tests.support.kafka import NewBroker
from tests.support.postgres import NewServer, Server


async def test_a_broker_listens_on_this_machine_alone_and_keeps_topics_over_a_crash(new_kafka: NewBroker) -> None:
    broker = new_kafka()
    connections = psutil.Process(broker.pid).net_connections("tcp")
    listening = {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert await apply_topics(broker.bootstrap, 3)
    before = broker.bootstrap
    broker.kill()
    assert is_free(broker.port)
    broker.start()
    assert broker.bootstrap == before
    assert await check_topics(broker.bootstrap) == 3


async def test_a_server_wants_a_password_and_keeps_rows_over_a_crash(new_postgres: NewServer) -> None:
    server = new_postgres()
    dsn = await server.fresh_database()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn.replace("a-password", "another"))
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept (n integer); INSERT INTO kept VALUES (42)")
    server.kill()
    await connection.close(timeout=5)
    port = server.port
    server.start()
    assert server.port == port
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT n FROM kept") == 42
    await connection.close()


def test_a_pid_file_that_names_another_process_is_no_obstacle(new_postgres: NewServer) -> None:
    server = new_postgres()
    server.stop()
    folder = server._folder
    (folder / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder / 'data'}\n1\n{server.port}\n\n127.0.0.1\n"
    )
    server.start()
    assert server.alive


def test_a_server_left_behind_by_a_crash_is_replaced(new_postgres: NewServer) -> None:
    left = new_postgres()
    again = Server(left._folder)
    again.start()
    try:
        assert not left.alive
        assert (again.alive, again.port) == (True, left.port)
    finally:
        again.stop()


def test_what_is_not_ours_is_never_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        assert not end_leftover(stranger.pid, ["postgres", "/nowhere"])
        assert stranger.poll() is None
        assert stranger.stdin is not None
        stranger.stdin.close()
    assert not end_leftover(2**22 + 1, [])


def test_the_server_dies_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.support.postgres import Server\n"
        "server = Server(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "store"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        if sys.platform == "linux":
            child.wait(10)
        else:
            assert end_leftover(child.pid, ["postgres", str(tmp_path)], signal.SIGINT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_as_root_nothing_outside_the_folder_is_opened(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    place = closed / "place"
    place.mkdir(mode=0o700)
    server = Server(place / "store")
    server.start()
    try:
        assert psutil.Process(server.pid).uids().effective != 0
        for folder in (closed, place):
            stat = folder.stat()
            assert (stat.st_mode & 0o777, stat.st_uid) == (0o700, 0)
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_as_root_the_programs_may_lie_below_a_folder_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone in root's own home. PostgreSQL asks access(2) about its programs, which forgets capabilities."""
    package = binaries().parent.parent
    for folder in (package, *package.parent.glob(f"{package.name}.libs")):
        shutil.copytree(folder, tmp_path / "closed" / folder.name, symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    copied = tmp_path / "closed" / package.name / "pginstall" / "bin"
    monkeypatch.setattr("parley_standalone.parts.postgres.binaries", lambda: copied)
    server = Server(tmp_path / "closed" / "place" / "store")
    server.start()
    try:
        process = psutil.Process(server.pid)
        assert (Path(process.exe()).parent, process.uids().effective != 0) == (copied, True)
        assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()


def test_a_port_that_is_taken_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])


def test_a_broker_that_is_told_another_port_advertises_it(tmp_path: Path) -> None:
    broker = Kafka(tmp_path, tmp_path / "log", os.environ, advertised=1234)
    assert broker.bootstrap == "127.0.0.1:1234"

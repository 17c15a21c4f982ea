"""Child processes: started apart from the terminal, stopped in time, found again after a crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parley_standalone.parts.process import (
    end_leftover,
    free_port,
    is_free,
    reason_in,
    spawn,
    stop,
    tail_of,
    wait_for_port,
    wait_until_free,
)

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def wait_for_word(log: Path, word: str) -> None:
    until = time.monotonic() + 20
    while word not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)


def test_a_child_writes_to_the_end_of_its_log_and_a_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_text("before\n")
    child = spawn([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], log, os.environ)
    assert child.wait(20) == 0
    lines = log.read_text().splitlines()
    assert lines[0] == "before" and sorted(lines[1:]) == ["err", "out"]
    child = spawn([sys.executable, "-c", "print('ready', flush=True); input()"], tmp_path / "b" / "b.log", {})
    child.wait(20)
    quiet = spawn([sys.executable, "-c", STUBBORN], log, {})
    try:
        assert os.getsid(quiet.pid) == quiet.pid != os.getsid(0)
    finally:
        quiet.kill()
        quiet.wait()


def test_what_does_not_end_is_killed_at_the_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn([sys.executable, "-u", "-c", STUBBORN], log, {})
    wait_for_word(log, "ready")
    stop(child, signal.SIGTERM, 0.2)
    assert child.returncode == -signal.SIGKILL
    stop(child, signal.SIGTERM, 0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from parley_standalone.parts.process import spawn\n"
        "child = spawn([sys.executable, '-c', 'import time; time.sleep(60)'], Path(sys.argv[1]), {})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "log"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_leftover_is_ended_only_when_every_mark_is_in_its_command_line() -> None:
    code = "import time; print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "mark-a", "mark-b"], stdout=subprocess.PIPE, text=True) as left:
        # A process that has only just been started shows no command line for a moment.
        assert left.stdout is not None and left.stdout.readline() == "ready\n"
        assert not end_leftover(left.pid, ["mark-a", "mark-c"])
        assert not end_leftover(os.getpid(), [])
        assert left.poll() is None
        assert end_leftover(left.pid, ["mark-a", "mark-b"])
        # psutil has reaped the child, so it is gone whole.
        assert not psutil.pid_exists(left.pid)
        left.wait(20)
    assert not end_leftover(left.pid, [])


def test_a_leftover_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn([sys.executable, "-u", "-c", STUBBORN, "mark"], log, {})
    wait_for_word(log, "ready")
    assert end_leftover(child.pid, ["mark"], limit_s=0.2)
    assert not psutil.pid_exists(child.pid)
    child.wait(20)


def test_free_ports_are_free_and_lie_below_those_of_outgoing_connections() -> None:
    ports = {free_port() for _ in range(20)}
    assert all(20_000 <= port < 32_000 for port in ports)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert not wait_until_free(port, 0.1)
        ours = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            assert wait_for_port(port, ours, 20)
        finally:
            ours.kill()
            ours.communicate()
    assert wait_until_free(port)
    # Nobody is waited for who has ended.
    assert not wait_for_port(port, ours, 60)


def test_the_reason_is_the_last_line_that_is_no_stack_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert (reason_in(log), tail_of(log)) == ("nothing was logged", "")
    log.write_text("first\nERROR it broke\njava.lang.Error: the disk\n\tat a.b\n    at c.d\n\n")
    assert reason_in(log) == "java.lang.Error: the disk"
    log.write_text("x" * 5000)
    assert len(reason_in(log)) == 300
    log.write_bytes(b"\xff\xfe broken\n")
    assert "broken" in reason_in(log)

"""A service's process: itself and no launcher, on its port, found again after a crash of its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from parley_standalone.parts.process import spawn
from parley_standalone.parts.service import Service, end_leftovers


def command_line(pid: int) -> list[str]:
    """A process's command line, once it shows one: for a moment after its start it does not."""
    until = time.monotonic() + 20
    while True:
        with suppress(psutil.ZombieProcess):
            if words := psutil.Process(pid).cmdline():
                return words
        assert time.monotonic() < until
        time.sleep(0.005)


def ended(service: Service) -> None:
    until = time.monotonic() + 30
    while service.alive:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_its_pid_is_the_worker_itself_and_its_last_words_say_why_it_ended(tmp_path: Path) -> None:
    service = Service("gateway", 2, 1, tmp_path, {**os.environ, "PARLEY_DATA": str(tmp_path), "PARLEY_OUTCOME_S": "x"})
    assert (service.alive, service.pid, service.url) == (False, 0, "http://127.0.0.1:1")
    assert "ended without a word" in service.last_words()
    service.start()
    assert command_line(service.pid) == [sys.executable, "-m", "parley_gateway"]
    assert (tmp_path / "pids" / "gateway-2").read_text() == str(service.pid)
    ended(service)
    assert "PARLEY_OUTCOME_S='x' is not a number" in service.last_words()
    service.stop(1)
    assert not (tmp_path / "pids" / "gateway-2").exists()


def test_what_an_earlier_run_left_behind_is_killed_and_nobody_else(tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    pids = tmp_path / "pids"
    pids.mkdir()

    def child(name: str, data: Path, word: str) -> subprocess.Popen[bytes]:
        process = spawn([sys.executable, "-c", sleep, word], tmp_path / "log", {"PARLEY_DATA": str(data)})
        (pids / name).write_text(str(process.pid))
        assert word in command_line(process.pid)
        return process

    left = child("gateway-1", tmp_path, "parley_gateway")
    elsewhere = child("gateway-2", tmp_path / "other", "parley_gateway")
    stranger = child("history-1", tmp_path, "something_else")
    (pids / "dispatcher-1").write_text("not a number")
    (pids / "dispatcher-2").write_text(str(2**22 + 1))
    try:
        end_leftovers(tmp_path)
        assert not psutil.pid_exists(left.pid)
        assert elsewhere.poll() is None
        assert stranger.poll() is None
        assert list(pids.iterdir()) == []
    finally:
        for process in (left, elsewhere, stranger):
            process.kill()
            process.wait(10)

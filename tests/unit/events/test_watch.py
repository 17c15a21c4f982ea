"""A blocked event loop ends its process with the stack that blocks it; a process that stood still goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from parley_events.watch import Beat, LoopWatch

SERVICE = """
import sys, time
from parley_events.serve import serve, set_up_logs

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            told = await receive()
            await send({"type": told["type"] + ".complete"})
            if told["type"] == "lifespan.startup":
                import asyncio
                asyncio.get_running_loop().call_later(0.2, busy_for_ever)
            else:
                return

def busy_for_ever():
    print("begun", flush=True)
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until:
        pass
    print("over", flush=True)

set_up_logs("INFO", None)
sys.exit(serve(app, "127.0.0.1", 0, loop_limit_s=1.5, grace_s=1.0))
"""


def service(busy_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(busy_s)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_busy_loop_ends_the_process_and_the_log_shows_where_it_is() -> None:
    process = service(3600.0)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert time.monotonic() - began < 20
    [line] = [line for line in errors.splitlines() if "has not turned" in line]
    assert '"CRITICAL"' in line and "busy_for_ever" in line


def test_a_process_that_was_stopped_as_a_whole_is_not_taken_for_blocked() -> None:
    process = service(0.0)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    assert process.stdout.readline() == "over\n"
    os.kill(process.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    while time.monotonic() - stopped < 3.0:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
    os.kill(process.pid, signal.SIGCONT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and "has not turned" not in errors


async def test_it_says_nothing_while_the_loop_turns_and_ends_with_its_owner() -> None:
    told: list[str] = []
    watch = LoopWatch(0.6, told.append)
    watch.start()
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.5
    while loop.time() < until:
        await asyncio.sleep(0.05)
    assert told == []
    time.sleep(1.8)
    assert len(told) == 1 and "time.sleep(1.8)" in told[0]
    watch.stop()


async def test_the_time_in_which_the_thread_stood_still_as_well_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    watch = LoopWatch(3.0, told.append)
    watch.start()
    await asyncio.sleep(0.1)
    monkeypatch.setattr("parley_events.watch.elapsed_s", lambda: time.monotonic() + 1000.0)
    time.sleep(1.2)
    assert told == []
    watch.stop()


async def test_a_beat_knows_since_when_its_loop_has_not_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("parley_events.watch.elapsed_s", lambda: now[0])
    beat = Beat()
    beat.start()
    assert beat.age_s == 0.0
    now[0] += 7.5
    assert beat.age_s == 7.0
    beat.stop()

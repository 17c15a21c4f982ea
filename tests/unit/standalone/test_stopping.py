"""One signal asks for a stop, a second one or the limit ends everything at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from parley_standalone.stopping import LIMIT_S, Stop, Stopped

CHILD = """
import asyncio, sys
from parley_standalone import stopping
from parley_standalone.stopping import Stop, Stopped

async def main() -> None:
    stopping.LIMIT_S = float(sys.argv[1])
    stop = Stop(lambda: print("killed", flush=True))
    with stop.listening():
        print("listening", flush=True)
        try:
            await stop.unless(asyncio.sleep(60))
        except Stopped:
            print("asked", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_ends_the_wait(number: signal.Signals) -> None:
    if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
        # The tests themselves run under `nohup`: as at a terminal, then.
        signal.signal(number, signal.SIG_DFL)
    stop = Stop(lambda: None)
    with stop.listening():
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
        with pytest.raises(Stopped):
            await stop.unless(asyncio.Event().wait())


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    async def fail() -> None:
        raise ValueError("of the work")

    stop = Stop(lambda: None)
    assert await stop.unless(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="of the work"):
        await stop.unless(fail())


async def test_work_that_is_cut_short_is_cancelled_and_waited_for() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tidied up")

    stop = Stop(lambda: None)
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, stop.tell)
    with pytest.raises(Stopped):
        await stop.unless(work())
    assert ended == ["tidied up"]


async def test_after_the_block_signals_do_what_they_did_before() -> None:
    stop = Stop(lambda: None)
    with stop.listening():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def run(limit_s: str, signals: int) -> tuple[list[str], int, float]:
    """What a process says that hangs in its stop, its status, and how long it took from the first signal."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, limit_s], stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        began = time.monotonic()
        said = []
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            said.append(process.stdout.readline().strip())
        status = process.wait(30)
        return said + process.stdout.read().split(), status, time.monotonic() - began


def test_a_second_signal_kills_the_parts_and_ends_at_once() -> None:
    said, status, took = run("60", 2)
    assert (said, status) == (["asked", "killed"], 130)
    assert took < 20


def test_a_stop_that_hangs_is_ended_at_the_limit() -> None:
    said, status, took = run("0.3", 1)
    assert (said, status) == (["asked", "killed"], 130)
    assert 0.3 <= took < 20


def test_the_limit_leaves_room_within_the_ten_seconds_that_were_promised() -> None:
    assert 5 <= LIMIT_S < 10

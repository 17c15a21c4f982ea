"""What runs on the leash ends with whoever started it, also when that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from parley_dispatcher.tools import leash
from tests.unit.dispatcher.world import eventually

LEASH = str(Path(leash.__file__))
PARENT = f"""\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", {LEASH!r}, "sleep", "100"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
async def test_it_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        await eventually(lambda: psutil.Process(child).name() == "sleep")
        parent.kill()
        parent.wait()
    await eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_program_that_is_not_there_is_said_to_be() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", LEASH, "/no/such"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "/no/such cannot be started: No such file or directory\n"

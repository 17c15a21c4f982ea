"""`make test`: everything that is checked, in lanes side by side, because most of a test's time is waiting.

A lane is a list of commands, one after the other until one fails. Each lane has an environment of its own making (a
broker, a database, systems), so lanes never meet. A lane that went well is printed whole as soon as it is over; those
that failed are printed whole at the end, so that the last thing on the screen is what failed and why.

Every test is in exactly one lane: folders divide them, and the mark `breaks` divides `tests/e2e` (its `conftest.py`).
All of `tests/faults` has it.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

Command = Sequence[str]

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
LANES: Mapping[str, Sequence[Command]] = {
    "parts": (
        (sys.executable, "-m", "mypy"),
        (*_PYTEST, "tests/unit", "tests/contract"),
    ),
    "whole": ((*_PYTEST, "-m", "not breaks", "tests/e2e"),),
    "broken": ((*_PYTEST, "-m", "breaks", "tests/e2e", "tests/faults"),),
}
_END_S = 60.0
"""A lane stops its systems one after the other."""
_LINE_BYTES = 1 << 24
_PROGRESS = re.compile(r"\[ *(\d+)%\]$")


async def run(lane: str, commands: Sequence[Command], say: Callable[[str], None]) -> tuple[int, list[str]]:
    """The status of the first command that failed, or 0, and all lines that were printed. What shows how far the tests
    are is said at once, every ten percent."""
    lines: list[str] = []
    for command in commands:
        tens = 0
        try:
            # In a session of its own: a Ctrl-C at the terminal reaches it once, through `_end`.
            process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, stderr=STDOUT, limit=_LINE_BYTES, start_new_session=True
            )
        except OSError as error:
            return 127, [*lines, f"{command[0]} does not start: {error}"]
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                lines.append(line.decode(errors="replace").rstrip("\n"))
                if (found := _PROGRESS.search(lines[-1])) and int(found[1]) // 10 > tens:
                    tens = int(found[1]) // 10
                    say(f"{lane}: {found[1]} %")
            status = await process.wait()
        except BaseException:
            await _end(process)
            raise
        if status != 0:
            return status, lines
    return 0, lines


async def _end(process: Process) -> None:
    """Interrupt it, so that its tests end what they have started; after a while, kill it."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            # Its output goes on being read: what is full would hold it up.
            await asyncio.wait_for(process.communicate(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_all(lanes: Mapping[str, Sequence[Command]], say: Callable[[str], None]) -> int:
    """Run them side by side; 0 when all went well."""
    failed: list[tuple[str, str, list[str]]] = []

    async def follow(lane: str, commands: Sequence[Command]) -> None:
        began = time.monotonic()
        status, lines = await run(lane, commands, say)
        took = f"after {time.monotonic() - began:.0f} s"
        if status == 0:
            say("\n".join((f"==== {lane}: passed {took}", *lines)))
        else:
            said = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
            say("\n".join((f"==== {lane}: FAILED {took}; all that it said comes at the end", *said)))
            failed.append((lane, took, lines))

    # A group, which waits for all of them also when they are told to stop: each ends what it has started.
    async with asyncio.TaskGroup() as group:
        for lane, commands in lanes.items():
            group.create_task(follow(lane, commands))
    for lane, took, lines in failed:
        say("\n".join((f"==== {lane}: FAILED {took}", *lines)))
    say(f"==== failed: {', '.join(lane for lane, _, _ in failed)}" if failed else "==== everything passed")
    return 1 if failed else 0


async def _until_told(lanes: Mapping[str, Sequence[Command]]) -> int:
    """As Ctrl-C does by itself, SIGTERM ends the lanes before it ends this process."""
    working = asyncio.current_task()
    assert working is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    return await run_all(lanes, lambda text: print(text, flush=True))


def main(lanes: Mapping[str, Sequence[Command]] = LANES) -> int:
    """The exit status."""
    try:
        return asyncio.run(_until_told(lanes))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("==== stopped", flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())

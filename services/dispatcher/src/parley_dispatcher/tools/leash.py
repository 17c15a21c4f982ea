"""Starts a program that the kernel ends together with its parent: `python leash.py <program> <arguments>`.

The servers that the dispatcher starts run on this leash, so that one that was killed leaves nothing behind. It runs as
a file, not as a module, and needs nothing beyond the standard library: it is gone as soon as the program has begun.
Elsewhere than on Linux it only starts the program, which sees its input end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Become the program."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it died before the kernel knew
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is what this is for
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m tests.faults.process <service>`: a service as in production, but that it can be broken.

The same `main` of the service runs, with the same settings; before it, the boundaries of `boundaries` are put in (the
harness listens at the socket FAULTS_SOCKET), and the guards that FAULTS_GUARDS_OFF names are taken out (`unguarded`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from tests.faults.boundaries import WRAP, Boundaries
from tests.faults.unguarded import GUARDS, same_tool_ids

_PR_SET_PDEATHSIG = 1


def main(kind: str) -> int:
    """The service's own exit status."""
    if sys.platform == "linux":
        # A process that is stopped would not hear anything milder when the harness dies.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    at = Boundaries(os.environ["FAULTS_SOCKET"], os.environ["FAULTS_NAME"])
    for guard in filter(None, os.environ.get("FAULTS_GUARDS_OFF", "").split(",")):
        GUARDS[guard].take_out(kind)
    WRAP[kind](at)
    if kind == "dispatcher":
        same_tool_ids()
        from parley_dispatcher.__main__ import main as dispatcher

        return dispatcher()
    if kind == "gateway":
        from parley_gateway.__main__ import main as gateway

        return gateway()
    from parley_history.__main__ import main as history

    return history([])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

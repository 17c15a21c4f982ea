"""How often a process looks for cycles of garbage.

By default Python looks whenever 700 more objects have come than gone. Records, rows and frames are no cycles: reference
counts take them away. What is looked through, again and again, is what is being worked on: a seventh of the live fold,
a quarter of a rebuild. Cycles are made by exceptions and by tasks, few of them, so they may wait.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = (20_000, 20, 50)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look seldom for as long as the block lasts, and never again at what is there by now: modules, mostly."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)

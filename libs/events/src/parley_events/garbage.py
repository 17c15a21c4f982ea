"""How often a process looks for cycles of garbage.

By default Python looks whenever 700 more objects have come than gone. Records, rows and frames are no cycles: reference
counts take them away. What is looked through, again and again, is what is being worked on: a seventh of the live fold,
a quarter of a rebuild. Cycles are made by exceptions and by tasks, few of them, so they may wait.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 50_000
"""More than what a service has in hand at once, and little memory."""


@contextmanager
def seldom_collected(objects: int = MANY) -> Iterator[None]:
    """For as long as the block lasts look only when so many more objects have come than gone, and never again at what
    is there by now: modules, mostly."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(objects, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)

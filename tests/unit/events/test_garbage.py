"""Cycles of garbage are looked for seldom, for as long as it is asked for, and they are found."""

from __future__ import annotations

import gc
import weakref

from parley_events.garbage import seldom_collected


class Ring:
    """Refers to itself, so that only a search finds it."""

    def __init__(self) -> None:
        self.self = self


def test_seldom_is_not_never_and_ends_with_the_block() -> None:
    before = gc.get_threshold()
    with seldom_collected():
        assert gc.get_threshold()[0] > before[0]
        gone = weakref.ref(Ring())
        kept: list[list[int]] = []
        while gone() is not None and len(kept) < 100_000:
            kept.append([])
        assert gone() is None and len(kept) > before[0]
    assert gc.get_threshold() == before

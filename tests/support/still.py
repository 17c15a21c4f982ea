"""An event loop whose clock stands still until it is told to go on, and which runs one turn at a time: what happens in
which order is the test's to say, and nothing waits."""

from __future__ import annotations

import asyncio
import selectors

MOST_TURNS = 100_000


class _Nothing(selectors.SelectSelector):
    """Nothing ever comes from outside."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class StillLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Nothing())

    def time(self) -> float:
        """Seconds since the loop was made, as far as they were let pass."""
        return self._now

    def turn(self, times: int = 1) -> None:
        """Run what is ready, so many times."""
        for _ in range(times):
            self.stop()
            self.run_forever()

    def settle(self) -> None:
        """Run until nothing happens any more without time passing."""
        for _ in range(MOST_TURNS):
            if not self._ready:  # type: ignore[attr-defined]
                return
            self.turn()
        raise AssertionError("something runs for ever")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and each timer go off at its own time."""
        until = self._now + seconds
        self.settle()
        while self._scheduled and self._scheduled[0].when() <= until:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
            self.turn()
            self.settle()
        self._now = until

"""The states of a partition's streams that are held in memory: loaded, counted, and let go of.

State = what history answers + the window beyond it (DESIGN §3). Above it: the partition's `owner`, which decides on
them and appends to them. Two states of one stream would number its facts twice: here is the one place where one begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from parley_dispatcher.errors import Unreadable
from parley_dispatcher.history import History
from parley_dispatcher.state import State, evolve, initial
from parley_dispatcher.window import Window
from parley_events.codec import decode_fact
from parley_events.contents import Contents
from parley_events.errors import Undecodable

_log = logging.getLogger(__name__)

_MOST_HOLES = 100
Answer = TypeVar("Answer")


class Patiently(Protocol):
    """Asks until there is an answer (see `Owner.patiently`)."""

    async def __call__(self, ask: Callable[[], Awaitable[Answer]], *, missing: bool = False) -> Answer: ...


class States:
    """`held` are the states, the one used longest ago first; `size` is about what they hold, in bytes; `read` says up
    to which seq each stream was read back. `busy`: whether a stream may not be let go of now."""

    def __init__(
        self,
        window: Window,
        history: History,
        contents: Contents,
        cache_bytes: int,
        patiently: Patiently,
        busy: Callable[[State], bool],
    ) -> None:
        self.held: OrderedDict[str, State] = OrderedDict()
        self.sizes: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.size = 0
        self._window, self._history, self._contents = window, history, contents
        self._cache_bytes, self._patiently, self._busy = cache_bytes, patiently, busy

    def hold(self, state: State) -> State:
        """Hold a state that is whole: all of it was read back."""
        self.held[state.stream] = state
        self.read[state.stream] = state.seq
        self.account(state)
        return state

    def account(self, state: State) -> None:
        """Count what a state holds by now; others go where it is too much."""
        before = self.sizes.get(state.stream, 0)
        self.sizes[state.stream] = state.size
        self.size += state.size - before
        if self.size > self._cache_bytes:
            self._evict(state)

    def saw(self, stream: str, seq: int) -> None:
        """A fact of the stream was read back; what could not go before that may go now."""
        if stream in self.read:
            self.read[stream] = max(self.read[stream], seq)
            if self.size > self._cache_bytes:
                self._evict(next(reversed(self.held.values())))

    @property
    def unread(self) -> bool:
        """Whether something was appended and not read back yet."""
        return any(self.read.get(stream, 0) < state.seq for stream, state in self.held.items())

    def let_go(self, stream: str) -> None:
        """Forget a state: whoever needs it loads it again."""
        del self.held[stream]
        self.size -= self.sizes.pop(stream, 0)
        self.read.pop(stream, None)

    def _evict(self, used: State) -> None:
        """Let go of the streams used longest ago: those with nothing running, waiting, or not read back yet. Never of
        the one that is being used."""
        for stream in list(self.held):
            if self.size <= self._cache_bytes * 0.9:
                return
            state = self.held[stream]
            if state is used or self._busy(state) or self.read.get(stream, 0) < state.seq:
                continue
            self.let_go(stream)

    async def load(self, stream: str) -> State:
        """The stream's state: what history answers, and the window beyond it. Raises NotOwner once the owner is closed,
        and Unreadable where that makes no state."""
        holes = 0
        while True:
            held = self.held.get(stream)
            if held is not None:
                return held
            try:
                stored = await self._patiently(lambda: self._history.facts(stream, 0))
            except Undecodable as error:
                raise Unreadable(f"a stored fact of {stream} cannot be read: {error}") from error
            held = self.held.get(stream)
            if held is not None:
                return held
            if stored.next_offset < self._window.start:
                # The window was cut between the answer and now: what is missing may have been the newest.
                _log.info("loading %s again: the answer is older than the window", stream)
                await asyncio.sleep(0.05)
                continue
            state = initial(stream)
            try:
                for fact in stored.facts:
                    evolve(state, fact)
                while beyond := self._window.since(stream, state.seq):
                    # Contents are fetched first: meanwhile the window may grow, and be cut.
                    whole = [
                        await self._patiently(partial(self._contents.whole, record), missing=True) for record in beyond
                    ]
                    for record in whole:
                        evolve(state, decode_fact(record))
            except Undecodable as error:
                raise Unreadable(f"a fact of {stream} cannot be read: {error}") from error
            except (LookupError, AttributeError, TypeError) as error:
                raise Unreadable(f"the facts of {stream} make no sense ({type(error).__name__})") from error
            except ValueError as hole:
                _log.info("loading again: %s", hole)
                holes += 1
                if holes > _MOST_HOLES:
                    raise Unreadable(f"{stream} cannot be put together: {hole}") from hole
                await asyncio.sleep(0.05)
                continue
            held = self.held.get(stream)
            if held is not None:
                return held
            if stored.next_offset < self._window.start:
                continue
            return self.hold(state)

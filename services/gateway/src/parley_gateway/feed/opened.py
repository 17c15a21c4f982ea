"""A thread of which something is open, as a feed of many threads has it: what is said, and what must be known for that.

A run is open from its message to its end, or until it is parked. Whoever meets a run in the middle (a feed that was
resumed, a run that was parked) needs what came before: `lacks` says so, and `recall` takes it. When nothing is open
nothing is kept. Above it: `many`. Below: `follow`, which holds the texts together; it is pure as that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from parley_events.codec import Fact
from parley_events.facts import (
    RUN_ENDS,
    ChildStarted,
    MessagePosted,
    ModelCalled,
    ModelFailed,
    ModelReturned,
    RunWaiting,
    ToolSettled,
)
from parley_events.pieces import Piece
from parley_gateway.feed.cursor import Cursor
from parley_gateway.feed.follow import Follow, Shown, ShownFact, run_of
from parley_gateway.feed.frames import Show


class Opened:
    """One thread, after its fact `seq`. `show` words it; with `pieces` its texts are shown as they grow, else facts
    alone. `untap` is whoever has its pieces come."""

    def __init__(self, seq: int, show: Show, *, pieces: bool) -> None:
        self.seq, self.show = seq, show
        self.untap: Callable[[], None] | None = None
        self._follow = Follow(None, Cursor(seq)) if pieces else None
        self._runs: set[str] = set()
        self._speaking: set[str] = set()

    @property
    def open(self) -> bool:
        return bool(self._runs)

    @property
    def speaking(self) -> bool:
        """Whether a model is called: there may be pieces."""
        return bool(self._speaking)

    @property
    def place(self) -> object:
        """What was shown of it, to the character."""
        return self.seq if self._follow is None else self._follow.place

    def lacks(self, fact: Fact) -> bool:
        """Whether what came before the fact must be known first."""
        run_id = run_of(fact)
        begins = isinstance(fact.body, MessagePosted) or fact.seq == 1
        return not (run_id is None or run_id in self._runs or begins or isinstance(fact.body, ToolSettled))

    def recall(self, facts: Iterable[Fact]) -> None:
        """What came before, as far as it is of runs that are not known here."""
        known = frozenset(self._runs)
        for fact in facts:
            if run_of(fact) in known:
                continue
            if self._follow is not None:
                self._follow.recall(fact)
            self.show(ShownFact(fact, "", again=True))
            self._note(fact)

    def fact(self, fact: Fact) -> Iterable[Shown]:
        """What the thread's next fact lets us show: with pieces, before it the text that it closes."""
        self._note(fact)
        self.seq = fact.seq or self.seq
        return (ShownFact(fact, ""),) if self._follow is None else self._follow.fact(fact)

    def piece(self, piece: Piece) -> Iterable[Shown]:
        """What a piece lets us show now."""
        return () if self._follow is None else self._follow.piece(piece)

    def leave(self) -> None:
        """Nothing more of it is needed."""
        if self.untap is not None:
            self.untap()
            self.untap = None

    def _note(self, fact: Fact) -> None:
        body, run_id = fact.body, run_of(fact)
        if isinstance(body, ChildStarted):
            self._runs.add(body.run_id)
        if run_id is None:
            return
        if isinstance(body, ToolSettled):
            return  # it comes after the end, perhaps
        if fact.type in RUN_ENDS or isinstance(body, RunWaiting):
            self._runs.discard(run_id)
            self._speaking.discard(run_id)
        else:
            self._runs.add(run_id)
        if isinstance(body, ModelCalled):
            self._speaking.add(run_id)
        elif isinstance(body, ModelReturned | ModelFailed):
            self._speaking.discard(run_id)

"""The pieces of unfinished calls, for those who join in the middle: `hub` keeps them here until a call is over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from parley_events.codec import FactHead
from parley_events.facts import RUN_ENDS, ModelCalled, ModelReturned
from parley_events.pieces import Piece

_CALL_LIMIT = 4 * 1024 * 1024
_MOST = 50_000

Place = tuple[str, int]
"""A call: its thread, and the seq of its `model.called`."""


@dataclass(slots=True)
class _Call:
    pieces: list[Piece] = field(default_factory=list)
    bytes: int = 0
    full: bool = False


class Kept:
    """Not more than `limit_bytes`, by what `hub` says a piece costs: the calls that began first are let go of."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._calls: OrderedDict[Place, _Call] = OrderedDict()
        self._of_thread: dict[str, list[int]] = {}
        self._of_run: OrderedDict[str, list[Place]] = OrderedDict()
        self.over: OrderedDict[Place, None] = OrderedDict()
        """The calls that ended last: a piece that is still on its way to them is of no use."""
        self.bytes = 0

    def of(self, thread_id: str) -> list[Piece]:
        """The pieces of a thread's unfinished calls, in the order in which they came."""
        pieces: list[Piece] = []
        for call in self._of_thread.get(thread_id, ()):
            pieces += self._calls[thread_id, call].pieces
        return pieces

    def add(self, place: Place, piece: Piece, cost: int) -> None:
        """Keep a piece of a call that is not over."""
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = _Call()
            self._of_thread.setdefault(place[0], []).append(place[1])
        if call.full:
            return
        if call.bytes + cost > _CALL_LIMIT:
            # What comes after a hole is of no use to a late joiner: it waits for the fact from here on.
            call.full = True
            return
        call.pieces.append(piece)
        call.bytes += cost
        self.bytes += cost
        while self.bytes > self._limit_bytes and self._calls:
            self._drop(next(iter(self._calls)))

    def note(self, head: FactHead, run_id: str) -> None:
        """Remember which calls a run has open, and let go of their pieces when their turn is on record.

        A failed attempt's pieces stay until then: a contract without a word for a new attempt compares with them.
        """
        if head.type == ModelCalled.type and head.seq is not None:
            self._of_run.setdefault(run_id, []).append((head.stream, head.seq))
            if len(self._of_run) > _MOST:
                self._of_run.popitem(last=False)
        elif head.type == ModelReturned.type or head.type in RUN_ENDS:
            places = self._of_run.pop(run_id, [])
            if head.call is not None:
                places.append((head.stream, head.call))
            for place in places:
                self._drop(place)
                self.over[place] = None
            while len(self.over) > _MOST:
                self.over.popitem(last=False)

    def sizes(self) -> Mapping[str, int]:
        """How much there is, for health pages and tests."""
        return {"calls": len(self._calls), "bytes": self.bytes, "closed": len(self.over)}

    def _drop(self, place: Place) -> None:
        call = self._calls.pop(place, None)
        if call is None:
            return
        self.bytes -= call.bytes
        calls = self._of_thread[place[0]]
        calls.remove(place[1])
        if not calls:
            del self._of_thread[place[0]]

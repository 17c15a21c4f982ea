"""Following one thread, or one run of it: a pure state machine from facts and pieces to what is shown (DESIGN §5).

Facts come in the order of their seq, pieces in any order, late, twice or never. What comes out is the same texts and
facts whatever became of the pieces, and whoever starts from a cursor gets exactly the rest. `join` drives it.

Per block: a piece is shown only after its call's fact, and only if one writer wrote both (who was superseded may have
begun another call at that very seq, and its pieces may be read before the claim that fences it); overlap with what was
sent is cut; a piece beyond a gap is held; a missing beginning means silence until the fact, for the later blocks of the
turn, too. The fact that closes a block first sends the text still missing, then itself; late pieces are dropped.

An attempt that comes to nothing (`model.failed`, or a newer `model.called` of the same run) closes its blocks without
text. Dialects differ in what follows. With a word for it (`restarts=True`) followers drop the block, and the new
attempt is sent from its beginning. Without one, nothing is sent if the new text begins with what was sent, otherwise a
blank line and the new text; until that is decided the cursor still names the old block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.facts import RUN_ENDS, ChildStarted, ModelCalled, ModelFailed, ModelReturned, RunCancelled
from parley_events.pieces import Kind, Piece
from parley_gateway.feed.cursor import Cursor, tail

HELD_CHARS = 1_000_000
"""How much text may be held beyond a gap, or for a call whose fact is not here yet; what is above it is dropped."""


class ShownText(NamedTuple):
    """Text to show. `call` is the seq of its `model.called`; `cursor` is the resume point after it."""

    run_id: str
    call: int
    block: int
    kind: Kind
    text: str
    cursor: str


class ShownFact(NamedTuple):
    """A fact to show. `tail` is what its cursors have after the seq; the first `skip` of its frames were sent before.
    `again`: all that has an id was sent before; only frames without one are to be repeated."""

    fact: Fact
    tail: str
    skip: int = 0
    again: bool = False


Shown = ShownText | ShownFact


class HoleError(Exception):
    """Facts are missing before the one that was given: read those after `after` from history first."""

    def __init__(self, after: int) -> None:
        super().__init__(f"facts after {after} are missing")
        self.after = after


@dataclass(slots=True)
class _Block:
    """A text or thought of a call. `sent` characters of it were shown. `known` is its text from the beginning as far
    as pieces told it (only where a new attempt may be compared with it)."""

    call: int
    kind: Kind | None
    sent: int = 0
    held: dict[int, str] = field(default_factory=dict)
    held_chars: int = 0
    known: list[str] = field(default_factory=list)
    known_chars: int = 0
    beyond: dict[int, str] = field(default_factory=dict)
    beyond_chars: int = 0
    prior: _Block | None = None

    def learn(self, at: int, text: str) -> None:
        """Take in what a piece says about the text from its beginning; beyond a gap it is set aside until then."""
        if at > self.known_chars:
            if at not in self.beyond and self.beyond_chars + len(text) <= HELD_CHARS:
                self.beyond[at] = text
                self.beyond_chars += len(text)
            return
        if self.known_chars < at + len(text):
            self.known.append(text[self.known_chars - at :])
            self.known_chars = at + len(text)
            for place in sorted(place for place in self.beyond if place <= self.known_chars):
                held = self.beyond.pop(place)
                self.beyond_chars -= len(held)
                self.learn(place, held)

    def said(self) -> str | None:
        """The text that was sent of it; None when it is not known."""
        return "".join(self.known)[: self.sent] if self.known_chars >= self.sent else None


@dataclass(slots=True)
class _Call:
    seq: int
    run_id: str
    epoch: int
    blocks: dict[int, _Block] = field(default_factory=dict)


class Follow:
    """One follower. `run_id` None: the whole thread; `inside`: with the runs inside the run, too. Memory is bounded by
    the texts of its open calls."""

    def __init__(self, run_id: str | None, cursor: Cursor, *, restarts: bool = True, inside: bool = False) -> None:
        self._run_id, self._restarts, self._inside = run_id, restarts, inside
        self._runs = {run_id}
        self.seq = cursor.done
        self._skip = cursor.frames
        self._named = dict(cursor.blocks)
        self._calls: dict[int, _Call] = {}
        self._stale: dict[int, _Call] = {}
        self._carried: dict[str, dict[int, _Block]] = {}
        self._early: dict[int, list[Piece]] = {}
        self._early_chars = 0
        self._partly: dict[tuple[int, int], int] = dict(cursor.blocks)
        self.ended = False
        """Whether the run's end was shown (never for a whole thread)."""

    @property
    def about(self) -> tuple[str | None, bool, bool]:
        """What is followed, and how."""
        return self._run_id, self._restarts, self._inside

    @property
    def place(self) -> tuple[int, int, dict[tuple[int, int], int]]:
        """What was shown, to the character: two followers that are about the same and at one place show the same from
        there on."""
        return self.seq, self._skip, self._partly

    # ---- what was before the cursor

    def recall(self, fact: Fact) -> None:
        """A fact at or below the cursor: nothing is shown of it, but it may have opened a call that is open still."""
        body = fact.body
        if not self.shows(fact):
            return
        if isinstance(body, ModelCalled):
            self._open(fact)
        elif isinstance(body, ModelFailed):
            self._abandon(body.call)
        elif isinstance(body, ModelReturned):
            self._close(body.call, body.run_id)
        elif fact.type in RUN_ENDS:
            self._close_run(str(fact.run_id))
            self.ended = self.ends(fact)

    # ---- pieces

    def piece(self, piece: Piece) -> Iterable[Shown]:
        """What a piece lets us show now."""
        call = self._calls.get(piece.call)
        if call is None or self._skip:
            if piece.call > self.seq or self._skip:
                if self._early_chars < HELD_CHARS:
                    self._early.setdefault(piece.call, []).append(piece)
                    self._early_chars += len(piece.text) + 50
            elif piece.call in self._stale:
                abandoned = self._stale[piece.call]
                stale = abandoned.blocks.get(piece.block)
                if stale is not None and piece.epoch in (abandoned.epoch, -1):
                    stale.kind = stale.kind or piece.kind
                    stale.learn(piece.at, piece.text)
            return ()
        if piece.epoch != call.epoch and piece.epoch != -1:
            return ()
        block = call.blocks.get(piece.block)
        if block is None:
            block = self._block(call, piece.block)
        if block.kind is None:
            block.kind = piece.kind
        if not self._restarts:
            block.learn(piece.at, piece.text)
        if piece.before and not block.sent and self._waits(call, piece):
            self._hold(block, piece)
            return ()
        if block.prior is not None:
            self._hold(block, piece)
            return self._compare(call, piece.block, block)
        at, text = piece.at, piece.text
        if at > block.sent:
            self._hold(block, piece)
            return ()
        text = text[block.sent - at :]
        if not text:
            return ()
        if block.held:
            text += self._release(block, block.sent + len(text))
        return (self._text(call, piece.block, block, text),)

    def _waits(self, call: _Call, piece: Piece) -> bool:
        """Whether text of an earlier block of the turn is missing: what is shown must read in the turn's order."""
        earlier = sum(block.sent for index, block in call.blocks.items() if index < piece.block)
        return earlier < piece.before

    def _hold(self, block: _Block, piece: Piece) -> None:
        if block.held_chars + len(piece.text) > HELD_CHARS or len(block.held) >= 10_000:
            return
        longest = block.held.get(piece.at)
        if longest is None or len(longest) < len(piece.text):
            block.held[piece.at] = piece.text
            block.held_chars += len(piece.text) - len(longest or "")

    def _release(self, block: _Block, end: int) -> str:
        """The held text that goes on at `end` without a gap."""
        parts: list[str] = []
        for at in sorted(block.held):
            if at > end:
                break
            text = block.held.pop(at)
            block.held_chars -= len(text)
            if not self._restarts:
                block.learn(at, text)
            if at + len(text) > end:
                parts.append(text[end - at :])
                end = at + len(text)
        return "".join(parts)

    def _text(self, call: _Call, index: int, block: _Block, text: str, shown: str | None = None) -> ShownText:
        block.sent += len(text)
        self._partly[call.seq, index] = block.sent
        return ShownText(
            call.run_id, call.seq, index, block.kind or "text", text if shown is None else shown, self._cursor()
        )

    def _cursor(self) -> str:
        if len(self._partly) == 1:
            ((call, block), chars), *_ = self._partly.items()
            return f"{self.seq}/{call}.{block}:{chars}"
        return str(self.seq) + tail(self._partly)

    def _compare(self, call: _Call, index: int, block: _Block) -> Iterable[Shown]:
        """Compare a new attempt's text, as far as it is here, with what was sent of the one before."""
        self._advance_known(block)
        if block.known_chars == 0:
            return ()
        return self._decide(call, index, block, "".join(block.known), whole=False)

    def _advance_known(self, block: _Block) -> None:
        for at in sorted(block.held):
            if at > block.known_chars:
                break
            block.learn(at, block.held[at])

    def _decide(self, call: _Call, index: int, block: _Block, text: str, *, whole: bool) -> Iterable[Shown]:
        prior = block.prior
        assert prior is not None
        said = prior.said() if prior.kind in (None, block.kind) else ""
        if said is not None and len(text) < len(said) and said.startswith(text) and not whole:
            return ()
        self._partly.pop((prior.call, index), None)
        block.prior = None
        block.held = {at: held for at, held in block.held.items() if at + len(held) > len(text)}
        block.held_chars = sum(map(len, block.held.values()))
        if said is not None and text.startswith(said):
            block.sent = len(said)
            if said:
                self._partly[call.seq, index] = block.sent
            rest = text[len(said) :]
            return (self._text(call, index, block, rest),) if rest else ()
        return (self._text(call, index, block, text, "\n\n" + text),) if text else ()

    # ---- facts

    def fact(self, fact: Fact) -> Iterator[Shown]:
        """What a fact lets us show. Facts that were given before are dropped; HoleError when some are missing."""
        seq = fact.seq
        if seq is None or seq <= self.seq:
            return
        if seq > self.seq + 1:
            raise HoleError(self.seq)
        skip = self._skip
        if self.shows(fact):
            yield from self._before(fact, silent=skip > 0)
            self._advance(seq)
            if isinstance(fact.body, ModelCalled):
                self._open(fact)
            yield ShownFact(fact, tail(self._partly), skip)
            self.ended = self.ends(fact)
        else:
            self._advance(seq)
        if self._early:
            for call in sorted(call for call in self._early if call <= seq):
                pieces = self._early.pop(call)
                self._early_chars -= sum(len(piece.text) + 50 for piece in pieces)
                for piece in pieces:
                    yield from self.piece(piece)

    def _advance(self, seq: int) -> None:
        self.seq, self._skip = seq, 0

    def shows(self, fact: Fact) -> bool:
        """Whether a fact is one of those that this follower is about. A run that begins inside is from then on."""
        if self._run_id is None:
            return True
        if run_of(fact) not in self._runs:
            return False
        if self._inside and isinstance(fact.body, ChildStarted):
            self._runs.add(fact.body.run_id)
        return True

    def ends(self, fact: Fact) -> bool:
        """Whether a fact is the end of the run (never for a whole thread)."""
        return self._run_id is not None and fact.type in RUN_ENDS and run_of(fact) == self._run_id

    def _before(self, fact: Fact, *, silent: bool) -> Iterator[Shown]:
        """The text still missing of the blocks that this fact closes. `silent`: it was sent before."""
        body = fact.body
        if isinstance(body, ModelReturned):
            yield from self._finish(body.call, body.run_id, body.blocks, silent)
            self._close(body.call, body.run_id)
        elif isinstance(body, ModelFailed):
            self._abandon(body.call)
        elif isinstance(body, RunCancelled):
            if body.call is not None:
                yield from self._finish(body.call, body.run_id, body.blocks, silent)
            self._close_run(body.run_id)
        elif fact.type in RUN_ENDS:
            self._close_run(str(fact.run_id))

    def _finish(self, call_seq: int, run_id: str, blocks: tuple[Block, ...], silent: bool) -> Iterator[Shown]:
        call = self._calls.get(call_seq) or _Call(call_seq, run_id, -1)
        for index, whole in enumerate(blocks):
            if whole.kind == "tool" or whole.kind == "opaque":
                continue
            block = call.blocks.get(index) or self._block(call, index)
            block.kind = whole.kind
            if silent:
                continue
            if block.prior is not None:
                yield from self._decide(call, index, block, whole.text, whole=True)
            missing = whole.text[block.sent :]
            if missing:
                yield self._text(call, index, block, missing)

    # ---- calls

    def _open(self, fact: Fact) -> None:
        assert isinstance(fact.body, ModelCalled) and fact.seq is not None
        self._abandon_older(fact.body.run_id)
        call = self._calls[fact.seq] = _Call(fact.seq, fact.body.run_id, fact.epoch)
        for (seq, index), chars in self._named.items():
            if seq == fact.seq:
                call.blocks[index] = _Block(seq, None, chars)

    def _block(self, call: _Call, index: int) -> _Block:
        """A block that appears for the first time."""
        block = _Block(call.seq, None, self._named.get((call.seq, index), 0))
        if not self._restarts and not block.sent:
            block.prior = self._carried.get(call.run_id, {}).get(index)
        call.blocks[index] = block
        return block

    def _abandon_older(self, run_id: str) -> None:
        for call in [call for call in self._calls.values() if call.run_id == run_id]:
            self._abandon(call.seq)

    def _abandon(self, call_seq: int) -> None:
        """An attempt came to nothing."""
        call = self._calls.pop(call_seq, None)
        if self._restarts or call is None:
            self._forget_partly(call_seq)
            return
        self._stale[call_seq] = call
        carried = self._carried.setdefault(call.run_id, {})
        for index, block in call.blocks.items():
            if block.prior is None and block.sent:
                block.held.clear()
                block.held_chars = 0
                carried[index] = block

    def _close(self, call_seq: int, run_id: str) -> None:
        """A turn is on record whole."""
        self._calls.pop(call_seq, None)
        self._forget_partly(call_seq)
        for index, block in self._carried.pop(run_id, {}).items():
            self._partly.pop((block.call, index), None)
        for stale in [stale for stale in self._stale.values() if stale.run_id == run_id]:
            del self._stale[stale.seq]
            self._forget_partly(stale.seq)

    def _close_run(self, run_id: str) -> None:
        for call in [call for call in self._calls.values() if call.run_id == run_id]:
            self._close(call.seq, run_id)
        self._close(-1, run_id)

    def _forget_partly(self, call_seq: int) -> None:
        for place in [place for place in self._partly if place[0] == call_seq]:
            del self._partly[place]
        for place in [place for place in self._named if place[0] == call_seq]:
            del self._named[place]


def run_of(fact: Fact) -> str | None:
    """The run that a fact belongs to, if any."""
    return fact.run_id or getattr(fact.body, "run_id", None)


def merged(items: Iterable[Shown]) -> Iterator[Shown]:
    """The same, with neighbouring texts of one block made one: they are ready at the same moment."""
    last: ShownText | None = None
    parts: list[str] = []
    for item in items:
        if isinstance(item, ShownText) and last is not None and item[:3] == last[:3]:
            parts.append(item.text)
            last = item
            continue
        if last is not None:
            yield last._replace(text="".join(parts)) if len(parts) > 1 else last
            last = None
        if isinstance(item, ShownText):
            last, parts = item, [item.text]
        else:
            yield item
    if last is not None:
        yield last._replace(text="".join(parts)) if len(parts) > 1 else last


__all__ = ["Follow", "HoleError", "Shown", "ShownFact", "ShownText", "merged", "run_of"]

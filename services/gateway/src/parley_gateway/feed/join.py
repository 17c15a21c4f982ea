"""A client's feed: stored facts after its cursor, then live ones, joined at the exact seq (DESIGN §5).

Order matters: first listen at the hub, then read history up to where the hub stood, then take what the hub queued; a
fact that comes both ways is dropped by its seq, and one that came neither way is fetched. All reading that may fail
happens in `start`, before a client is promised a stream. A feed that begins with an outcome fact of the hub's own needs
no read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

from parley_events.codec import Fact
from parley_events.errors import EventsError
from parley_events.pieces import Piece
from parley_gateway.errors import Behind, GatewayError, Unavailable
from parley_gateway.feed.cursor import Cursor, cursor_ahead
from parley_gateway.feed.follow import Follow, HoleError, Shown, ShownFact
from parley_gateway.feed.hub import Hub
from parley_gateway.feed.listener import Item, Listener
from parley_gateway.feed.recall import open_at
from parley_gateway.history import History

PAGE = 500


class Feed:
    """What one client is shown of a thread, or of one run. Close it in the end. `told(stream, seq)` is called with the
    newest fact that it was shown."""

    def __init__(
        self,
        hub: Hub,
        history: History,
        workspace_id: str,
        listener: Listener,
        follow: Follow,
        cursor: Cursor,
        told: Callable[[str, int], None],
    ) -> None:
        self._told = told
        self._hub, self._history, self._workspace_id = hub, history, workspace_id
        self._listener, self._follow, self._cursor = listener, follow, cursor
        self._recalled: list[Fact] = []
        self._replay: list[Fact] = []
        self._more = False
        self._first: list[Shown] = []
        self._told_seq = 0
        self.whole = False
        """Whether the one who shows what comes was told of all that came before it, as far as that matters."""
        self.over = False
        """Whether nothing comes any more: the run ended, or the listener was closed."""

    @property
    def recalled(self) -> list[Fact]:
        """Facts up to the cursor that the one who shows the rest may need to know."""
        return self._recalled

    async def start(self, begin: int | None = None) -> None:
        """Read what is stored. `begin`: the seq of the run's first fact, for a run's feed.

        Raises a Problem: the cursor is garbage or ahead (400), or history cannot be read now (503).
        """
        stream, done = self._listener.stream, self._cursor.done
        pieces = self._hub.kept(stream) if self._listener.pieces else []
        # Read first: only then has the view come to the cursor, and what is recalled up to it is complete.
        await self._read(done, self._hub.end_of(stream))
        if begin is not None:
            await self._recall(begin - 1, done)
        else:
            self._recalled = await open_at(self._history, self._workspace_id, stream, done)
        self.whole = True
        for fact in self._recalled:
            self._follow.recall(fact)
        if self._follow.ended:
            self._first.append(ShownFact(self._recalled[-1], "", again=True))
        for piece in pieces:
            self._first += self._follow.piece(piece)

    async def _recall(self, after: int, done: int) -> None:
        """The facts of the run up to the cursor. What comes after its end (someone settles a call of it) is shown in
        the thread alone."""
        while after < done:
            facts, page = await self._history.facts(self._workspace_id, self._listener.stream, after, PAGE)
            for fact in facts:
                if fact.seq is not None and fact.seq <= done and self._follow.shows(fact):
                    self._recalled.append(fact)
                    if self._follow.ends(fact):
                        return
            if not facts or page.last_seq <= after + len(facts):
                return
            after += len(facts)

    async def _read(self, after: int, end: str) -> None:
        """The next page of stored facts, from a view that has come to `end`."""
        stream = self._listener.stream
        self._replay, page = await self._history.facts(self._workspace_id, stream, after, PAGE, min_position=[end])
        self._more = page.last_seq > after + len(self._replay)
        if self._cursor.seq > page.last_seq:
            # Asked now: perhaps the log holds it, and the view and the hub have not come so far.
            try:
                real_end = await self._hub.real_end_of(stream)
            except EventsError as error:
                raise Unavailable("the log cannot be reached right now") from error
            self._replay, page = await self._history.facts(
                self._workspace_id, stream, after, PAGE, min_position=[real_end]
            )
            self._more = page.last_seq > after + len(self._replay)
            if self._cursor.seq > page.last_seq:
                raise cursor_ahead()

    async def take(self, timeout_s: float) -> list[Shown]:
        """What is to be shown next; [] when nothing came in time, or it is over."""
        if self._first:
            shown, self._first = self._first, []
        elif self._replay:
            shown = await self._replayed()
        else:
            items = await self._listener.take(timeout_s)
            shown = await self._followed(items)
            self.over = self.over or (self._listener.closed and not items)
        self.over = self.over or (self._follow.ended and not self._first)
        if self._follow.seq != self._told_seq:
            self._told_seq = self._follow.seq
            self._told(self._listener.stream, self._follow.seq)
        return shown

    async def _replayed(self) -> list[Shown]:
        shown: list[Shown] = []
        for fact in self._replay:
            shown += self._follow.fact(fact)
            if self._follow.ended:
                break
        self._replay = []
        if self._more and not self._follow.ended:
            await self._fetch(self._follow.seq)
        return shown

    async def _followed(self, items: list[Item]) -> list[Shown]:
        shown: list[Shown] = []
        for item in gathered(items):
            if isinstance(item, Piece):
                shown += self._follow.piece(item)
                continue
            try:
                shown += self._follow.fact(item)
            except HoleError as hole:
                await self._fetch(hole.after)
                while self._replay and not self._follow.ended:
                    shown += await self._replayed()
                if item.seq is not None and self._follow.seq < item.seq and not self._follow.ended:
                    try:
                        shown += self._follow.fact(item)
                    except HoleError:
                        self._listener.close()
                        return shown
            if self._follow.ended:
                break
        return shown

    async def _fetch(self, after: int) -> None:
        """More stored facts, in the middle of a stream; when they cannot be had the client has to come back."""
        try:
            await self._read(after, self._hub.end_of(self._listener.stream))
        except (Behind, GatewayError):
            self._replay, self._more = [], False
            self._listener.close()

    def end(self) -> None:
        """Be over once what has come was shown."""
        self._listener.close()

    @property
    def endless(self) -> bool:
        """Whether it does not end by itself: it is a whole thread's."""
        return self._follow.about[0] is None

    def close(self) -> None:
        self._hub.leave(self._listener)

    # ---- what a channel needs

    @property
    def about(self) -> tuple[object, ...]:
        """What is followed, and how."""
        return self._workspace_id, self._listener.stream, self._listener.pieces, *self._follow.about

    @property
    def live(self) -> bool:
        """Whether all that is stored, and all that has come, was shown."""
        waits = self._first or self._replay or self._more or self._listener.queued[0]
        return not (waits or self.over or self._listener.closed)

    @property
    def place(self) -> object:
        """What was shown, to the character."""
        return self._follow.place

    @property
    def ended(self) -> bool:
        return self._follow.ended

    @property
    def closed(self) -> bool:
        """Whether nothing comes any more, though the run has not ended."""
        return self._listener.closed and not self._listener.queued[0]

    def branch(self) -> Feed:
        """A feed that goes on from here for many, in the place of this one. Nothing is missed between the two."""
        listener = self._hub.listen(self._listener.stream, pieces=self._listener.pieces)
        feed = Feed(
            self._hub, self._history, self._workspace_id, listener, self._follow, self._cursor, lambda stream, seq: None
        )
        feed._told_seq = self._follow.seq
        return feed

    def mute(self) -> None:
        """Hear nothing more, but whether it is closed."""
        self._hub.mute(self._listener)
        self._recalled = []

    def go_on(self, other: Feed) -> None:
        """Hear again what comes from now on, and go on from where another feed about the same stands now."""
        self._follow = deepcopy(other._follow)
        self._hub.unmute(self._listener)

    def call(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever something has come, or the feed was closed."""
        self._listener.call = callback

    def grab(self) -> list[Item]:
        """Everything that has come, in order."""
        return self._listener.grab()

    def step(self, item: Item) -> Iterable[Shown]:
        """What one item lets us show; HoleError when facts are missing before it."""
        return self._follow.piece(item) if isinstance(item, Piece) else self._follow.fact(item)

    async def followed(self, items: list[Item]) -> list[Shown]:
        """The same of several; what is missing is read. Where that cannot be, the feed is closed."""
        return await self._followed(items)

    def showed(self, seq: int) -> None:
        """The client was shown everything up to this fact."""
        self._told_seq = seq
        self._told(self._listener.stream, seq)


def gathered(items: list[Item]) -> Iterable[Item]:
    """The same, with the pieces between two facts put together by their block, so that a client that let many wait gets
    each block's as one text, however many runs speak at once. Pieces may come in any order."""
    if len(items) < 3:
        return items
    found: list[Item] = []
    blocks: dict[tuple[str, int, int], list[Piece]] = {}
    for item in items:
        if isinstance(item, Piece):
            blocks.setdefault(item[:3], []).append(item)
            continue
        for pieces in blocks.values():
            found += pieces
        blocks.clear()
        found.append(item)
    for pieces in blocks.values():
        found += pieces
    return found

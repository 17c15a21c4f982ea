"""A client's feed of many threads: all of its workspace that the key may see, or some that it names (DESIGN §5).

Facts come in the order of the log within each partition, and so within each thread; between partitions there is none.
So the cursor is a vector of offsets (`vector`), on every frame. A feed that goes on from a cursor reads, partition by
partition, what history has from there on, first without listening, then up to where the hub stood when it began to
listen, and takes what the hub queued from there. What is missing or cannot be read ends it: the client comes back with
its cursor, and the rest is read.

Texts are shown as they grow where that is wanted, but not resumed: their frames repeat the cursor of what came before,
and say where in their block they belong, and the fact that closes a block is preceded by what is missing of it. Above
it: `many_stream`, and `many_channel` for those who watch the same. Beside it: `join`, which follows one thread. Below:
`opened`, `owners`, `order`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import orjson

from parley_events.codec import Fact
from parley_events.errors import EventsError
from parley_events.pieces import Piece
from parley_gateway.auth import Principal
from parley_gateway.errors import GatewayError, Unavailable
from parley_gateway.feed.cursor import bad_cursor, cursor_ahead
from parley_gateway.feed.follow import Shown, ShownFact, merged
from parley_gateway.feed.frames import Frame, Show
from parley_gateway.feed.hub import Hub, every_thread
from parley_gateway.feed.listener import Item
from parley_gateway.feed.opened import Opened
from parley_gateway.feed.order import InOrder, tap
from parley_gateway.feed.owners import Owners
from parley_gateway.feed.recall import open_at
from parley_gateway.feed.vector import Vector
from parley_gateway.history import History

OPEN_LIMIT = 1000
"""Of so many threads it is remembered what is open in them; of others it is read again when they go on."""


class Many:
    """What one client is shown of many threads. Close it in the end. `threads` None: of all; those that are named are
    known to be visible. `show_of(thread_id)` words one thread. `after` None: it begins now."""

    def __init__(
        self,
        hub: Hub,
        history: History,
        principal: Principal,
        show_of: Callable[[str], Show],
        *,
        threads: Sequence[str] | None,
        pieces: bool,
        after: Vector | None,
    ) -> None:
        self._hub, self._history, self._principal, self._show_of = hub, history, principal, show_of
        self._pieces, self._after = pieces, after
        self._named = None if threads is None else tuple(threads)
        self._threads = _by_partition(hub, threads)
        streams = tuple(threads) if threads is not None else (every_thread(principal.workspace_id),)
        self._owners = Owners(hub, history, principal, fresh=after is None)
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._listener = InOrder(hub, streams, principal.key_id)
        self._listening = False
        self._live = False
        """Whether all that was stored when it began to listen has been shown."""
        self._partly: tuple[int, int] | None = None
        """The partition and offset of a fact of which some frames were shown before."""
        self._next: dict[int, int] = {}
        self._goal: dict[int, int] = {}
        self._ready: list[bytes] = []
        self._busy = False
        """Whether what came is being made into frames."""
        self._cursor = b"" if after is None else str(after).encode()
        """The one that was given last."""
        self.over = False
        """Whether nothing comes any more."""

    async def start(self) -> None:
        """Begin to listen, or read the first page of what is stored.

        Raises a Problem: the cursor is not one of these threads, or ahead (400), or history cannot be read now (503).
        """
        self._hub.mute(self._listener)  # until it listens: whose key is revoked reads no further
        if self._listener.closed:
            self.over = True
            return
        if self._after is None:
            self._listen()
            self._next, self._live = dict(self._goal), True
            # So that who is cut off before the first fact can go on, too.
            self._ready = [self._place()]
            return
        if not self._after.next.keys() >= self._threads.keys() or self._after.next.keys() - self._hub.reached.keys():
            raise bad_cursor()
        self._next = {partition: self._after.next[partition] for partition in self._threads}
        if self._after.frames and self._after.partition in self._threads:
            self._partly = (self._after.partition, self._next[self._after.partition])
        await self._check_not_ahead()
        self._goal = self._ends()
        if self._partly is not None:
            # Before anything else the rest of the fact that was shown in part: a cursor can tell of one alone.
            partition, offset = self._partly
            self._goal = {partition: max(self._goal.pop(partition), offset + 1), **self._goal}
        await self._catch_up(self._ready)

    async def take(self, timeout_s: float) -> list[bytes]:
        """The frames that are to be sent next; [] when nothing came in time, or it is over."""
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        out: list[bytes] = []
        try:
            if self._live:
                items = await self._listener.take(timeout_s)
                self.over = self._listener.closed and not items
                self._busy = True
                await self._heard(items, out)
                self._busy = False
            elif self._listener.closed:
                self.over = True
            else:
                await self._catch_up(out)
        except GatewayError:
            self.end()
            self.over = True
        return out

    def beat(self) -> bytes:
        """What is sent when there is nothing to tell: the cursor, so that who goes on much later need not read again
        that there was nothing."""
        if self.idle:
            self._pass_by()
        return self._place()

    @property
    def about(self) -> Hashable:
        """What it shows, to whom, and in whose words."""
        return self._show_of, self._principal, self._named, self._pieces

    @property
    def place(self) -> object:
        """What was shown, to the character: of two feeds about the same at one place each can speak for the other. None
        while there is something to be shown."""
        if not self.idle:
            return None
        self._pass_by()
        if not self._pieces:
            return self._next
        speaking = {thread_id: opened.place for thread_id, opened in self._opened.items() if opened.speaking}
        return self._next, speaking

    def again(self) -> Many:
        """A feed that goes on from where this one stands, as who comes back by its cursor; to be started."""
        feed = Many(
            self._hub,
            self._history,
            self._principal,
            self._show_of,
            threads=self._named,
            pieces=self._pieces,
            after=Vector(dict(self._next)),
        )
        self._hub.mute(feed._listener)  # its key may be revoked before it is started
        return feed

    @property
    def idle(self) -> bool:
        """Whether all that it has heard was shown."""
        waits = self._ready or self._busy or not self._listener.empty
        return self._live and not waits and not self._listener.closed

    def _pass_by(self) -> None:
        """What was not for it is behind it, too."""
        self._next = {partition: max(self._next[partition], end) for partition, end in self._ends().items()}

    def end(self) -> None:
        """Nothing more shall come."""
        self._listener.close()

    def close(self) -> None:
        """Hear nothing more."""
        for opened in self._opened.values():
            opened.leave()
        self._opened.clear()
        self._hub.leave(self._listener)

    # ---- where it stands

    def _place(self) -> bytes:
        """An event of an id alone: it tells browsers, too, where they are, and is shown to nobody."""
        self._cursor = str(Vector(self._next)).encode()
        return b"id: %s\n\n" % self._cursor

    def _ends(self) -> dict[int, int]:
        reached = self._hub.reached
        return {partition: reached[partition] for partition in self._threads}

    def _listen(self) -> None:
        self._hub.attend(self._listener)
        self._listening, self._goal = True, self._ends()
        # A cursor of a gateway that is further: what this one hears before it is passed over.
        self._owners.meets({partition: max(end, self._next.get(partition, 0)) for partition, end in self._goal.items()})

    async def _check_not_ahead(self) -> None:
        reached, known = self._hub.reached, dict(self._next)
        if self._partly is not None:
            known[self._partly[0]] += 1
        if all(known[partition] <= reached[partition] for partition in known):
            return
        try:
            ends = await self._hub.real_reach()
        except EventsError as error:
            raise Unavailable("the log cannot be reached right now") from error
        if any(known[partition] > ends[partition] for partition in known):
            raise cursor_ahead()

    # ---- what is stored

    async def _catch_up(self, out: list[bytes]) -> None:
        """The next page of what is stored; once there is none, it listens, and reads what came meanwhile."""
        behind = self._behind()
        if behind is not None:
            await self._page(behind, out)
        if self._behind() is None and not self._listening:
            self._listen()
        if self._behind() is None:
            self._live = True
            out.append(self._place())
            for thread_id, opened in self._opened.items():
                out += self._tapped(thread_id, opened)

    def _behind(self) -> int | None:
        """A partition of which there is more to read."""
        return next((partition for partition, goal in self._goal.items() if self._next[partition] < goal), None)

    async def _page(self, partition: int, out: list[bytes]) -> None:
        who, goal = self._principal, self._goal[partition]
        facts, then = await self._history.facts_between(
            who.workspace_id,
            partition,
            self._next[partition],
            goal,
            user_id=None if who.admin else who.user_id,
            threads=self._threads[partition],
            min_position=[f"{partition}.{goal}"],
        )
        for fact in facts:
            self._owners.told(fact)
            await self._shown(partition, fact, out)
        self._next[partition] = then

    # ---- what comes

    async def _heard(self, items: Iterable[Item], out: list[bytes]) -> None:
        items = list(items)
        await self._owners.meet([item for item in items if not isinstance(item, Piece) and self._matters(item)])
        texts: dict[str, tuple[Opened, list[Shown]]] = {}
        for item in items:
            if isinstance(item, Piece):
                opened = self._opened.get(item.thread_id)
                if opened is not None:
                    texts.setdefault(item.thread_id, (opened, []))[1].extend(opened.piece(item))
            elif self._matters(item):
                if item.stream in texts:
                    out += self._texts(*texts.pop(item.stream))
                if not await self._new(item, out):
                    return
        # Between threads there is no order: what came of each meanwhile is shown together.
        for told in texts.values():
            out += self._texts(*told)

    def _matters(self, fact: Fact) -> bool:
        """Whether a fact was not there when it began to listen."""
        assert fact.offset is not None
        return fact.offset >= self._next[self._hub.partition(fact.stream)]

    async def _new(self, fact: Fact, out: list[bytes]) -> bool:
        """Show a fact that the hub gave, if it may be shown and was not; False: some are missing before it."""
        assert fact.seq is not None and fact.offset is not None
        partition = self._hub.partition(fact.stream)
        met = self._owners.get(fact.stream)
        if met is None:
            await self._owners.meet([fact])
            met = self._owners.get(fact.stream)
        assert met is not None
        if met.visible and fact.seq > met.seq:
            if fact.seq > met.seq + 1:
                self.end()
                return False
            met.seq = fact.seq
            await self._shown(partition, fact, out)
        self._next[partition] = fact.offset + 1
        return True

    # ---- what is shown

    async def _shown(self, partition: int, fact: Fact, out: list[bytes]) -> None:
        assert fact.seq is not None and fact.offset is not None
        thread_id = fact.stream
        opened = self._opened.pop(thread_id, None)
        if opened is not None and opened.seq != fact.seq - 1:
            opened.leave()  # it was deleted between two pages, and what was before that is told no more
            opened = None
        if opened is None:
            opened = Opened(fact.seq - 1, self._show_of(thread_id), pieces=self._pieces)
        try:
            if opened.lacks(fact):
                opened.recall(await self._before(thread_id, fact.seq))
        except GatewayError:
            opened.leave()
            raise
        texts: list[Shown] = []
        for shown in opened.fact(fact):
            if not isinstance(shown, ShownFact):
                texts.append(shown)
                continue
            out += self._texts(opened, texts)
            texts = []
            out += self._framed(partition, fact.offset, opened, shown)
        out += self._texts(opened, texts)
        if not opened.speaking:
            opened.leave()
        if not opened.open:
            return
        self._opened[thread_id] = opened
        if len(self._opened) > OPEN_LIMIT:
            self._opened.popitem(last=False)[1].leave()
        if self._live:
            out += self._tapped(thread_id, opened)

    async def _before(self, thread_id: str, seq: int) -> list[Fact]:
        """The facts of what was going on before this one."""
        position = f"{thread_id}@{seq - 1}"
        return await open_at(self._history, self._principal.workspace_id, thread_id, seq - 1, [position])

    def _framed(self, partition: int, offset: int, opened: Opened, shown: ShownFact) -> Iterator[bytes]:
        """The frames of a fact. The last one's cursor is after it; those before it count how many there were."""
        frames = opened.show(shown)
        sent = self._after.frames if self._after is not None and self._partly == (partition, offset) else 0
        places = {**self._next, partition: offset}
        for number, frame in enumerate(frames, 1):
            if number == len(frames):
                place = Vector({**places, partition: offset + 1})
            elif number <= sent:
                continue
            else:
                place = Vector(places, partition, number)
            self._cursor = str(place).encode()
            yield self._frame(frame)

    def _texts(self, opened: Opened, texts: Iterable[Shown]) -> list[bytes]:
        """The frames of texts of one thread. Their cursor is that of what came before: who goes on misses no fact."""
        return [self._frame(frame) for shown in merged(texts) for frame in opened.show(shown)]

    def _frame(self, frame: Frame) -> bytes:
        return b"id: %s\ndata: %s\n\n" % (self._cursor, orjson.dumps(frame.data))

    def _tapped(self, thread_id: str, opened: Opened) -> Iterable[bytes]:
        """Have the pieces of a thread come, if there are any; the texts that they begin with."""
        if not self._pieces or not opened.speaking or opened.untap is not None:
            return ()
        opened.untap = tap(self._hub, thread_id, self._listener)
        return self._texts(opened, [shown for piece in self._hub.kept(thread_id) for shown in opened.piece(piece)])


def _by_partition(hub: Hub, threads: Sequence[str] | None) -> dict[int, list[str] | None]:
    """The partitions that a feed is about, and which threads of them (None: all)."""
    if threads is None:
        return dict.fromkeys(hub.reached)
    found: dict[int, list[str] | None] = {}
    for thread_id in threads:
        partition = hub.partition(thread_id)
        found[partition] = [*(found.get(partition) or ()), thread_id]
    return found

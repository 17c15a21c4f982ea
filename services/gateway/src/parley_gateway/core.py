"""What all dialects share: saying something and following what comes of it. Dialects stand above, parts below.

`Core` holds the parts of one gateway. `say` puts a message on the log and gives back what became of it (`Said`);
`feed_of` follows that run from its outcome fact, without a read; `run_feed` and `thread_feed` follow what is stored.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from starlette.responses import Response

from parley_events import ids
from parley_events.clock import Clock
from parley_events.codec import Command, Fact
from parley_events.commands import PostMessage
from parley_events.facts import RUN_ENDS, ChildStarted, ThreadDeleted
from parley_events.ids import NewUuid
from parley_events.objects import Objects
from parley_events.reads import RunView
from parley_gateway import answered
from parley_gateway.auth import Auth, Principal
from parley_gateway.errors import Missing, Problem
from parley_gateway.feed.channel import Channels
from parley_gateway.feed.cursor import START, Cursor, parse_cursor
from parley_gateway.feed.follow import Follow, Shown, ShownFact, run_of
from parley_gateway.feed.frames import Show
from parley_gateway.feed.hub import Hub
from parley_gateway.feed.join import PAGE, Feed
from parley_gateway.feed.listener import Listener
from parley_gateway.feed.many import Many
from parley_gateway.feed.many_channel import ManyChannels
from parley_gateway.feed.many_stream import ManyStream
from parley_gateway.feed.rotation import Rotation
from parley_gateway.feed.sse import EventStream, Feeding, Terms
from parley_gateway.feed.vector import parse_vector
from parley_gateway.history import History
from parley_gateway.limits import Limits
from parley_gateway.marks import Marks
from parley_gateway.reads import Reads
from parley_gateway.runs import RunTold
from parley_gateway.send import Outcome, Sender
from parley_gateway.settings import Settings
from parley_gateway.telemetry import Instruments
from parley_gateway.uploads import Uploads
from parley_gateway.workspaces import Workspaces

Value = TypeVar("Value")

BOUND_LIMIT = 50_000


@dataclass(slots=True)
class Core:
    """The parts of one gateway. `bound`: threads whose agent is known here (None: open to any); `end_users`: those of
    which it is known for whom their owner keeps them (None: for nobody else)."""

    settings: Settings
    hub: Hub
    history: History
    auth: Auth
    limits: Limits
    workspaces: Workspaces
    sender: Sender
    objects: Objects
    uploads: Uploads
    reads: Reads
    marks: Marks
    clock: Clock
    new_uuid: NewUuid
    new_secret: Callable[[], bytes]
    instruments: Instruments
    rotation: Rotation
    bound: OrderedDict[str, str | None] = field(default_factory=OrderedDict)
    reading_rejected: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 2))
    """Commands that were set aside may have 8 MiB each: few requests read them at a time."""
    forking: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 2))
    """What a fork takes over may have 16 MiB: few are made at a time."""
    end_users: OrderedDict[str, str | None] = field(default_factory=OrderedDict)
    channels: Channels = field(default_factory=Channels)
    many_channels: ManyChannels = field(default_factory=ManyChannels)
    renewed: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """How often a thread that everybody has one of was deleted and begun anew, by the first one's id."""

    def bind(self, thread_id: str, agent_id: str | None) -> None:
        """Remember whom a thread is bound to; that never changes."""
        _remember(self.bound, thread_id, agent_id)

    def renew(self, thread_id: str, times: int) -> None:
        """Remember how often the thread was begun anew."""
        _remember(self.renewed, thread_id, max(times, self.renewed.get(thread_id, 0)))

    async def end_user(self, principal: Principal, thread_id: str, what: str) -> str | None:
        """For whom the thread is kept; a Problem 404 when it must be read, and the key does not see it. `what`: how the
        client calls it."""
        if thread_id not in self.end_users:
            view = await self.reads.visible(principal, thread_id, None, what)
            _remember(self.end_users, thread_id, view.end_user)
        return self.end_users[thread_id]


def _remember(where: OrderedDict[str, Value], thread_id: str, value: Value) -> None:
    where[thread_id] = value
    if len(where) > BOUND_LIMIT:
        where.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Said:
    """A message that was accepted. `listener` has heard the thread since before the message was sent."""

    outcome: Outcome
    thread_id: str
    run_id: str
    question_id: str
    queued: bool
    listener: Listener | None

    @property
    def position(self) -> str:
        return self.outcome.position


async def ask(
    core: Core, principal: Principal, command: Command, *, follow: bool, pieces: bool = True
) -> tuple[Outcome, Listener | None]:
    """Send a command to a thread and wait for its outcome. `follow`: begin to listen to the thread first; no listener
    comes back where nothing was decided in time."""
    listener = core.hub.listen(command.stream, principal.key_id, pieces) if follow else None
    try:
        outcome = await core.sender.ask(principal, command)
    except BaseException:
        if listener is not None:
            core.hub.leave(listener)
        raise
    if outcome.pending and listener is not None:
        core.hub.leave(listener)
        listener = None
    return outcome, listener


async def say(core: Core, principal: Principal, command: Command, *, follow: bool, pieces: bool = True) -> Said:
    """Send a `message.post` and wait for its outcome. `follow`: begin to listen to the thread first. The message says
    how new the workspace is that its writer has seen, so that it is answered with nothing older."""
    assert isinstance(command.body, PostMessage)
    seen = core.workspaces.seen(command.workspace_id)
    command = replace(command, body=command.body.model_copy(update={"workspace_seq": seen}))
    assert isinstance(command.body, PostMessage)
    thread_id = command.stream
    outcome, listener = await ask(core, principal, command, follow=follow, pieces=pieces)
    receipt = outcome.receipt
    run_id = str(receipt.get("run_id") or ids.run_id(thread_id, command.id))
    question_id = str(receipt.get("message_id") or ids.question_id(thread_id, command.id))
    if command.body.open is not None:
        core.bind(thread_id, command.body.open.agent_id)
        _remember(core.end_users, thread_id, command.body.open.end_user)
    return Said(outcome, thread_id, run_id, question_id, receipt.get("disposition") != "started", listener)


async def reply(core: Core, principal: Principal, command: Command, *, pieces: bool) -> Said:
    """Send a `tool.answer` and wait for its outcome; what the run then says can be followed as after `say`."""
    outcome, listener = await ask(core, principal, command, follow=True, pieces=pieces)
    return Said(outcome, command.stream, str(outcome.receipt.get("run_id") or ""), "", False, listener)


async def feed_of(core: Core, principal: Principal, said: Said, *, restarts: bool, inside: bool = False) -> Feed:
    """Follow the run of a message that was just accepted; `inside`: with the runs inside it. A repeated one is followed
    from its first fact on."""
    assert said.listener is not None
    seq = said.outcome.seq
    feed = await feed_from(core, principal, said.outcome, said.listener, said.run_id, seq, restarts, inside=inside)
    feed.whole = True  # it begins with the message itself
    return feed


async def feed_from(
    core: Core,
    principal: Principal,
    outcome: Outcome,
    listener: Listener,
    run_id: str | None,
    begin: int | None,
    restarts: bool,
    *,
    inside: bool = False,
) -> Feed:
    """Follow a run, or the whole thread, from the outcome of a command on, without a read. What was decided before is
    read from where it stands; `begin`: the seq of the run's first fact, if it is known."""
    assert outcome.seq is not None
    cursor = Cursor(outcome.seq - 1)
    follow = Follow(run_id, cursor, restarts=restarts, inside=inside)
    feed = Feed(core.hub, core.history, principal.workspace_id, listener, follow, cursor, _told(core, principal))
    if outcome.fact is None:
        await _started(feed, begin)
    return feed


async def run_feed(
    core: Core,
    principal: Principal,
    run: RunView,
    cursor: str | None,
    *,
    restarts: bool,
    pieces: bool = True,
    inside: bool = False,
) -> Feed:
    """Follow a stored run from a cursor (None: from its beginning); `inside`: with the runs inside it."""
    begin = Cursor(run.posted_seq - 1)
    at = begin if cursor is None else parse_cursor(cursor)
    if at.done < begin.seq:
        at = begin
    listener = core.hub.listen(run.thread_id, principal.key_id, pieces)
    follow = Follow(run.id, at, restarts=restarts, inside=inside)
    feed = Feed(core.hub, core.history, principal.workspace_id, listener, follow, at, _told(core, principal))
    await _started(feed, run.posted_seq)
    return feed


async def thread_feed(core: Core, principal: Principal, thread_id: str, cursor: str | None, *, restarts: bool) -> Feed:
    """Follow a thread from a cursor (None: from its beginning)."""
    at = START if cursor is None else parse_cursor(cursor)
    listener = core.hub.listen(thread_id, principal.key_id)
    follow = Follow(None, at, restarts=restarts)
    feed = Feed(core.hub, core.history, principal.workspace_id, listener, follow, at, _told(core, principal))
    await _started(feed, None)
    return feed


async def many_feed(
    core: Core,
    principal: Principal,
    show_of: Callable[[str], Show],
    cursor: str | None,
    *,
    threads: Sequence[str] | None,
    pieces: bool,
) -> Many:
    """Follow all threads that the key may see, or those that are named (and known to be visible), from a cursor (None:
    from now on). `show_of` words one thread."""
    after = None if cursor is None else parse_vector(cursor)
    feed = Many(core.hub, core.history, principal, show_of, threads=threads, pieces=pieces, after=after)
    try:
        await feed.start()
    except BaseException:
        feed.close()
        raise
    return feed


async def facts_of(core: Core, principal: Principal, run: RunView) -> list[Fact]:
    """The facts of a stored run and of the runs inside it, as far as they are stored."""
    found: list[Fact] = []
    family = {run.id}
    after = run.posted_seq - 1
    while True:
        facts, page = await core.history.facts(principal.workspace_id, run.thread_id, after, PAGE)
        for fact in facts:
            after = fact.seq or after
            if isinstance(fact.body, ChildStarted) and fact.body.parent_run_id in family:
                family.add(fact.body.run_id)
            if run_of(fact) in family:
                found.append(fact)
            if after == run.ended_seq:
                return found
        if not facts or after >= page.last_seq:
            return found


def _told(core: Core, principal: Principal) -> Callable[[str, int], None]:
    return partial(core.sender.told.tell, principal.key_id)


async def _started(feed: Feed, begin: int | None) -> None:
    try:
        await feed.start(begin)
    except Missing:
        feed.close()
        raise Problem("not_found", "there is no such stream", 404) from None
    except BaseException:
        feed.close()
        raise


def stream(
    core: Core, feed: Feeding, show: Show, headers: Mapping[str, str], then: Callable[[], None] | None = None
) -> Response:
    """The feed as the answer to a request. `then`: what is done once its client has had all of it."""
    endless = isinstance(feed, Feed) and feed.endless
    made = EventStream(feed, show, _terms(core), headers=headers, then=then, endless=endless)
    core.instruments.first_delta(made)
    return made


def many_stream(core: Core, feed: Many) -> Response:
    """The feed of many threads as the answer to a request."""
    return ManyStream(feed, _terms(core))


def _terms(core: Core) -> Terms:
    settings = core.settings
    return Terms(
        beat_s=settings.beat_s,
        stall_s=settings.stall_s,
        most_bytes=settings.queue_mb * 1024 * 1024,
        counts=core.hub.counts,
        rotation=core.rotation,
        channels=core.channels,
        many=core.many_channels,
    )


class Until:
    """A feed that is over with the first fact that `ends` what its client waits for, though the run goes on later."""

    def __init__(self, feed: Feed, ends: Callable[[Fact], bool]) -> None:
        self._feed, self._ends = feed, ends
        self.over = False
        for fact in feed.recalled:
            ends(fact)

    @property
    def recalled(self) -> list[Fact]:
        """As of the feed."""
        return self._feed.recalled

    async def take(self, timeout_s: float) -> list[Shown]:
        """What is to be shown next, at most up to the end."""
        shown = await self._feed.take(timeout_s)
        self.over = self._feed.over
        for place, item in enumerate(shown):
            if isinstance(item, ShownFact) and not item.again and self._ends(item.fact):
                self.over = True
                return shown[: place + 1]
        return shown

    def end(self) -> None:
        """As of the feed."""
        self._feed.end()

    def close(self) -> None:
        self._feed.close()


async def told(
    feed: Feeding, run_id: str, thread_id: str, wait_s: float, enough: Callable[[RunTold], bool] = lambda run: False
) -> tuple[RunTold, list[Shown]]:
    """Follow a run to its end, or until it is `enough`, for at most `wait_s`: what its facts told, and all that was
    shown. Closes the feed."""
    run = RunTold(run_id, thread_id)
    shown: list[Shown] = []
    now = asyncio.get_running_loop().time
    until = now() + wait_s
    try:
        while not feed.over and not enough(run) and (left := until - now()) > 0:
            for item in await feed.take(left):
                shown.append(item)
                if isinstance(item, ShownFact) and run_of(item.fact) == run_id:
                    run.fold(item.fact)
    finally:
        feed.close()
    if run.ended_seq is not None:
        answered.wrote(thread_id, run.ended_seq)  # what is told here is in no older view
    return run, shown


async def ended(feed: Feed, run_ids: Collection[str], wait_s: float) -> dict[str, int]:
    """Follow a thread until these runs have ended, for at most `wait_s`: the seqs of their ends. Closes the feed."""
    ends: dict[str, int] = {}
    now = asyncio.get_running_loop().time
    until = now() + wait_s
    try:
        while not feed.over and len(ends) < len(run_ids) and (left := until - now()) > 0:
            for item in await feed.take(left):
                if isinstance(item, ShownFact) and item.fact.type in RUN_ENDS:
                    run_id = run_of(item.fact)
                    if run_id is not None and run_id in run_ids:
                        ends[run_id] = item.fact.seq or 0
    finally:
        feed.close()
    return ends


def forget_deleted(core: Core) -> None:
    """Let go of what is known of a thread when it is deleted."""

    def forget(fact: Fact) -> None:
        core.bound.pop(fact.stream, None)
        core.end_users.pop(fact.stream, None)

    core.hub.watch(ThreadDeleted.type, forget)

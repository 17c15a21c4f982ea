"""The stream of many threads: every fact that the key may see, from now on or from a cursor, and nobody else's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.keys import make_key
from parley_events.pieces import Piece
from parley_gateway.core import many_feed
from parley_gateway.dialects.threads.outbound import Placed
from parley_gateway.feed import many, owners
from parley_gateway.feed.many_channel import ManyChannels
from parley_gateway.feed.vector import Vector, parse_vector
from tests.contract.dialects.watch import Watch
from tests.support.asgi import ask, exchange
from tests.support.many import ManyClient
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import World, say, silence, tool_block, world

CHAT = "/api/v1/chat"
OTHER = "22222222-2222-4333-8444-555555555555"
RUN = ("message.posted", "model.called", "model.returned", "run.completed")


class Many(Watch):
    """The frames of such a stream; `client` has what a client has after them."""

    def __init__(self, exchange: Any, client: ManyClient | None = None) -> None:
        super().__init__(exchange)
        self.client = client or ManyClient()
        self._taken = self._asked = 0

    def read(self) -> list[Frame]:
        """All that has come by now."""
        for part in self.exchange.parts[self._taken :]:
            self._taken += 1
            self.client.take(part)
            if b"data: " in part:
                self.frames.append(frame_of(part))
        return self.frames

    async def sees(self, *types: str) -> list[Frame]:
        """The next frames, one send each, are of these types."""
        before, self._asked = self._asked, self._asked + len(types)
        await self.exchange.until(lambda x: len(self.read()) >= self._asked or x.over)
        assert [frame.type for frame in self.frames[before:]] == list(types)
        return self.frames[before:]

    async def until(self, check: Any) -> None:
        """Wait until the client has what is checked."""
        await self.exchange.until(lambda x: (self.read(), check(self.client))[1])

    async def ends(self) -> None:
        """Nothing more comes, and the response is finished."""
        await self.exchange.end()
        assert self.exchange.over
        assert len(self.read()) == self._asked, self.frames[self._asked :]


@asynccontextmanager
async def watched(
    here: World,
    key: str,
    client: ManyClient | None = None,
    *,
    after: str | None = None,
    gateway: int = 0,
    threads: str | None = None,
    deltas: bool = False,
) -> AsyncIterator[Many]:
    params = {"after": after, "threads": threads, "deltas": "true" if deltas else None}
    asked = {name: value for name, value in params.items() if value is not None}
    async with exchange(here.gateways[gateway][0], "GET", f"{CHAT}/events", key=key, params=asked) as x:
        await x.until(lambda x: x.sends)
        assert x.status == 200, x.body
        yield Many(x, client)


async def new_thread(here: World, key: str, agent: str = "scripted") -> str:
    made = await ask(here.gateways[0][0], "POST", f"{CHAT}/threads", key=key, body={"agent_id": agent})
    return str(made.json()["id"])


async def post(here: World, key: str, thread: str, text: str) -> None:
    path = f"{CHAT}/threads/{thread}/messages"
    said = await ask(here.gateways[0][0], "POST", path, key=key, body={"content": text}, params={"wait": ""})
    assert said.status == 200, said.body


async def new_key(here: World, user: str, *scopes: str) -> str:
    body = {"user": user, "scopes": list(scopes)}
    made = await ask(here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body=body)
    return str(made.json()["key"])


def places(watch: Many) -> set[tuple[str, Any]]:
    return {(frame.data["thread_id"], frame.data.get("content")) for frame in watch.frames}


async def test_it_shows_the_facts_of_all_ones_threads_and_no_texts_unless_asked(here: World) -> None:
    here.dispatcher.play = say("Hello ", "world")
    before = await new_thread(here, here.key)
    await post(here, here.key, before, "not shown: it was said earlier")
    async with watched(here, here.key) as watch:
        await post(here, here.key, before, "one")
        frames = await watch.sees(*RUN)
        assert {frame.data["thread_id"] for frame in frames} == {before}
        later = await new_thread(here, here.key)
        await post(here, here.key, later, "two")
        more = await watch.sees("thread.created", *RUN)
        assert {frame.data["thread_id"] for frame in more} == {later}
        assert all(parse_vector(str(frame.id)) for frame in watch.frames)
        assert [frame.data["seq"] for frame in more] == [1, 2, 3, 4, 5]


async def test_another_users_facts_never_show_and_an_admin_sees_them(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    bobs = await new_thread(here, bob)
    await post(here, bob, bobs, "bob, before")
    own = await new_thread(here, here.key)
    async with watched(here, here.key) as anns, watched(here, here.admin_key) as admins, watched(here, bob) as his:
        await post(here, bob, bobs, "bob, of a thread that was there")
        new = await new_thread(here, bob)
        await post(here, bob, new, "bob, of a new thread")
        await post(here, here.key, own, "ann")
        await anns.sees(*RUN)
        await his.sees(*RUN, "thread.created", *RUN)
        await admins.sees(*RUN, "thread.created", *RUN, *RUN)
        assert {thread for thread, _ in places(anns)} == {own}
        assert {thread for thread, _ in places(his)} == {bobs, new}
        assert b"bob" not in anns.exchange.body


async def test_another_workspaces_facts_never_show_not_even_to_an_admin(here: World) -> None:
    here.dispatcher.play = say("ok")
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    theirs = await new_thread(here, foreign)
    own = await new_thread(here, here.key)
    async with watched(here, here.admin_key) as ours, watched(here, foreign) as others:
        await post(here, foreign, theirs, "theirs")
        await new_thread(here, foreign)
        await post(here, here.key, own, "ours")
        await ours.sees(*RUN)
        await others.sees(*RUN, "thread.created")
        assert {thread for thread, _ in places(ours)} == {own}
        assert b"ours" not in others.exchange.body


async def test_facts_of_the_workspace_itself_are_not_shown(here: World) -> None:
    here.dispatcher.play = say("ok")
    own = await new_thread(here, here.key)
    async with watched(here, here.admin_key) as watch:
        await new_key(here, "carol", "*")
        await post(here, here.key, own, "ours")
        await watch.sees(*RUN)
        assert b"key_hash" not in watch.exchange.body


async def test_while_history_is_away_nothing_is_shown_of_a_thread_whose_owner_is_unknown(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    bobs = await new_thread(here, bob)
    async with watched(here, here.key) as watch:
        here.past.away = True
        await post(here, bob, bobs, "of bob")
        await watch.ends()
        assert watch.frames == [] and b"data:" not in watch.exchange.body


async def test_a_revoked_key_ends_it(here: World) -> None:
    app = here.gateways[0][0]
    body = {"user": "ann", "scopes": ["*"]}
    made = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body=body)).json()
    async with watched(here, made["key"]) as watch:
        await ask(app, "DELETE", f"/api/v1/keys/{made['id']}", key=here.admin_key)
        await watch.ends()
    assert here.core.hub.listening == 0


# ---- cursors


async def test_who_left_goes_on_at_any_gateway_and_misses_nothing(here: World) -> None:
    await here.application()
    here.dispatcher.play = say("Hello ", "world")
    threads = [await new_thread(here, here.key) for _ in range(6)]
    stayed, left = ManyClient(), ManyClient()
    async with watched(here, here.key, stayed) as whole:
        async with watched(here, here.key, left) as first:
            await post(here, here.key, threads[0], "seen")
            await first.until(lambda client: client.seqs.get(threads[0]) == [2, 3, 4, 5])
        for turn, thread in enumerate(threads * 2):
            await post(here, here.key, thread, f"not seen {turn}")
        async with watched(here, here.key, left, after=left.cursor, gateway=1) as second:
            await second.until(lambda client: sum(map(len, client.facts.values())) == 13 * 4)
            await post(here, here.key, threads[3], "live again")
            await second.until(lambda client: client.seqs[threads[3]][-4:] == [10, 11, 12, 13])
        await whole.until(lambda client: client.seqs == left.seqs)
        assert stayed.facts == left.facts
        assert all(seqs == sorted(set(seqs)) for seqs in left.seqs.values())


async def test_who_was_cut_off_before_the_first_fact_goes_on_from_where_it_began(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as first, asyncio.timeout(5):  # long before the first beat
        await first.until(lambda client: client.cursor is not None)
    await post(here, here.key, thread, "while it was away")
    async with watched(here, here.key, client, after=client.cursor) as second:
        await second.sees(*RUN)


async def test_a_cursor_that_is_none_or_of_other_threads_or_ahead_is_refused(here: World) -> None:
    app = here.gateways[0][0]
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    at = parse_vector(str(client.cursor))
    ahead = Vector({p: offset + (p == 1) * 1000 for p, offset in at.next.items()})
    few = Vector({1: at.next[1]})
    for text, code in (
        ("x", "bad_cursor"),
        ("5", "bad_cursor"),
        (str(few), "bad_cursor"),
        (str(Vector({**at.next, 9: 1})), "bad_cursor"),
        (str(ahead), "cursor_ahead"),
        (str(Vector(at.next, 1, 1)), "cursor_ahead"),
    ):
        for how in ({"params": {"after": text}}, {"headers": {"Last-Event-ID": text}}):
            answer = await ask(app, "GET", f"{CHAT}/events", key=here.key, **how)
            assert (answer.status, answer.json()["error"]) == (400, code), text


async def test_a_cursor_of_a_gateway_that_is_further_is_taken(here: World) -> None:
    """The hub here has not heard yet what the other one has shown."""
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await post(here, here.key, thread, "one")
        await watch.until(lambda client: client.seqs.get(thread) == [2, 3, 4, 5])
    hub = here.core.hub
    p = hub.partition(thread)
    heard, hub._next[p] = hub._next[p], hub._next[p] - 3
    async with watched(here, here.key, client, after=client.cursor) as watch:
        hub._next[p] = heard
        await post(here, here.key, thread, "two")
        await watch.until(lambda client: len(client.seqs[thread]) == 8)
        assert client.seqs[thread] == [2, 3, 4, 5, 6, 7, 8, 9]


async def test_another_workspaces_cursor_shows_nothing_of_it(here: World) -> None:
    here.dispatcher.play = say("ok")
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    theirs, own = await new_thread(here, foreign), await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, foreign, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    await post(here, foreign, theirs, "theirs")
    await post(here, here.key, own, "ours")
    async with watched(here, here.admin_key, after=client.cursor) as ours:
        await ours.sees(*RUN)
        assert {thread for thread, _ in places(ours)} == {own}
        assert b"theirs" not in ours.exchange.body


async def test_what_another_user_did_meanwhile_is_not_read_either(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    bobs, own = await new_thread(here, bob), await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    await post(here, bob, bobs, "of bob")
    await post(here, here.key, own, "of ann")
    async with watched(here, here.key, after=client.cursor) as anns, watched(here, bob, after=client.cursor) as his:
        await anns.sees(*RUN)
        await his.sees(*RUN)
        assert b"of bob" not in anns.exchange.body and b"of ann" not in his.exchange.body


async def test_a_fact_of_two_frames_is_resumed_between_them(here: World) -> None:
    async def play(dispatcher: Any, posted: Fact) -> None:
        call = dispatcher.called(posted)
        dispatcher.failed(posted, call)
        call = dispatcher.called(posted, attempt=2)
        dispatcher.returned(posted, call, Block(kind="text", text="ok"))
        dispatcher.completed(posted)

    here.dispatcher.play = play
    thread = await new_thread(here, here.key)
    async with watched(here, here.key) as watch:
        await post(here, here.key, thread, "one")
        types = ("message.posted", "model.called", "model.failed", "run.restarted", "model.called", *RUN[2:])
        frames = await watch.sees(*types)
    for place, frame in enumerate(frames):
        async with watched(here, here.key, after=frame.id) as again:
            rest = await again.sees(*types[place + 1 :])
            assert [one.data for one in rest] == [one.data for one in frames[place + 1 :]]
            assert [one.id for one in rest] == [one.id for one in frames[place + 1 :]]


async def test_a_cursor_of_more_threads_is_good_for_fewer(here: World) -> None:
    here.dispatcher.play = say("ok")
    threads = [await new_thread(here, here.key) for _ in range(8)]
    partition = here.core.hub.partition
    one, other = threads[0], next(thread for thread in threads if partition(thread) != partition(threads[0]))
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    at = parse_vector(str(client.cursor)).next
    for thread in (one, other):
        await post(here, here.key, thread, "later")
    for cursor in (Vector(at), Vector(at, partition(other), 1)):
        async with watched(here, here.key, threads=one, after=str(cursor)) as watch:
            frames = await watch.sees(*RUN)
            assert set(parse_vector(str(frames[-1].id)).next) == {partition(one)}


async def test_who_is_cut_off_after_every_single_frame_gets_each_once(here: World) -> None:
    """Facts of two frames in several partitions: however it is cut, only one of them can be shown in part."""

    async def play(dispatcher: Any, posted: Fact) -> None:
        for attempt in (1, 2, 3):
            call = dispatcher.called(posted, attempt=attempt)
            if attempt < 3:
                dispatcher.failed(posted, call, attempt)
        dispatcher.returned(posted, call, Block(kind="text", text="ok"))
        dispatcher.completed(posted)

    here.dispatcher.play = play
    threads = [await new_thread(here, here.key) for _ in range(5)]
    threads.sort(key=here.core.hub.partition, reverse=True)
    stayed, left = ManyClient(), ManyClient()
    async with watched(here, here.key, stayed) as whole, watched(here, here.key) as first:
        await whole.until(lambda client: client.cursor is not None)
        await post(here, here.key, threads[0], "go")
        await first.until(lambda client: len(client.facts[threads[0]]) == 10)
        parts = first.exchange.parts
        half = next(place for place, part in enumerate(parts) if b"run.restarted" in part)
        for part in parts[: half + 1]:
            left.take(part)
        for thread in threads[1:]:
            await post(here, here.key, thread, "go")
        await whole.until(lambda client: sum(map(len, client.facts.values())) == 5 * 10)
    for _ in range(200):
        async with watched(here, here.key, after=left.cursor) as one:
            await one.exchange.until(lambda x: x.parts)
            left.take(one.exchange.parts[0])
        if sum(map(len, left.facts.values())) >= 5 * 10:
            break
    assert left.facts == stayed.facts


async def test_what_was_sent_twice_after_an_outage_is_shown_once_wherever_the_first_was(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread, other = await new_thread(here, here.key), await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await post(here, here.key, thread, "one")
        await watch.until(lambda client: client.seqs.get(thread) == [2, 3, 4, 5])
        await here.resend(here.dispatcher.written[thread][-1])
        await post(here, here.key, other, "between")
        await watch.until(lambda client: len(client.facts[other]) == 4)
    async with watched(here, here.key, client, after=client.cursor) as watch:
        for fact in here.dispatcher.written[thread][-2:] + here.dispatcher.written[other][:1]:
            await here.resend(fact)
        await post(here, here.key, thread, "two")
        await watch.until(lambda client: len(client.facts[thread]) >= 8)
        assert client.seqs == {thread: [2, 3, 4, 5, 6, 7, 8, 9], other: [2, 3, 4, 5]}


@pytest.mark.parametrize("further", [False, True])
async def test_what_was_sent_twice_is_shown_once_though_the_view_has_neither(here: World, further: bool) -> None:
    """Nor, where the cursor is `further`, has the hub heard of the first."""
    here.dispatcher.play = silence
    app = here.gateways[0][0]
    thread, client = await new_thread(here, here.key), ManyClient()
    async with watched(here, here.key, client) as watch:
        await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"})
        await watch.sees("message.posted")
        posted = here.dispatcher.written[thread][-1]
        call = here.dispatcher.called(posted)
        await watch.sees("model.called")
        await here.eventually(lambda: len(here.past.facts[thread]) == 3)
        here.past.held.clear()
        returned = here.dispatcher.returned(posted, call, Block(kind="text", text="ok"))
        await watch.sees("model.returned")
    hub = here.core.hub
    p = hub.partition(thread)
    heard, hub._next[p] = hub._next[p], hub._next[p] - further
    async with watched(here, here.key, client, after=client.cursor) as watch:
        hub._next[p] = heard
        here.past.asked.clear()
        await here.resend(returned)
        await here.eventually(lambda: any(path.endswith("owners") for path in here.past.asked))
        here.past.held.set()
        here.dispatcher.completed(posted)
        await watch.sees("run.completed")
        assert client.seqs == {thread: [2, 3, 4, 5]}


async def test_what_lies_before_its_beginning_and_comes_late_is_not_shown_and_takes_nothing_back(
    here: World, monkeypatch: Any
) -> None:
    """A fact whose large contents were being fetched when the client began."""
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    threads = [await new_thread(here, here.key) for _ in range(6)]
    p = here.core.hub.partition(threads[0])
    contents, there = here.core.hub._contents, asyncio.Event()
    whole = contents.whole

    async def late(record: Any) -> Any:
        if record.topic == "parley.events" and record.header("ce_objects") is not None:
            await there.wait()
        return await whole(record)

    monkeypatch.setattr(contents, "whole", late)
    body = {"content": "x" * 400_000}
    async with watched(here, here.key) as before:
        await before.until(lambda client: client.cursor is not None)
        await ask(app, "POST", f"{CHAT}/threads/{threads[0]}/messages", key=here.key, body=body)
        await here.eventually(lambda: here.core.hub._held)
        client = ManyClient()
        async with watched(here, here.key, client) as watch:
            await watch.until(lambda client: client.cursor is not None)
            began = parse_vector(str(client.cursor)).next[p]
            there.set()
            await before.until(lambda client: client.seqs.get(threads[0]) == [2, 3, 4, 5])
            await post(here, here.key, threads[1], "after")
            await watch.until(lambda client: len(client.facts[threads[1]]) == 4)
            assert threads[0] not in client.facts or client.seqs[threads[0]][0] > 2
            assert parse_vector(str(client.cursor)).next[p] >= began


async def test_what_came_while_it_read_is_shown_once_and_in_order(here: World, monkeypatch: Any) -> None:
    """Messages are posted while a long past is read in pages, and between its last page and the first live fact."""
    here.dispatcher.play = say("ok")
    threads = [await new_thread(here, here.key) for _ in range(4)]
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    for turn in range(12):
        await post(here, here.key, threads[turn % 4], "past")
    read, turns = many.Many._page, iter(range(100))

    async def paged(self: many.Many, partition: int, out: list[bytes]) -> None:
        await post(here, here.key, threads[next(turns) % 4], "meanwhile")
        await read(self, partition, out)

    monkeypatch.setattr(many.Many, "_page", paged)
    async with watched(here, here.key, client, after=client.cursor) as watch:
        await watch.until(lambda client: sum(map(len, client.facts.values())) >= 4 * 12)
        await post(here, here.key, threads[0], "last")
        written = here.dispatcher.written
        await watch.until(lambda client: all(client.seqs[thread][-1] == len(written[thread]) for thread in threads))
        assert client.seqs == {thread: list(range(2, len(written[thread]) + 1)) for thread in threads}


async def test_of_a_thread_that_was_deleted_meanwhile_its_deletion_is_told(here: World) -> None:
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    thread = await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    await post(here, here.key, thread, "gone")
    assert (await ask(app, "DELETE", f"{CHAT}/threads/{thread}", key=here.key)).status == 204
    async with watched(here, here.key, after=client.cursor) as watch:
        await watch.sees("thread.deleted")
        assert b"gone" not in watch.exchange.body
        other = await new_thread(here, here.key)
        await watch.sees("thread.created")
        assert other


async def test_a_thread_that_was_deleted_meanwhile_is_no_hindrance_to_the_others(here: World) -> None:
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    first, second = [await new_thread(here, here.key) for _ in range(2)]
    both, client = f"{first},{second}", ManyClient()
    async with watched(here, here.key, client, threads=both) as watch:
        await watch.until(lambda client: client.cursor is not None)
    assert (await ask(app, "DELETE", f"{CHAT}/threads/{first}", key=here.key)).status == 204
    await post(here, here.key, second, "there")
    async with watched(here, here.key, client, threads=both, after=client.cursor) as watch:
        await watch.until(lambda client: len(client.facts) == 2 and len(client.facts[second]) == 4)
        assert [fact["type"] for fact in client.facts[first]] == ["thread.deleted"]
    bob = await new_key(here, "bob", "*")
    answer = await ask(app, "GET", f"{CHAT}/events", key=bob, params={"threads": both})
    assert (answer.status, answer.json()["details"]["threads"]) == (404, [first, second])


async def test_a_deletion_is_shown_live_of_a_thread_that_was_not_met(here: World) -> None:
    app = here.gateways[0][0]
    here.dispatcher.play = say("ok")
    mine, bob = await new_thread(here, here.key), await new_key(here, "bob", "*")
    bobs = await new_thread(here, bob)
    async with watched(here, here.key) as watch:
        assert (await ask(app, "DELETE", f"{CHAT}/threads/{bobs}", key=bob)).status == 204
        assert (await ask(app, "DELETE", f"{CHAT}/threads/{mine}", key=here.key)).status == 204
        [frame] = await watch.sees("thread.deleted")
        assert frame.data["thread_id"] == mine


# ---- what a run that was open needs


async def test_a_tools_result_tells_of_its_call_after_any_cut(here: World) -> None:
    """The frame of a result names the call's arguments, which an earlier fact has."""
    posted: list[Fact] = []

    async def play(dispatcher: Any, fact: Fact) -> None:
        posted.append(fact)
        call = dispatcher.called(fact)
        dispatcher.returned(fact, call, tool_block("look", call, {"at": "it"}))
        dispatcher.use(fact, call, "look", {"at": "it"}, "found")
        dispatcher.completed(fact)

    here.dispatcher.play = play
    thread = await new_thread(here, here.key)
    async with watched(here, here.key) as watch:
        await post(here, here.key, thread, "one")
        types = ("message.posted", "model.called", "model.returned", "tool.called", "tool.returned", "run.completed")
        frames = await watch.sees(*types)
    assert frames[4].data["tool_call"]["arguments"] == {"at": "it"}
    for place, frame in enumerate(frames):
        async with watched(here, here.key, after=frame.id) as again:
            rest = await again.sees(*types[place + 1 :])
            assert [one.data for one in rest] == [one.data for one in frames[place + 1 :]]


async def test_a_run_that_was_parked_or_forgotten_goes_on_as_if_it_had_not_been(here: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(many, "OPEN_LIMIT", 1)
    monkeypatch.setattr(owners, "THREADS_LIMIT", 1)
    here.dispatcher.play = silence
    app = here.gateways[0][0]
    threads = [await new_thread(here, here.key) for _ in range(3)]
    async with watched(here, here.key) as watch:
        for thread in threads:
            await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"})
        posted = [here.dispatcher.written[thread][-1] for thread in threads]
        dispatcher = here.dispatcher
        calls = [dispatcher.called(one) for one in posted]
        for one, call in zip(posted, calls, strict=True):
            dispatcher.returned(one, call, tool_block("look", call, {"at": one.stream}))
        for one, call in zip(posted, calls, strict=True):
            dispatcher.use(one, call, "look", {"at": one.stream}, "found")
            dispatcher.completed(one)
        await watch.until(lambda client: sum(map(len, client.facts.values())) == 3 * 6)
        results = [frame.data for frame in watch.frames if frame.type == "tool.returned"]
        assert {frame["thread_id"]: frame["tool_call"]["arguments"]["at"] for frame in results} == {
            thread: thread for thread in threads
        }


# ---- threads by name


async def test_named_threads_alone_are_shown_and_resumed(here: World) -> None:
    here.dispatcher.play = say("ok")
    threads = [await new_thread(here, here.key) for _ in range(5)]
    asked = ",".join(threads[:3])
    client = ManyClient()
    async with watched(here, here.key, client, threads=asked) as watch:
        for thread in threads[::-1]:
            await post(here, here.key, thread, "live")
        await watch.until(lambda client: sum(map(len, client.facts.values())) == 12)
    partitions = {here.core.hub.partition(thread) for thread in threads[:3]}
    assert set(parse_vector(str(client.cursor)).next) == partitions, "only the partitions concerned"
    for thread in threads:
        await post(here, here.key, thread, "later")
    async with watched(here, here.key, client, threads=asked, after=client.cursor) as watch:
        await post(here, here.key, threads[4], "not asked for")
        await post(here, here.key, threads[0], "live again")
        await watch.until(lambda client: sum(map(len, client.facts.values())) == 28)
        assert client.seqs == {
            threads[0]: list(range(2, 14)),
            threads[1]: list(range(2, 10)),
            threads[2]: list(range(2, 10)),
        }


async def test_each_named_thread_must_be_visible_or_nothing_is_shown(here: World) -> None:
    app = here.gateways[0][0]
    bob = await new_key(here, "bob", "*")
    bobs, own = await new_thread(here, bob), await new_thread(here, here.key)
    for names, status, code in (
        (f"{own},{bobs}", 404, "not_found"),
        (f"{own},x", 404, "not_found"),
        (f"{own},", 404, "not_found"),
        ("", 400, "invalid_request"),
        (",".join([own] * 102), 400, "invalid_request"),
        (",".join(["0" * 36] * 1 + [f"{n:036d}" for n in range(101)]), 400, "invalid_request"),
    ):
        answer = await ask(app, "GET", f"{CHAT}/events", key=here.key, params={"threads": names})
        assert (answer.status, answer.json()["error"]) == (status, code), names
    scoped = await new_key(here, "ann", "agent:scripted")
    other = await new_thread(here, here.key, "assistant")
    for params, status in (({"threads": own}, 200), ({"threads": f"{own},{other}"}, 403), (dict[str, str](), 403)):
        async with exchange(app, "GET", f"{CHAT}/events", key=scoped, params=params) as x:
            await x.until(lambda x: x.sends)
            assert x.status == status


# ---- texts


async def test_texts_say_where_they_belong_and_are_shown_as_they_grow(here: World) -> None:
    here.dispatcher.play = silence
    app = here.gateways[0][0]
    thread = await new_thread(here, here.key)
    async with watched(here, here.key, deltas=True) as watch:
        await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"})
        await watch.sees("message.posted")
        posted = here.dispatcher.written[thread][-1]
        call = here.dispatcher.called(posted)
        [called] = await watch.sees("model.called")
        for at, text in ((0, "Hällo "), (6, "wörld")):
            here.dispatcher.pieces(Piece(thread, call, 0, "text", at, text))
            [frame] = await watch.sees("text.delta")
            assert frame.id == called.id
            assert (frame.data["seq"], frame.data["block"], frame.data["at"], frame.data["delta"]) == (
                call,
                0,
                at,
                text,
            )
        here.dispatcher.returned(posted, call, Block(kind="text", text="Hällo wörld!"))
        rest, fact = await watch.sees("text.delta", "model.returned")
        assert (rest.data["at"], rest.data["delta"]) == (11, "!") and rest.id == called.id != fact.id
        here.dispatcher.completed(posted)
        await watch.sees("run.completed")
    assert here.core.hub.listening == 0


async def test_who_goes_on_from_the_id_of_a_text_misses_no_fact_and_has_the_text_whole(here: World) -> None:
    here.dispatcher.play = silence
    app = here.gateways[0][0]
    thread, other = await new_thread(here, here.key), await new_thread(here, here.key)
    async with watched(here, here.key, deltas=True) as watch:
        await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"})
        await watch.sees("message.posted")
        posted = here.dispatcher.written[thread][-1]
        call = here.dispatcher.called(posted)
        await watch.sees("model.called")
        await ask(app, "POST", f"{CHAT}/threads/{other}/messages", key=here.key, body={"content": "go"})
        await watch.sees("message.posted")
        here.dispatcher.pieces(Piece(thread, call, 0, "text", 0, "Hello"))
        [text] = await watch.sees("text.delta")
    async with watched(here, here.key, watch.client, after=text.id, deltas=True) as watch:
        here.dispatcher.returned(posted, call, Block(kind="text", text="Hello!"))
        await watch.sees("text.delta", "model.returned")
        assert watch.client.texts == {(thread, call, 0): "Hello!"}
        assert watch.client.seqs == {thread: [2, 3, 4], other: [2]}
    assert here.core.hub.listening == 0


async def test_who_asks_for_texts_in_the_middle_of_a_call_gets_them_with_its_fact(here: World) -> None:
    here.dispatcher.play = silence
    app = here.gateways[0][0]
    thread = await new_thread(here, here.key)
    await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"})
    posted = here.dispatcher.written[thread][-1]
    call = here.dispatcher.called(posted)
    async with watched(here, here.key, deltas=True) as watch:
        await watch.until(lambda client: client.cursor is not None)
        here.dispatcher.pieces(Piece(thread, call, 0, "text", 0, "not "))
        here.dispatcher.returned(posted, call, Block(kind="text", text="not shown before"))
        text, _ = await watch.sees("text.delta", "model.returned")
        assert (text.data["at"], text.data["delta"]) == (0, "not shown before")


@pytest.mark.parametrize("seed", range(6))
async def test_a_client_that_comes_and_goes_has_what_one_has_that_never_left(here: World, seed: int) -> None:
    """Promise 5 for many threads: texts, attempts that fail, tools, and cuts at any byte, at any of two gateways."""
    rng = random.Random(seed)
    await here.application()
    made = 0

    async def play(dispatcher: Any, posted: Fact) -> None:
        attempt = 1
        while rng.random() < 0.3:
            call = dispatcher.called(posted, attempt=attempt)
            dispatcher.speak(posted, call, ("half ", "an "))
            await asyncio.sleep(0)
            dispatcher.failed(posted, call, attempt)
            attempt += 1
        call = dispatcher.called(posted, attempt=attempt)
        words = tuple(f"wörd{rng.random():.3f} " for _ in range(rng.randrange(1, 9)))
        if rng.random() < 0.8:
            for word in range(len(words)):
                at = sum(map(len, words[:word]))
                dispatcher.pieces(Piece(posted.stream, call, 0, "text", at, words[word]))
                await asyncio.sleep(rng.choice((0, 0.001)))
        blocks = [Block(kind="text", text="".join(words))]
        if rng.random() < 0.5:
            blocks.append(tool_block("look", call, {"n": made}))
            dispatcher.returned(posted, call, *blocks)
            dispatcher.use(posted, call, "look", {"n": made}, "found", index=0)
        else:
            dispatcher.returned(posted, call, *blocks)
        dispatcher.completed(posted)

    here.dispatcher.play = play
    threads = [await new_thread(here, here.key) for _ in range(5)]
    app = here.gateways[0][0]
    named = ",".join(threads) if seed % 2 else None
    stayed, left = ManyClient(), ManyClient()

    def ended(client: ManyClient) -> int:
        return sum(fact["type"] == "run.completed" for facts in client.facts.values() for fact in facts)

    async with watched(here, here.key, stayed, threads=named, deltas=True) as whole:
        await whole.until(lambda client: client.cursor is not None)
        left.cursor = stayed.cursor
        for _ in range(25):
            for _ in range(rng.randrange(4)):
                path = f"{CHAT}/threads/{rng.choice(threads)}/messages"
                await ask(app, "POST", path, key=here.key, body={"content": f"m{made}"})
                made += 1
            cut = rng.randrange(1, 60)
            how: dict[str, Any] = {"gateway": rng.randrange(2), "threads": named, "deltas": True}
            async with watched(here, here.key, after=left.cursor, **how) as some:
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0.002)
                for part in some.exchange.parts[:cut]:
                    left.take(part)
        async with watched(here, here.key, left, after=left.cursor, gateway=1, threads=named, deltas=True) as last:
            await last.until(lambda client: ended(client) == made)
        await whole.until(lambda client: ended(client) == made)
    assert made > 10 and stayed.deltas > made
    assert left.facts == stayed.facts
    assert left.texts == stayed.texts
    for thread in threads:
        for fact in here.dispatcher.written[thread]:
            if isinstance(fact.body, f.ModelReturned):
                assert left.texts[thread, fact.body.call, 0] == fact.body.blocks[0].text


# ---- its end


async def test_a_revoked_key_reads_no_further_while_it_catches_up(here: World, monkeypatch: Any) -> None:
    app = here.gateways[0][0]
    here.dispatcher.play = say("ok")
    body = {"user": "ann", "scopes": ["*"]}
    made = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body=body)).json()
    client = ManyClient()
    async with watched(here, made["key"], client) as watch:
        await watch.until(lambda client: client.cursor is not None)
    thread = await new_thread(here, here.key)
    await post(here, here.key, thread, "read one by one")
    read = here.core.history.facts_between
    asked = 0

    async def slowly(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            await ask(app, "DELETE", f"/api/v1/keys/{made['id']}", key=here.admin_key)
            await here.eventually(lambda: here.core.auth._dead or True)
        return await read(*args, **{**options, "limit": 1})

    monkeypatch.setattr(here.core.history, "facts_between", slowly)
    async with watched(here, made["key"], client, after=client.cursor) as watch:
        await watch.exchange.end()
        assert len(watch.read()) <= 2 and asked == 2
    assert here.core.hub.listening == 0


async def test_a_feed_that_lags_ends_and_is_resumed_without_a_gap(here: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(ManyChannels, "enter", lambda *_: None)  # alone, it waits for its client
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    client = ManyClient()
    async with watched(here, here.key, client) as watch:
        await watch.until(lambda client: client.cursor is not None)
        watch.exchange.held.clear()
        [listener] = here.core.hub._hearing()
        listener._limits = type(listener._limits)(queue_items=3)
        for turn in range(4):
            await post(here, here.key, thread, f"m{turn}")
        watch.exchange.held.set()
        await watch.exchange.end()
        watch.read()
    assert 0 < len(client.seqs[thread]) < 16
    async with watched(here, here.key, client, after=client.cursor) as watch:
        await watch.until(lambda client: len(client.seqs[thread]) >= 16)
        assert client.seqs[thread] == list(range(2, 18))


async def test_an_idle_stream_tells_how_far_nothing_came_so_that_it_is_not_read_again() -> None:
    async with world(sockets=False, beat_s=0.05) as here:
        here.dispatcher.play = say("ok")
        foreign = make_key(OTHER, b"f" * 32)
        await here.workspace(OTHER, "other", {"api": foreign}, user="bob")
        theirs = await new_thread(here, foreign)
        client = ManyClient()
        p = here.core.hub.partition(theirs)
        async with watched(here, here.key, client) as watch:
            await watch.until(lambda client: client.cursor is not None)
            await post(here, foreign, theirs, "of another workspace")
            end = here.core.hub.reached[p]
            await watch.until(lambda client: parse_vector(str(client.cursor)).next[p] >= end)
            assert watch.frames == []
        here.past.asked.clear()
        async with watched(here, here.key, client, after=client.cursor) as watch:
            await watch.exchange.until(lambda x: x.parts)
            assert not any(path.endswith("/facts") for path in here.past.asked), "there is nothing to read"


async def test_a_feed_that_was_closed_does_not_tell_that_nothing_came(here: World) -> None:
    """What its queue did not take is still to be read."""
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    who = await here.core.auth.principal(f"Bearer {here.key}")
    feed = await many_feed(here.core, who, Placed, None, threads=None, pieces=False)
    [first] = await feed.take(0)
    feed.end()
    await post(here, here.key, thread, "not heard")
    assert feed.beat() == first and await feed.take(0) == [] and feed.over
    feed.close()

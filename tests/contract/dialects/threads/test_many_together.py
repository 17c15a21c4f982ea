"""Streams of many threads that watch the same: one feed for all of them, each client whole whatever the others do."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events.body import Block
from parley_events.pieces import Piece
from parley_gateway.dialects.threads.outbound import Placed
from parley_gateway.feed import outlet
from parley_gateway.feed.many_channel import ManyChannels
from tests.contract.dialects.threads.test_many import CHAT, RUN, Many, new_key, new_thread, post, watched
from tests.support.asgi import ask
from tests.support.many import ManyClient
from tests.unit.gateway.world import World, say, silence


def sizes(here: World) -> list[int]:
    """How many watch each channel."""
    return [len(channel) for channel in here.core.many_channels._open.values()]


async def joined(here: World, watch: Many, *expected: int) -> None:
    """Wait until the channels have so many members."""
    await watch.exchange.until(lambda _: (watch.read(), sorted(sizes(here)) == sorted(expected))[1])


def without_first(watch: Many) -> bytes:
    """What came after the place at which it began."""
    return b"".join(watch.exchange.parts[1:])


async def test_what_all_of_a_key_watch_is_made_once_and_sent_to_each(here: World, monkeypatch: Any) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    worded = 0
    word = Placed.__call__

    def counted(self: Placed, shown: Any) -> Any:
        nonlocal worded
        worded += 1
        return word(self, shown)

    monkeypatch.setattr(Placed, "__call__", counted)
    async with watched(here, here.key) as one, watched(here, here.key) as two, watched(here, here.key) as three:
        for watch in (one, two, three):
            await watch.until(lambda client: client.cursor is not None)
        assert sizes(here) == [3] and here.core.hub.listening == 1
        await post(here, here.key, thread, "hello")
        for watch in (one, two, three):
            await watch.sees(*RUN)
        assert worded == len(RUN)
        assert without_first(one) == without_first(two) == without_first(three)
        one.exchange.leave()
        await post(here, here.key, thread, "again")
        for watch in (two, three):
            await watch.sees(*RUN)
        assert without_first(two) == without_first(three)
    assert sizes(here) == [] and here.core.hub.listening == 0


async def test_who_sees_something_else_is_by_itself(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    other = await new_key(here, "bob", "*")
    async with (
        watched(here, here.key) as mine,
        watched(here, other) as bobs,
        watched(here, here.key, deltas=True) as texts,
        watched(here, here.key, threads=thread) as named,
    ):
        for watch in (mine, bobs, texts, named):
            await watch.until(lambda client: client.cursor is not None)
        assert sizes(here) == [1, 1, 1, 1]
        await post(here, here.key, thread, "hello")
        for watch in (mine, texts, named):
            await watch.until(lambda client: len(client.facts[thread]) == len(RUN))
        theirs = await new_thread(here, other)
        await bobs.sees("thread.created")
        assert [frame.data["thread_id"] for frame in bobs.frames] == [theirs]


async def test_who_takes_nothing_goes_on_alone_from_there_and_comes_back(here: World, monkeypatch: Any) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    monkeypatch.setattr(outlet, "BEHIND_BYTES", 500)
    async with watched(here, here.key) as quick, watched(here, here.key) as slow:
        await joined(here, quick, 2)
        slow.exchange.held.clear()
        for turn in range(4):
            await post(here, here.key, thread, f"m{turn}")
        await quick.until(lambda client: len(client.facts[thread]) == 4 * len(RUN))
        assert sizes(here) == [1], "nobody waits for it"
        slow.exchange.held.set()
        await slow.until(lambda client: len(client.facts[thread]) == 4 * len(RUN))
        await post(here, here.key, thread, "more")
        await joined(here, slow, 2)
        for watch in (quick, slow):
            await watch.until(lambda client: len(client.facts[thread]) == 5 * len(RUN))
            assert watch.client.seqs[thread] == list(range(2, 2 + 5 * len(RUN)))


async def test_a_revoked_key_ends_those_who_fell_behind_too(here: World, monkeypatch: Any) -> None:
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    made = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body={"user": "ann", "scopes": ["*"]})).json()
    key = made["key"]
    thread = await new_thread(here, key)
    monkeypatch.setattr(outlet, "BEHIND_BYTES", 0)
    async with watched(here, key) as quick, watched(here, key) as slow:
        await joined(here, quick, 2)
        slow.exchange.held.clear()
        await post(here, key, thread, "seen")
        await quick.sees(*RUN)
        assert sizes(here) == [1]
        seen = [part for part in quick.exchange.parts if b"data: " in part]
        await ask(app, "DELETE", f"/api/v1/keys/{made['id']}", key=here.admin_key)
        await quick.ends()
        here.dispatcher.append(thread, f.ThreadCleared())
        slow.exchange.held.set()
        await slow.exchange.end()
        assert [part for part in slow.exchange.parts if b"data: " in part] == seen


async def test_who_comes_while_a_text_grows_has_it_whole_and_is_with_the_others_then(here: World) -> None:
    here.dispatcher.play = silence
    thread = await new_thread(here, here.key)
    async with watched(here, here.key, deltas=True) as one:
        await one.until(lambda client: client.cursor is not None)
        await ask(
            here.gateways[0][0], "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "go"}
        )
        posted = here.dispatcher.written[thread][-1]
        call = here.dispatcher.called(posted)
        here.dispatcher.pieces(Piece(thread, call, 0, "text", 0, "Hello "))
        await one.until(lambda client: client.texts.get((thread, call, 0)) == "Hello ")
        async with watched(here, here.key, deltas=True) as two:
            await two.until(lambda client: client.cursor is not None)
            assert sizes(here) == [1], "it was not told what the others were"
            here.dispatcher.pieces(Piece(thread, call, 0, "text", 6, "world"))
            await one.until(lambda client: client.texts.get((thread, call, 0)) == "Hello world")
            here.dispatcher.returned(posted, call, Block(kind="text", text="Hello world!"))
            for watch in (one, two):
                await watch.until(lambda client: client.texts.get((thread, call, 0)) == "Hello world!")
            await joined(here, two, 2)
            here.dispatcher.completed(posted)
            for watch in (one, two):
                await watch.until(lambda client: client.facts[thread][-1]["type"] == "run.completed")


async def test_a_stream_that_is_ended_early_ends_no_other(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    async with watched(here, here.key) as first, watched(here, here.key) as second:
        await joined(here, second, 2)
        opened, _ = list(here.core.rotation._open)
        opened.rotate(300)
        await first.exchange.end()
        first.read()
        assert first.client.retry_ms == 300 and first.exchange.over
        await post(here, here.key, thread, "hello")
        await second.sees(*RUN)
        client = ManyClient()
        async with watched(here, here.key, client, after=first.client.cursor) as again:
            await again.sees(*RUN)
            await joined(here, again, 2)


async def test_when_the_feed_of_all_fails_each_goes_on_by_its_cursor(here: World, monkeypatch: Any) -> None:
    here.dispatcher.play = say("ok")
    thread = await new_thread(here, here.key)
    async with watched(here, here.key) as one, watched(here, here.key) as two:
        await joined(here, two, 2)
        with monkeypatch.context() as broken:
            broken.setattr(Placed, "__call__", None)
            await post(here, here.key, thread, "hello")
            for watch in (one, two):
                await watch.ends()
        async with watched(here, here.key, one.client, after=one.client.cursor) as again:
            await again.sees(*RUN)
    assert isinstance(here.core.many_channels, ManyChannels) and len(here.core.many_channels) == 0

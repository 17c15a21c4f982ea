"""Channels: many who watch the same are written the same bytes, whenever they came, however slow they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.commands import MarkRead
from parley_events.pieces import Piece
from parley_gateway.feed.listener import Item
from tests.contract.dialects.test_rights import new_key
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of, text_of
from tests.unit.gateway.world import World, run_id_of, silence, world

CHAT = "/api/v1/chat"
WORDS = ("The ", "quick ", "brown ", "fox ", "jümps", ".")


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.dispatcher.play = silence
        yield made


async def posted(here: World) -> Fact:
    app = here.gateways[0][0]
    thread = (await ask(app, "POST", f"{CHAT}/threads", key=here.key, body={"agent_id": "scripted"})).json()["id"]
    await ask(app, "POST", f"{CHAT}/threads/{thread}/messages", key=here.key, body={"content": "hi"})
    return next(fact for fact in here.dispatcher.written[thread] if fact.type == "message.posted")


def watch(here: World, fact: Fact, **options: Any) -> Any:
    path = f"{CHAT}/runs/{run_id_of(fact)}/events"
    return exchange(here.gateways[0][0], "GET", path, **{"key": here.key, **options})


def frames(x: Exchange) -> list[Frame]:
    return [frame_of(part) for part in x.parts if not part.startswith(b":")]


def channels(here: World) -> list[int]:
    """How many watch each channel."""
    return [len(channel) for channel in here.core.channels._open.values()]


async def shows(x: Exchange, text: str) -> None:
    await x.until(lambda x: text_of(frames(x)).endswith(text))


def has(x: Exchange, length: int) -> bool:
    return len(text_of(frames(x))) == length


async def test_all_who_watch_a_run_share_one_channel_and_get_the_same_bytes(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    async with AsyncExitStack() as stack:
        early = [await stack.enter_async_context(watch(here, fact)) for _ in range(3)]
        await here.eventually(lambda: channels(here) == [3])
        assert here.core.hub.listening == 1
        call = d.called(fact)
        d.speak(fact, call, WORDS[:3])
        for x in early:
            await shows(x, WORDS[2])
        late = [await stack.enter_async_context(watch(here, fact)) for _ in range(2)]
        await here.eventually(lambda: channels(here) == [5])
        d.pieces(Piece(fact.stream, call, 0, "text", len("".join(WORDS[:3])), "".join(WORDS[3:])))
        d.returned(fact, call, Block(kind="text", text="".join(WORDS)))
        d.completed(fact)
        for x in (*early, *late):
            await x.end()
            assert x.over and text_of(frames(x)) == "".join(WORDS)
            assert frames(x)[-1].type == "run.completed"
        assert early[0].parts == early[1].parts == early[2].parts
        tail = [part for part in early[0].parts if b"run.completed" in part or b"model.returned" in part]
        assert all([part for part in x.parts if part in tail] == tail for x in late)
    assert channels(here) == [] and here.core.hub.listening == 0


async def test_who_takes_nothing_for_a_while_gets_everything_in_order_later(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    async with watch(here, fact) as slow, watch(here, fact) as quick:
        await here.eventually(lambda: channels(here) == [2])
        call = d.called(fact)
        await slow.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
        slow.held.clear()
        at = 0
        for word in WORDS * 5:
            d.pieces(Piece(fact.stream, call, 0, "text", at, word))
            at += len(word)
            await shows(quick, word)
        assert text_of(frames(slow)) == ""
        slow.held.set()
        await shows(slow, WORDS[-1])
        await here.eventually(lambda: text_of(frames(slow)) == "".join(WORDS * 5))
        d.returned(fact, call, Block(kind="text", text="".join(WORDS * 5)))
        d.completed(fact)
        await asyncio.gather(slow.end(), quick.end())
        assert slow.parts == quick.parts


async def test_a_revoked_key_ends_its_own_streams_of_a_channel_alone(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    key_id, key = await new_key(here, ("*",))
    async with watch(here, fact) as stays, watch(here, fact, key=key) as goes:
        await here.eventually(lambda: channels(here) == [2])
        await ask(here.gateways[0][0], "DELETE", f"/api/v1/keys/{key_id}", key=here.admin_key)
        await goes.end()
        assert goes.over and channels(here) == [1]
        d.completed(fact)
        await stays.end()
        assert frames(stays)[-1].type == "run.completed" and frames(goes)[-1].type != "run.completed"


async def test_who_began_a_channel_may_leave_it(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    async with watch(here, fact) as other:
        async with watch(here, fact) as first:
            await here.eventually(lambda: channels(here) == [2])
            first.leave()
            d.called(fact)
        call = d.called(fact, attempt=2)
        d.speak(fact, call, WORDS)
        d.returned(fact, call, Block(kind="text", text="".join(WORDS)))
        d.completed(fact)
        await other.end()
        kinds = [frame.type for frame in frames(other)]
        assert kinds.count("run.restarted") == 1 and kinds[-1] == "run.completed"
        assert text_of(frames(other)) == "".join(WORDS)
    assert channels(here) == []


async def test_contracts_and_options_do_not_share(here: World) -> None:
    """The same run in several words, with and without tools; and a thread beside its run."""
    d, fact = here.dispatcher, await posted(here)
    app, run = here.gateways[0][0], run_id_of(fact)
    paths = (
        f"{CHAT}/runs/{run}/events",
        f"{CHAT}/threads/{fact.stream}/events",
        f"/agents/scripted/runs/{run}/events",
        f"/agents/scripted/runs/{run}/events?events=all",
        f"/api/org/chat/runs/{run}/events",
    )
    async with AsyncExitStack() as stack:
        open_ = []
        for path in paths:
            bare, _, asked = path.partition("?")
            params = dict([asked.split("=")]) if asked else {}
            open_.append(await stack.enter_async_context(exchange(app, "GET", bare, key=here.key, params=params)))
        await here.eventually(lambda: channels(here) == [1] * len(paths))
        call = d.called(fact)
        d.speak(fact, call, WORDS)
        d.returned(fact, call, Block(kind="text", text="".join(WORDS)))
        d.completed(fact)
        for path, x in zip(paths, open_, strict=True):
            await x.until(lambda x: b"".join(x.parts).count("jümps".encode()) > 0)
            assert (b'"text.delta"' in x.body) == path.startswith(CHAT)
    assert channels(here) == []


async def test_a_gateway_that_stops_ends_everyone(here: World) -> None:
    fact = await posted(here)
    async with watch(here, fact) as one, watch(here, fact) as two:
        await here.eventually(lambda: channels(here) == [2])
        here.core.hub.drain()
        await asyncio.gather(one.end(), two.end())
        assert one.over and two.over


async def test_facts_that_are_missing_are_read_for_all(here: World) -> None:
    """A tail that skipped a record: the hole is noticed, and healed from history."""
    d, fact = here.dispatcher, await posted(here)
    async with watch(here, fact) as one, watch(here, fact) as two:
        await here.eventually(lambda: channels(here) == [2])
        [channel] = here.core.channels._open.values()
        feed, lost = channel._feed, list[Fact]()
        grab = feed.grab

        def losing() -> list[Item]:
            items = grab()
            lost.extend(item for item in items if isinstance(item, Fact) and item.type == "model.called")
            return [item for item in items if item not in lost]

        feed.grab = losing  # type: ignore[method-assign]
        call = d.called(fact)
        d.returned(fact, call, Block(kind="text", text="whole"))
        d.completed(fact)
        await asyncio.gather(one.end(), two.end())
        assert lost and one.parts == two.parts
        assert [frame.type for frame in frames(one)][1:] == [
            "model.called",
            "text.delta",
            "model.returned",
            "run.completed",
        ]


async def test_who_was_not_shown_the_beginning_goes_on_alone_until_the_fact(here: World) -> None:
    """The gateway has kept no pieces: who comes in the middle of a call is silent until its fact, and joins then."""
    app = await here.application(kept_mb=0)
    core = app.state.core
    d, fact = here.dispatcher, await posted(here)
    path = f"{CHAT}/runs/{run_id_of(fact)}/events"
    async with exchange(app, "GET", path, key=here.key) as early:
        await here.eventually(lambda: len(core.channels) == 1)
        call = d.called(fact)
        d.speak(fact, call, WORDS[:3])
        await shows(early, WORDS[2])
        async with exchange(app, "GET", path, key=here.key) as late:
            await late.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
            at = len("".join(WORDS[:3]))
            for word in WORDS[3:]:
                d.pieces(Piece(fact.stream, call, 0, "text", at, word))
                at += len(word)
                await shows(early, word)
            assert text_of(frames(late)) == ""
            assert [len(one) for one in core.channels._open.values()] == [1]
            d.returned(fact, call, Block(kind="text", text="".join(WORDS)))
            await shows(late, WORDS[-1])
            await here.eventually(lambda: [len(one) for one in core.channels._open.values()] == [2])
            d.completed(fact)
            await asyncio.gather(early.end(), late.end())
            for x in (early, late):
                assert text_of(frames(x)) == "".join(WORDS) and frames(x)[-1].type == "run.completed"


async def test_each_of_those_who_watch_knows_how_the_run_ended(here: World) -> None:
    """The first may only read; the second is the one who asked, and what it was shown to the end is read."""
    d, fact = here.dispatcher, await posted(here)
    _, reading = await new_key(here, ("read",))
    path = f"/agents/scripted/runs/{run_id_of(fact)}/events"
    app = here.gateways[0][0]
    async with exchange(app, "GET", path, key=reading) as first:
        await here.eventually(lambda: channels(here) == [1])
        async with exchange(app, "GET", path, key=here.key) as asker:
            await here.eventually(lambda: channels(here) == [2])
            end = d.completed(fact)
            await asyncio.gather(first.end(), asker.end())
    await here.eventually(lambda: any(isinstance(command.body, MarkRead) for command in d.heard))
    [mark] = [command.body for command in d.heard if isinstance(command.body, MarkRead)]
    assert mark.up_to == end.seq


async def test_what_cannot_be_shown_ends_the_streams_and_leaves_no_gap(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    async with watch(here, fact) as one, watch(here, fact) as two:
        await here.eventually(lambda: channels(here) == [2])
        [channel] = here.core.channels._open.values()

        def broken(shown: Any) -> Any:
            raise RuntimeError("a mistake")

        channel._show = broken
        d.completed(fact)
        await asyncio.gather(one.end(), two.end())
        assert one.over and two.over and frames(one)[-1].type == "message.posted"
        async with watch(here, fact, headers={"Last-Event-ID": str(frames(one)[-1].id)}) as again:
            await again.end()
            assert [frame.type for frame in frames(again)] == ["run.completed"]


async def test_one_who_cannot_be_written_to_is_cut_off_alone(here: World) -> None:
    d, fact = here.dispatcher, await posted(here)
    async with watch(here, fact) as goes, watch(here, fact) as stays:
        await here.eventually(lambda: channels(here) == [2])
        [channel] = here.core.channels._open.values()
        first = next(iter(channel._members))

        def send(message: Any) -> Any:
            async def breaks() -> None:
                raise RuntimeError("a mistake")

            return breaks()

        first._outlet._send = send  # type: ignore[attr-defined]
        call = d.called(fact)
        d.returned(fact, call, Block(kind="text", text="whole"))
        d.completed(fact)
        await asyncio.gather(goes.end(), stays.end(), return_exceptions=True)
        ends = [frames(x)[-1].type for x in (goes, stays)]
        assert sorted(ends) == ["message.posted", "run.completed"]

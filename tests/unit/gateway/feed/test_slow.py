"""Slow clients: they lose smoothness first, then the connection, never a fact; and nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from parley_gateway.feed.channel import Channel
from parley_gateway.feed.cursor import START
from parley_gateway.feed.follow import Follow, ShownText, merged
from parley_gateway.feed.join import gathered
from parley_gateway.feed.outlet import BEHIND_BYTES, Outlet, message_of
from tests.support.asgi import Exchange, exchange
from tests.support.sse import text_of
from tests.unit.gateway.feed.test_channel import CHAT, frames, has, posted
from tests.unit.gateway.world import World, run_id_of, silence, tool_block, world

COUNT = 200
WORDS = [f"{number:05d} é😀" * 60 for number in range(COUNT)]
TEXT = "".join(WORDS)


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.dispatcher.play = silence
        yield made


def channels(app: FastAPI) -> list[Channel]:
    return list(app.state.core.channels._open.values())


def sizes(app: FastAPI) -> list[int]:
    """How many watch each channel."""
    return [len(channel) for channel in channels(app)]


def outlets(channel: Channel) -> list[Outlet]:
    """Of its members, in the order in which they came."""
    return [member._outlet for member in channel._members]  # type: ignore[attr-defined]


class Watching:
    """Those who watch one run of a gateway, each in a channel, the first of whom began it."""

    def __init__(self, here: World, app: FastAPI, fact: Fact, stack: AsyncExitStack) -> None:
        self.here, self.app, self.fact, self._stack = here, app, fact, stack
        self._at = 0

    async def come(self, last_id: str | None = None, path: str = "") -> Exchange:
        """One more; it is a member of the one channel once it is here."""
        path = path or f"{CHAT}/runs/{run_id_of(self.fact)}/events"
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        made = exchange(self.app, "GET", path, key=self.here.key, headers=headers)
        there = sum(sizes(self.app))
        x = await self._stack.enter_async_context(made)
        await self.here.eventually(lambda: sum(sizes(self.app)) == there + 1)
        return x

    async def speak(self, call: int, words: list[str], *quick: Exchange) -> None:
        """Say these words, as many pieces; all who are `quick` have each of them before the next comes."""
        for word in words:
            self.here.dispatcher.pieces(Piece(self.fact.stream, call, 0, "text", self._at, word))
            self._at += len(word)
            for x in quick:
                await x.until(partial(has, length=self._at))


@pytest.fixture
async def watching(here: World) -> AsyncIterator[Watching]:
    fact = await posted(here)
    async with AsyncExitStack() as stack:
        yield Watching(here, here.gateways[0][0], fact, stack)


async def test_a_slow_one_gets_its_text_in_fewer_frames_and_then_keeps_up_again(watching: Watching) -> None:
    d, fact, app = watching.here.dispatcher, watching.fact, watching.app
    slow, quick = await watching.come(), await watching.come()
    call = d.called(fact)
    await slow.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
    [channel] = channels(app)
    [outlet, _] = outlets(channel)
    slow.held.clear()
    await watching.speak(call, WORDS[:-1], quick)
    assert sizes(app) == [1] and len(frames(quick)) == COUNT + 1, "the other is shown every piece, at once"
    assert outlet._kept_bytes < BEHIND_BYTES + 2000
    slow.held.set()
    await slow.until(partial(has, length=len("".join(WORDS[:-1]))))
    await watching.here.eventually(lambda: sizes(app) == [2])
    assert channels(app) == [channel], "it is a member again"
    before = len(frames(slow))
    await watching.speak(call, WORDS[-1:], quick, slow)
    assert len(frames(slow)) == before + 1
    d.returned(fact, call, Block(kind="text", text=TEXT))
    d.completed(fact)
    await asyncio.gather(slow.end(), quick.end())
    assert text_of(frames(slow)) == text_of(frames(quick)) == TEXT
    assert before < COUNT / 2
    assert slow.parts[-3:] == quick.parts[-3:]


@pytest.mark.parametrize("first", [True, False], ids=["who began the channel", "who came later"])
async def test_one_that_falls_behind_is_told_all_facts_as_the_others_are(watching: Watching, first: bool) -> None:
    """What its words were told before it fell behind, they know later: here the arguments of open calls. And what it
    is told then, the words of the others are not told."""
    d, fact, app = watching.here.dispatcher, watching.fact, watching.app
    one, two = await watching.come(), await watching.come()
    slow, quick = (one, two) if first else (two, one)
    call = d.called(fact)
    await slow.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
    blocks = [tool_block("clock", call, {"zone": "é😀"}), tool_block("search", call, {"query": "all"})]
    d.returned(fact, call, *blocks)
    for index in range(2):
        d.append(fact.stream, _called(fact, call, index, blocks[index]))
    await slow.until(lambda x: sum(frame.type == "tool.called" for frame in frames(x)) == 2)
    slow.held.clear()
    second = d.called(fact, turn=1)
    await watching.speak(second, WORDS[:100], quick)
    assert sizes(app) == [1]
    d.append(fact.stream, _returned(fact, call, 0, blocks[0]))
    await quick.until(lambda x: frames(x)[-1].type == "tool.returned")
    slow.held.set()
    await watching.here.eventually(lambda: sizes(app) == [2])
    d.append(fact.stream, _returned(fact, call, 1, blocks[1]))
    d.returned(fact, second, Block(kind="text", text="".join(WORDS[:100])), turn=1)
    d.completed(fact)
    await asyncio.gather(slow.end(), quick.end())
    told = [[frame.data for frame in frames(x) if frame.type != "text.delta"] for x in (slow, quick)]
    assert told[0] == told[1]
    results = [frame["tool_call"]["arguments"] for frame in told[0] if frame["type"] == "tool.returned"]
    assert results == [{"zone": "é😀"}, {"query": "all"}]
    assert text_of(frames(slow)) == text_of(frames(quick))


def _called(fact: Fact, call: int, index: int, block: Block) -> f.ToolCalled:
    place: dict[str, Any] = {
        "run_id": run_id_of(fact),
        "call": call,
        "index": index,
        "tool_call_id": block.tool_call_id,
    }
    more = {"name": block.name, "arguments": block.arguments, "effect": "read_only", "effect_key": "k"}
    return f.ToolCalled.model_validate({**place, **more})


def _returned(fact: Fact, call: int, index: int, block: Block) -> f.ToolReturned:
    place: dict[str, Any] = {
        "run_id": run_id_of(fact),
        "call": call,
        "index": index,
        "tool_call_id": block.tool_call_id,
    }
    return f.ToolReturned.model_validate({**place, "name": block.name, "status": "ok", "result": "r"})


async def test_a_stuck_one_is_cut_off_after_the_limit_and_has_all_once_it_comes_back(watching: Watching) -> None:
    app = watching.app = await watching.here.application(stall_s=2.0)
    d, fact, counts = watching.here.dispatcher, watching.fact, app.state.core.hub.counts
    stuck, quick = await watching.come(), await watching.come()
    call = d.called(fact)
    await stuck.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
    stuck.held.clear()
    await watching.speak(call, WORDS[:120], quick)
    await watching.here.eventually(lambda: counts.stalled == 1)
    assert not stuck.over and counts.closed == 0
    stuck.held.set()
    again = await watching.come(str(frames(stuck)[-1].id))
    await watching.speak(call, WORDS[120:], quick, again)
    d.returned(fact, call, Block(kind="text", text=TEXT))
    d.completed(fact)
    await asyncio.gather(again.end(), quick.end())
    assert text_of(frames(stuck) + frames(again)) == text_of(frames(quick)) == TEXT
    facts = [[frame.data for frame in seen if frame.type != "text.delta"] for seen in (frames(stuck), frames(quick))]
    assert facts[0] + [frame.data for frame in frames(again) if frame.type != "text.delta"] == facts[1]


async def test_what_waits_for_a_slow_one_is_bounded_and_it_loses_the_connection_never_a_fact(
    watching: Watching,
) -> None:
    """Pieces go first, since the fact has their text; where facts alone are too many, the stream ends."""
    app = watching.app = await watching.here.application(queue_items=50)
    d, fact, core = watching.here.dispatcher, watching.fact, app.state.core
    slow, quick = await watching.come(), await watching.come()
    call = d.called(fact)
    await slow.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
    slow.held.clear()
    await watching.speak(call, WORDS, quick)
    [listener] = [one for one in core.hub._listeners[fact.stream] if one.call != channels(app)[0]._wake]
    assert listener.queued[0] == 50 and core.hub.counts.pieces > 0 and not listener.closed
    d.returned(fact, call, Block(kind="text", text=TEXT))
    await quick.until(lambda x: frames(x)[-1].type == "model.returned")
    assert listener.queued[0] == 1, "what the fact says anyway was let go of"
    for number in range(60):
        end = d.append(fact.stream, f.ThreadUpdated(title=str(number), changes=("title",)))
        await watching.here.eventually(partial(_has_come, app, end))
    assert core.hub.counts.closed == 1 and listener.queued[0] == 50
    d.completed(fact)
    await quick.end()
    slow.held.set()
    await slow.end()
    assert slow.over and frames(slow)[-1].type == "model.returned"
    again = exchange(
        app, "GET", f"{CHAT}/runs/{run_id_of(fact)}/events", key=watching.here.key, headers={"Last-Event-ID": "4"}
    )
    async with again as rest:
        await rest.end()
    assert [frame.type for frame in frames(rest)] == ["run.completed"]
    assert text_of(frames(slow)) == text_of(frames(quick)) == TEXT


def _has_come(app: FastAPI, fact: Fact) -> bool:
    """Whether the gateway's hub has read the fact."""
    seq = fact.seq or 0
    return all(channel._feed._follow.seq >= seq for channel in channels(app))


async def test_what_comes_in_one_turn_for_one_that_takes_nothing_is_bounded_too() -> None:
    """Facts that were missing come all at once: a channel lets go of nobody in between."""

    async def never() -> Any:
        await asyncio.get_running_loop().create_future()

    outlet = Outlet(lambda message: never(), never, 30.0, 100)
    now = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20), outlet.watched():
            for _ in range(3):
                assert outlet.write(message_of(b"x" * 60), now)
            await outlet.catch_up()
    assert asyncio.get_running_loop().time() < now + 10


async def test_what_comes_for_one_that_was_just_given_up_harms_nobody() -> None:
    """Whoever writes to it writes to others, too, and must not learn of it by an error."""

    async def never() -> Any:
        await asyncio.get_running_loop().create_future()

    outlet, written = Outlet(lambda message: never(), never, 30.0, 100), list[bool]()
    now = asyncio.get_running_loop().time()

    def write() -> None:
        written.append(outlet.write(message_of(b"x" * 60), now))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20), outlet.watched():
            for _ in range(3):
                write()
            # Its time is over by then, and its task has not heard of that.
            asyncio.get_running_loop().call_soon(write)
            await outlet.catch_up()
    assert written == [True] * 4


async def test_a_socket_that_is_not_read_for_a_while_loses_nothing() -> None:
    """On a real server: its buffers are full, what comes waits, and comes in order, put together, once the client
    reads."""
    async with world() as here:
        d, fact = here.dispatcher, None
        d.play = silence
        async with here.client() as client:
            thread = (await client.post(f"{CHAT}/threads", json={"agent_id": "scripted"})).json()["id"]
            assert (await client.post(f"{CHAT}/threads/{thread}/messages", json={"content": "hi"})).status_code == 202
            fact = next(fact for fact in d.written[thread] if fact.type == "message.posted")
            where = urlsplit(here.gateways[0][1])
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.connect((where.hostname, where.port))
            reader, writer = await asyncio.open_connection(sock=small, limit=1024)
            path = f"{CHAT}/runs/{run_id_of(fact)}/events"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.key}\r\n\r\n".encode())
            async with client.stream("GET", path) as quick:
                await here.eventually(lambda: sizes(here.gateways[0][0]) == [2])
                call = d.called(fact)
                text = ""
                for number in range(100):
                    word = f"{number:05d}" * 10_000
                    d.pieces(Piece(thread, call, 0, "text", len(text), word))
                    text += word
                    await asyncio.sleep(0)
                d.returned(fact, call, Block(kind="text", text=text))
                d.completed(fact)
                whole = b"".join([part async for part in quick.aiter_bytes()])
            got = bytearray()
            async with asyncio.timeout(20):
                while b'"run.completed"' not in got[-5000:]:
                    some = await reader.read(1 << 20)
                    assert some, "the stream has ended"
                    got += some
            writer.close()
        sent = b"".join(got.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
        told, mine = frames_in(whole), frames_in(sent)
        assert text_in(told) == text_in(mine) == text
        facts = [[frame for frame in seen if frame["type"] != "text.delta"] for seen in (told, mine)]
        assert facts[0] == facts[1]
        assert here.core.hub.counts.stalled == 0 and len(mine) < len(told)


def frames_in(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]


def text_in(seen: list[dict[str, Any]]) -> str:
    return "".join(frame["delta"] for frame in seen if frame["type"] == "text.delta")


async def test_texts_that_come_by_turns_are_put_together_too(watching: Watching) -> None:
    d, fact, app = watching.here.dispatcher, watching.fact, watching.app
    slow, quick = await watching.come(), await watching.come()
    call = d.called(fact)
    await slow.until(lambda x: any(frame.type == "model.called" for frame in frames(x)))
    slow.held.clear()
    for number in range(COUNT):
        pieces = [Piece(fact.stream, call, block, "text", number * 300, "ab"[block] * 300) for block in range(2)]
        d.pieces(*pieces)
        await quick.until(partial(has, length=number * 600 + 600))
    assert sizes(app) == [1]
    slow.held.set()
    await slow.until(partial(has, length=COUNT * 600))
    said = [text_of(frames(x)) for x in (slow, quick)]
    assert [text.count("a") for text in said] == [text.count("b") for text in said] == [COUNT * 300] * 2
    assert len(frames(slow)) < COUNT < 2 * COUNT <= len(frames(quick))


def test_what_several_runs_say_side_by_side_is_put_together_for_who_let_it_wait() -> None:
    """Three members of a team speak at once: each block is one text, in the order of its turn, between the facts."""
    thread = "0f0f0f0f-1111-4222-8333-444444444444"
    pieces = [
        Piece(thread, call, block, "text", at, f"{call}{block}{at}", 9 if block else 0)
        for block in range(2)
        for at in range(0, 9, 3)
        for call in (1, 2, 3)
    ]
    facts = [
        Fact(
            "x",
            thread,
            seq,
            0,
            "w",
            0,
            f.ModelCalled(run_id=f"r{seq}", turn=0, attempt=1, agent_id="a", agent_version=1, model="m", shown=1),
            run_id=f"r{seq}",
        )
        for seq in range(1, 5)
    ]
    items: list[Any] = [*facts[:3], *pieces, facts[3], *pieces]
    follow = Follow(None, START)
    shown = [
        one
        for item in gathered(items)
        for one in (follow.piece(item) if isinstance(item, Piece) else follow.fact(item))
    ]
    texts = [(one.call, one.block, one.text) for one in merged(shown) if isinstance(one, ShownText)]
    assert texts == [
        (call, block, f"{call}{block}0{call}{block}3{call}{block}6") for block in range(2) for call in (1, 2, 3)
    ]
    assert [item for item in gathered(items) if isinstance(item, Fact)] == facts

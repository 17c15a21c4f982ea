"""The ends of open streams are spread over the time that there is, and each is told when to come back."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_gateway.app import drain
from parley_gateway.feed.rotation import RETRY_MS, Rotation, plan
from tests.support.asgi import ask, exchange
from tests.unit.gateway.world import say, silence, world

CHAT = "/api/v1/chat"


class Stream:
    def __init__(self, endless: bool = True) -> None:
        self.endless = endless
        self.retry_ms: int | None = None

    def rotate(self, retry_ms: int) -> None:
        self.retry_ms = retry_ms


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 2**32))
def test_each_has_a_part_of_the_time_and_what_ends_by_itself_comes_last(kinds: list[bool], seed: int) -> None:
    streams = [Stream(endless) for endless in kinds]
    planned = plan(streams, 8.0, random.Random(seed).random)
    assert {stream for _, stream in planned} == set(streams)
    part = 8.0 / len(streams)
    assert all(place * part <= at <= (place + 1) * part for place, (at, _) in enumerate(planned))
    assert [stream.endless for _, stream in planned] == sorted(kinds, reverse=True)


def test_there_is_jitter() -> None:
    planned = plan([Stream() for _ in range(1000)], 10.0, random.Random(1).random)
    pauses = [later - at for (at, _), (later, _) in pairwise(planned)]
    assert max(pauses) > 1.5 * 0.01 and min(pauses) < 0.5 * 0.01


class Timers:
    """`call_later` of a loop whose time a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.due: list[tuple[float, Any, tuple[Any, ...]]] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self._later)

    def _later(self, after_s: float, call: Any, *args: Any) -> Any:
        self.due.append((after_s, call, args))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def move_to(self, time_s: float) -> None:
        now = sorted((one for one in self.due if one[0] <= time_s), key=lambda one: one[0])
        self.due = [one for one in self.due if one[0] > time_s]
        for _, call, args in now:
            call(*args)


async def test_streams_end_in_their_turn_and_who_is_left_ends_last(monkeypatch: pytest.MonkeyPatch) -> None:
    over: list[bool] = []
    rotation = Rotation(random.Random(2).random)
    streams = [Stream() for _ in range(100)]
    with monkeypatch.context() as patched:
        timers = Timers(patched)
        for stream in streams:
            rotation.enter(stream)
        rotation.begin(10.0, lambda: over.append(True))
        rotation.begin(10.0, lambda: over.append(False))
        for second in range(1, 11):
            ended = sum(stream.retry_ms is not None for stream in streams)
            assert abs(ended - 10 * (second - 1)) <= 1, "evenly"
            timers.move_to(second - 0.001)
        gone, late = streams[-1], Stream()
        gone.retry_ms = None
        rotation.leave(gone)
        rotation.enter(late)
        timers.move_to(10.0)
    assert over == [True] and gone.retry_ms is None and late.retry_ms is not None
    hints = [stream.retry_ms or 0 for stream in streams[:-1]]
    assert RETRY_MS[0] <= min(hints) and max(hints) < RETRY_MS[1] and len(set(hints)) > 50


async def test_a_stream_ends_between_two_frames_with_a_hint_and_nothing_new_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(sockets=False) as here:
        here.dispatcher.play = silence
        app = here.gateways[0][0]
        made = (await ask(app, "POST", f"{CHAT}/threads", key=here.key, body={"agent_id": "scripted"})).json()
        body = {"content": "go"}
        path = f"{CHAT}/threads/{made['id']}"
        said = (await ask(app, "POST", f"{path}/messages", key=here.key, body=body)).json()
        paths = (f"{path}/events", f"{CHAT}/runs/{said['run_id']}/events", f"{CHAT}/events")
        with monkeypatch.context() as patched:
            async with (
                exchange(app, "GET", paths[0], key=here.key) as thread,
                exchange(app, "GET", paths[1], key=here.key) as run,
                exchange(app, "GET", paths[2], key=here.key) as many,
                exchange(app, "POST", f"{path}/messages", key=here.key, body=body, params={"wait": "30"}) as waiting,
            ):
                for one, count in ((thread, 2), (run, 1), (many, 1)):
                    await one.until(lambda x, count=count: len(x.parts) >= count)
                await here.eventually(lambda: len(here.dispatcher.written[made["id"]]) == 3)
                await thread.until(lambda x: len(x.parts) == 3)
                timers = Timers(patched)
                drain(app, 6.0)
                refused = await ask(app, "GET", paths[0], key=here.key)
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                assert not (thread.over or run.over or many.over)
                timers.move_to(4.0)
                await thread.until(lambda x: x.over)
                await many.until(lambda x: x.over)
                assert not run.over and not waiting.sends, "what may end by itself is left for last"
                posted = here.dispatcher.written[made["id"]][1]
                call = here.dispatcher.called(posted)
                await run.until(lambda x: b"model.called" in x.body)
                assert call
                timers.move_to(6.0)
                await run.until(lambda x: x.over)
                await waiting.until(lambda x: x.over)
                assert waiting.status == 202
        for one in (thread, run, many):
            last = one.sends[-1]["body"]
            assert last.startswith(b"retry: ") and last.endswith(b"\n\n") and int(last[7:]) in range(*RETRY_MS)
        assert here.core.hub.counts.streams == 0 and not here.core.rotation._open


async def test_a_stream_that_lives_in_a_channel_goes_and_the_others_stay() -> None:
    async with world(sockets=False) as here:
        here.dispatcher.play = say("Hello")
        app = here.gateways[0][0]
        made = (await ask(app, "POST", f"{CHAT}/threads", key=here.key, body={"agent_id": "scripted"})).json()
        path = f"{CHAT}/threads/{made['id']}"
        async with (
            exchange(app, "GET", f"{path}/events", key=here.key) as first,
            exchange(app, "GET", f"{path}/events", key=here.key) as second,
        ):
            await here.eventually(lambda: len(here.core.channels) == 1 and len(here.core.rotation._open) == 2)
            next(iter(here.core.rotation._open)).rotate(300)
            await here.eventually(lambda: first.over or second.over)
            gone, stays = (first, second) if first.over else (second, first)
            assert gone.sends[-1]["body"] == b"retry: 300\n\n"
            await ask(app, "POST", f"{path}/messages", key=here.key, body={"content": "go"})
            await stays.until(lambda x: b"run.completed" in x.body)
            assert not stays.over and b"message.posted" not in gone.body


async def test_what_is_done_after_an_answer_is_not_done_for_one_that_was_cut() -> None:
    """A read mark says that the client has had the answer."""
    async with world(sockets=False) as here:
        here.dispatcher.play = silence
        app = here.gateways[0][0]
        path = "/agents/scripted/chat/stream"
        async with exchange(app, "POST", path, key=here.key, body={"message": "hi"}) as x:
            await here.eventually(lambda: here.core.rotation._open)
            next(iter(here.core.rotation._open)).rotate(300)
            await x.end()
        assert x.over and x.sends[-1]["body"] == b"retry: 300\n\n"
        assert not any(command.body.type == "thread.read" for command in here.dispatcher.heard)


async def test_without_a_time_all_end_at_once() -> None:
    async with world(sockets=False) as here:
        app = here.gateways[0][0]
        async with exchange(app, "GET", f"{CHAT}/events", key=here.key) as many:
            await many.until(lambda x: x.parts)
            drain(app)
            await many.end()
        assert many.over

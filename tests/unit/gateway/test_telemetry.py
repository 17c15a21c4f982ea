"""What the gateway tells telemetry of requests, commands and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.errors import LogUnavailable
from parley_events.log import Outgoing, Producer
from parley_events.pieces import Piece
from parley_events.telemetry import about
from parley_events.telemetry.port import ABOUT
from parley_gateway import telemetry as t
from tests.support.asgi import Exchange, ask, exchange
from tests.support.recorder import Recorder
from tests.unit.gateway.test_send import commands
from tests.unit.gateway.world import Dispatcher, World, say, silence

THREADS = "/api/v1/chat/threads"
ROUTE = f"{THREADS}/{{thread_id}}/messages"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "rumpelstiltskin"


@pytest.fixture
def told(here: World) -> Recorder:
    here.telemetry = Recorder()
    return here.telemetry


async def thread_of(app: FastAPI, here: World) -> str:
    made = await ask(app, "POST", THREADS, key=here.key, body={"agent_id": "scripted", "title": SECRET})
    return str(made.json()["id"])


async def test_a_request_is_part_of_its_callers_trace_and_its_command_part_of_the_request(
    here: World, told: Recorder
) -> None:
    app = await here.application()
    thread = await thread_of(app, here)
    told.spans.clear()
    here.dispatcher.play = silence
    path = f"{THREADS}/{thread}/messages"
    got = await ask(app, "POST", path, key=here.key, body={"content": SECRET}, headers={"traceparent": CALLER})
    assert got.status == 202
    assert await told.look(t.REQUESTS) == [(0, {})]
    [request], [send] = told.of(t.REQUEST), told.of(t.SEND)
    assert request.parent == CALLER and request.ended
    assert request.attributes["http.route"] == ROUTE
    assert request.attributes["http.response.status_code"] == 202
    assert (send.parent, send.joins) == (None, None), "part of what is around it"
    await here.eventually(lambda: send.ended)
    assert send.attributes["messaging.kafka.offset"] >= 0
    assert [c.traceparent for c in await commands(here) if c.type == "message.post"] == [send.traceparent]
    assert SECRET not in str([span.attributes for span in told.spans])
    [(_, said)] = told.said(t.SEND_DURATION)[1:]
    assert said["parley.command.type"] == "message.post" and "error.type" not in said


async def test_a_request_without_a_trace_or_with_a_bad_one_begins_one(here: World, told: Recorder) -> None:
    app = await here.application()
    await ask(app, "GET", THREADS, key=here.key)
    await ask(app, "GET", THREADS, key=here.key, headers={"traceparent": "nonsense"})
    assert [(request.parent, request.joins) for request in told.of(t.REQUEST)] == [(None, ()), (None, ())]


async def test_without_telemetry_the_callers_trace_goes_on_as_it_came(here: World) -> None:
    async with here.client() as client:
        await client.post(THREADS, json={"agent_id": "scripted"}, headers={"traceparent": CALLER})
    assert [c.traceparent for c in await commands(here) if c.type == "thread.create"] == [CALLER]


async def test_a_refusal_is_an_answer_and_a_failure_is_an_error(
    here: World, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await here.application()
    await ask(app, "GET", THREADS)
    core = app.state.core

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(core.auth, "principal", broken)
    await ask(app, "GET", THREADS)
    refused, failed = told.of(t.REQUEST)
    assert (refused.attributes["http.response.status_code"], refused.error) == (401, None)
    assert (failed.attributes["http.response.status_code"], failed.error) == (500, "500")
    assert [said.get("error.type") for _, said in told.said(t.REQUEST_DURATION)] == [None, "500"]
    assert SECRET not in str([span.attributes for span in told.spans])


async def test_a_command_that_the_log_does_not_take_is_an_error(
    here: World, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await here.application(outcome_s=0.2)
    await thread_of(app, here)
    producer = app.state.core.sender._producer

    def send(record: Outgoing) -> asyncio.Future[int]:
        failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        failed.set_exception(LogUnavailable("away"))
        return failed

    monkeypatch.setattr(producer, "send", send)
    got = await ask(app, "POST", THREADS, key=here.key, body={"agent_id": "scripted"})
    assert got.status == 503
    assert [span.error for span in told.of(t.SEND)] == [None, "LogUnavailable"]
    assert told.of(t.REQUEST)[-1].error == "503"


async def test_a_command_that_is_never_handed_over_is_ended_too(
    here: World, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await here.application(outcome_s=0.2)
    core = app.state.core

    async def nothing(*_: Any) -> Any:
        assert await told.look(t.REQUESTS) == [(1, {})]
        await asyncio.Event().wait()

    monkeypatch.setattr(core.sender, "_send", nothing)
    assert (await ask(app, "POST", THREADS, key=here.key, body={})).status == 503
    [send] = told.of(t.SEND)
    assert send.ended and send.error == "not_sent"


async def test_what_outlives_the_request_that_made_it_is_not_about_that_request(
    here: World, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await here.application()
    made_about: list[Mapping[str, str]] = []
    make = here.log.producer

    async def producer() -> Producer:
        made_about.append(ABOUT.get())
        return await make()

    monkeypatch.setattr(here.log, "producer", producer)
    path = f"{THREADS}/{here.new_uuid()}/messages"
    with about(trace_id="around"):
        await ask(app, "POST", path, key=here.key, body={"content": "hi"})
    assert made_about[0] == {}


async def test_the_first_delta_of_a_post_is_timed_once_and_then_nothing_is_left_of_it(
    here: World, told: Recorder
) -> None:
    app = await here.application()
    thread = await thread_of(app, here)
    seen: list[Exchange] = []

    def heard(word: str) -> bool:
        return bool(seen) and word.encode() in seen[0].body

    async def play(dispatcher: Dispatcher, posted: Fact) -> None:
        # Word by word: the next one comes when the client has the one before.
        call = dispatcher.called(posted)
        words = ("one ", "two ", "three ")
        for n, word in enumerate(words):
            dispatcher.pieces(Piece(posted.stream, call, 0, "text", len("".join(words[:n])), word))
            await here.eventually(partial(heard, word))
        dispatcher.returned(posted, call, Block(kind="text", text="".join(words)))
        dispatcher.completed(posted)

    here.dispatcher.play = play
    path = f"{THREADS}/{thread}/messages"
    headers = {"accept": "text/event-stream"}
    async with exchange(app, "POST", path, key=here.key, body={"content": "hi"}, headers=headers) as got:
        seen.append(got)
        await got.end()
    assert got.body.count(b"text.delta") == 3
    assert [(said, value > 0) for value, said in told.said(t.FIRST_DELTA)] == [({"http.route": ROUTE}, True)]
    assert told.of(t.REQUEST)[-1].attributes["parley.stream"] is True
    # Two requests and two commands: whatever number of deltas there is.
    assert len(told.spans) == 4
    run_id = got.headers["parley-run-id"]
    async with exchange(app, "GET", f"/api/v1/chat/runs/{run_id}/events", key=here.key) as again:
        await again.end()
    assert len(told.said(t.FIRST_DELTA)) == 1, "who comes back did not wait for it"


async def test_the_span_of_a_stream_ends_when_the_stream_begins_and_open_streams_are_counted(
    here: World, told: Recorder
) -> None:
    app = await here.application(beat_s=0.05)
    thread = await thread_of(app, here)
    here.dispatcher.play = silence
    path = f"{THREADS}/{thread}/messages"
    headers = {"accept": "text/event-stream"}
    async with exchange(app, "POST", path, key=here.key, body={"content": "hi"}, headers=headers) as got:
        await got.until(lambda seen: seen.parts)
        assert told.of(t.REQUEST)[-1].ended
        assert await told.look(t.STREAMS) == [(1, {})]
        assert await told.look(t.LISTENERS) == [(1, {})]
        got.leave()
        await got.end()
    assert await told.look(t.STREAMS) == [(0, {})]
    lag = await told.look(t.UNREAD)
    assert {said["messaging.destination.partition.id"] for _, said in lag} == {
        str(p) for p in range(here.log.partitions)
    }


async def test_what_slow_clients_lose_is_counted(here: World, told: Recorder) -> None:
    app = await here.application(stall_s=0.1, queue_items=20)
    thread = await thread_of(app, here)
    here.dispatcher.play = say(*(f"{n} " for n in range(300)))
    headers = {"accept": "text/event-stream"}
    path = f"{THREADS}/{thread}/messages"
    async with exchange(app, "POST", path, key=here.key, body={"content": "hi"}, headers=headers) as got:
        await got.until(lambda seen: seen.sends)
        got.held.clear()
        await got.end()
    lost = {said["parley.loss"]: value for value, said in await told.look(t.LOST)}
    assert lost["stalled"] == 1
    assert lost.keys() == {"pieces", "closed", "stalled"}


async def test_every_gauge_can_be_looked_at_and_every_attribute_is_listed(here: World, told: Recorder) -> None:
    app = await here.application()
    await thread_of(app, here)
    for metric in t.METRICS:
        if metric.name in told.watched:
            for _, said in await told.look(metric):
                assert set(said) <= set(metric.attributes)
    for metric, _, said in told.values:
        assert set(said) <= set(metric.attributes)
    for span in told.spans:
        assert set(span.attributes) <= set(span.what.attributes)
    assert {m.name for m in t.METRICS} == {*told.watched, *(m.name for m, _, _ in told.values), t.FIRST_DELTA.name}

"""What holds in every dialect: streams, resuming, ends, outages, and input that is not what it should be."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Attachment, Block
from parley_events.commands import PostMessage
from parley_events.errors import LogUnavailable, ObjectsUnavailable
from parley_events.keys import make_key
from parley_events.log import Outgoing
from parley_events.partition import partition_of
from parley_events.pieces import Piece
from parley_gateway.dialects import DIALECTS
from tests.contract.dialects.tongues import NOBODY, TONGUES, Tongue
from tests.contract.dialects.transcript import Stage
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import (
    PARTITIONS,
    WORKSPACE,
    Dispatcher,
    World,
    run_id_of,
    say,
    silence,
    tool_block,
    world,
)

WORDS = ("The ", "quick ", "brown ", "fox ", "jümps.😀")
WHOLE = "".join(WORDS)
OTHER = "22222222-2222-4333-8444-555555555555"


@pytest.fixture(params=sorted(DIALECTS))
def tongue(request: pytest.FixtureRequest) -> Tongue:
    return TONGUES[request.param]()


@pytest.fixture(params=sorted(name for name, tongue in TONGUES.items() if tongue.stays))
def staying(request: pytest.FixtureRequest) -> Tongue:
    """A dialect whose streams go through whatever the client has to do."""
    return TONGUES[request.param]()


@pytest.fixture(params=sorted(name for name, tongue in TONGUES.items() if tongue.files_too))
def filing(request: pytest.FixtureRequest) -> Tongue:
    """A dialect that takes and gives files."""
    return TONGUES[request.param]()


CLOSINGS = {tongue.closing for tongue in TONGUES.values()}


def frames_of(x: Exchange) -> list[Frame]:
    """The frames, without the word that closes some dialects' streams: `test_a_message_streams…` looks at that."""
    return [frame_of(part) for part in x.parts if not part.startswith(b":") and part not in CLOSINGS]


async def do(here: World, deed: dict[str, Any], gateway: int = 0, **more: Any) -> Exchange:
    options = {"key": here.key, **deed, **more}
    options["headers"] = {**deed.get("headers", {}), **more.get("headers", {})}
    return await ask(here.gateways[gateway][0], options.pop("method"), options.pop("path"), **options)


async def get(here: World, path: str, gateway: int = 0, **options: Any) -> Exchange:
    return await ask(here.gateways[gateway][0], "GET", path, **{"key": here.key, **options})


def messages(here: World) -> list[PostMessage]:
    """The messages that came to the log."""
    return [command.body for command in here.dispatcher.heard if isinstance(command.body, PostMessage)]


def opened(here: World, deed: dict[str, Any], gateway: int = 0) -> Any:
    options = {"key": here.key, **deed}
    return exchange(here.gateways[gateway][0], options.pop("method"), options.pop("path"), **options)


async def story(dispatcher: Dispatcher, posted: Any) -> None:
    """Two turns, a tool, a failed attempt that began otherwise, a thought."""
    first = dispatcher.called(posted)
    dispatcher.failed(posted, first)
    second = dispatcher.called(posted, attempt=2)
    dispatcher.speak(posted, second, ("Let ", "me"), kind="thought")
    dispatcher.speak(posted, second, WORDS, block=1)
    blocks = (Block(kind="thought", text="Let me"), Block(kind="text", text=WHOLE), tool_block("clock", second, {}))
    dispatcher.returned(posted, second, *blocks)
    dispatcher.use(posted, second, "clock", {}, "now")
    third = dispatcher.called(posted, turn=1)
    dispatcher.speak(posted, third, ("Done", "."))
    dispatcher.returned(posted, third, Block(kind="text", text="Done."), turn=1)
    dispatcher.completed(posted)


async def parked_story(d: Dispatcher, posted: Any) -> None:
    """An attempt that another owner makes anew, a person who denies, a client that answers and one that does not, and
    a cancel in the middle of the last text, of which the pieces never came."""
    first = d.called(posted)
    d.speak(posted, first, ("Wrong ",))
    second = d.called(posted, attempt=2)
    d.speak(posted, second, WORDS)
    tools = [tool_block(name, second, {"n": 1}) for name in ("publish", "get_weather", "get_time")]
    d.returned(posted, second, Block(kind="text", text=WHOLE), *tools)
    approval, publish = d.asked(posted, second, "publish", {"n": 1}), f"call-{second}-publish"
    weather, time = (
        d.handed(posted, second, name, {"n": 1}, n) for n, name in enumerate(("get_weather", "get_time"), 1)
    )
    d.parked(posted, publish, weather, time, waits_for="approval")
    run: dict[str, Any] = {"run_id": run_id_of(posted)}
    d.append(posted.stream, f.ApprovalAnswered(approval_id=approval, decision="deny", by="ann", **run))
    place = {**run, "call": second, "status": "denied", "result": "no", "name": "publish"}
    d.append(posted.stream, f.ToolReturned.model_validate({**place, "index": 0, "tool_call_id": publish}))
    answer = {**run, "call": second, "index": 1, "tool_call_id": weather, "result": "21 °C", "pending": [time]}
    d.append(posted.stream, f.ToolAnswered.model_validate(answer))
    d.parked(posted, time)
    d.append(posted.stream, f.ToolExpired(call=second, index=2, tool_call_id=time, **run))
    late = {**place, "status": "error", "name": "get_time", "index": 2, "tool_call_id": time}
    d.append(posted.stream, f.ToolReturned.model_validate(late))
    third = d.called(posted, turn=1)
    d.speak(posted, third, ("Do",))
    d.append(posted.stream, f.RunCancelling(by="ann", **run))
    d.cancelled(posted, third, Block(kind="text", text="Done."))


def test_there_is_a_tongue_for_every_dialect() -> None:
    assert set(TONGUES) == set(DIALECTS)


# ---- streams


async def test_a_message_streams_its_run_and_the_stream_ends(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = story
    await tongue.prepare(here)
    x = await do(here, tongue.message())
    assert x.status == 200 and x.over
    assert x.headers["content-type"].startswith("text/event-stream")
    assert x.headers["cache-control"] == "no-cache" and x.headers["x-accel-buffering"] == "no"
    frames = frames_of(x)
    assert tongue.text(frames) == WHOLE + "Done."
    assert [frame.type in tongue.ends.values() for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1].type == tongue.ends["completed"]
    assert all(frame.id for frame in frames)
    assert [part for part in x.parts if part in CLOSINGS] == [tongue.closing] * bool(tongue.closing)
    assert x.body.endswith(tongue.closing), "nothing comes behind it"
    assert here.core.hub.listening == 0


async def test_a_waiting_call_says_the_same_as_the_stream(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = story
    await tongue.prepare(here)
    answer = await do(here, tongue.waiting())
    assert answer.status == 200 and tongue.said(answer) == tongue.answered(WHOLE, "Done.")
    assert here.core.hub.listening == 0


async def test_a_run_is_left_and_resumed_at_every_id_on_another_gateway(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = story
    await here.application()
    await tongue.prepare(here)
    x = await do(here, tongue.message())
    run, frames = x.headers["parley-run-id"], frames_of(x)
    for place, frame in enumerate(frames):
        again = await get(here, tongue.events(run), 1, headers={"Last-Event-ID": str(frame.id)})
        assert again.status == 200 and again.over
        both = frames[: place + 1] + frames_of(again)
        assert tongue.text(both) == WHOLE + "Done.", frame.id
        assert tongue.facts(both) == tongue.facts(frames), frame.id
        assert again.headers["parley-run-id"] == run
    assert again.body == tongue.closing, "past the end nothing is left that has an id"


async def test_a_place_may_stand_in_the_query_too(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = story
    await tongue.prepare(here)
    x = await do(here, tongue.message())
    run = x.headers["parley-run-id"]
    for frame in frames_of(x):
        headed = await get(here, tongue.events(run), headers={"Last-Event-ID": str(frame.id)})
        asked = await get(here, tongue.events(run), params={"after": str(frame.id)})
        assert asked.status == 200 and asked.parts == headed.parts, frame.id


async def test_a_run_that_waited_and_was_stopped_is_resumed_at_every_id_on_another_gateway(
    here: World, staying: Tongue
) -> None:
    here.dispatcher.play = parked_story
    await here.application()
    await staying.prepare(here)
    x = await do(here, staying.message())
    run, frames = x.headers["parley-run-id"], frames_of(x)
    assert x.over and frames[-1].type == staying.ends["cancelled"]
    assert staying.text(frames).endswith(WHOLE + "Done.")
    for frame in frames:
        again = await get(here, staying.events(run), 1, headers={"Last-Event-ID": str(frame.id)})
        both = frames[: frames.index(frame) + 1] + frames_of(again)
        assert staying.text(both).endswith(WHOLE + "Done."), frame.id
        assert staying.facts(both) == staying.facts(frames), frame.id
    results = [str(frame.data) for frame in frames if "21 °C" in str(frame.data)]
    assert len(results) == staying.tools, "what the client's tool said"
    assert all("get_weather" in result for result in results), "and of which tool"


async def test_a_run_that_waits_keeps_its_stream_open(tongue: Tongue) -> None:
    async with world(sockets=False, beat_s=0.02) as here:
        stage, d = Stage(here), here.dispatcher
        await tongue.prepare(here)
        async with opened(here, tongue.message()) as x:
            posted = await stage.posted()
            call = d.called(posted)
            d.returned(posted, call, Block(kind="text", text="Wait. "), tool_block("publish", call, {}))
            approval = d.asked(posted, call, "publish", {})
            d.parked(posted, f"call-{call}-publish", waits_for="approval")
            await x.until(lambda x: tongue.text(frames_of(x)) == "Wait. " and x.parts[-3:] == [b": \n\n"] * 3)
            assert not x.over
            d.append(posted.stream, f.ApprovalExpired(approval_id=approval, run_id=run_id_of(posted)))
            d.completed(posted)
            await x.end()
        assert frames_of(x)[-1].type == tongue.ends["completed"]


async def test_a_client_that_leaves_in_the_middle_stops_nobody(here: World, tongue: Tongue) -> None:
    """The agent goes on; the client comes back in the middle of a call, on another gateway."""
    stage = Stage(here)
    d = here.dispatcher
    await here.application()
    await tongue.prepare(here)
    async with opened(here, tongue.message()) as x:
        posted = await stage.posted()
        call = d.called(posted)
        for n, word in enumerate(WORDS[:2]):
            d.pieces(Piece(posted.stream, call, 0, "text", len("".join(WORDS[:n])), word))
            await x.until(lambda x, n=n: tongue.text(frames_of(x)) == "".join(WORDS[: n + 1]))
        before = frames_of(x)
    assert here.core.hub.listening == 0
    d.pieces(Piece(posted.stream, call, 0, "text", len("".join(WORDS[:2])), WORDS[2]))
    other = here.gateways[1][0].state.core
    await here.eventually(lambda: len(other.hub.kept(posted.stream)) == 3)
    resumed = {"method": "GET", "path": tongue.events(run_id_of(posted))}
    async with opened(here, {**resumed, "headers": {"Last-Event-ID": str(before[-1].id)}}, 1) as x:
        await x.until(lambda x: tongue.text(before + frames_of(x)) == "".join(WORDS[:3]))
        d.returned(posted, call, Block(kind="text", text=WHOLE))
        d.completed(posted)
        await x.end()
        assert tongue.text(before + frames_of(x)) == WHOLE
        assert frames_of(x)[-1].type == tongue.ends["completed"]


@pytest.mark.parametrize("words", [WORDS, ("A ", "slow ", "dog.")], ids=["the same words", "other words"])
async def test_a_takeover_in_mid_stream_is_followed_on_two_gateways_and_resumed_at_every_id(
    here: World, tongue: Tongue, words: tuple[str, ...]
) -> None:
    """The owner stalls in the middle of a call, another one makes it anew, and the first wakes up and goes on writing.
    Nobody sees that; who had left before, in between or after has the same as who never did."""
    stage, d = Stage(here), here.dispatcher
    await here.application()
    await tongue.prepare(here)
    async with opened(here, tongue.message()) as x:
        posted = await stage.posted()
        following = {"method": "GET", "path": tongue.events(run_id_of(posted))}
        async with opened(here, following, 1) as y:
            both = (x, y)

            async def all_have(text: str) -> None:
                for one in both:
                    await one.until(lambda one: tongue.text(frames_of(one)) == text)

            first = d.called(posted)
            d.speak(posted, first, WORDS[:2])
            await all_have("".join(WORDS[:2]))
            stalled = d.epochs[partition_of(posted.stream.encode(), PARTITIONS)]
            await d.claim(partition_of(posted.stream.encode(), PARTITIONS))
            second = d.called(posted, attempt=2)
            d.stale(posted, stalled, Piece(posted.stream, first, 0, "text", len("".join(WORDS[:2])), "too late"))
            d.speak(posted, second, words)
            await all_have(tongue.anew("".join(WORDS[:2]), "".join(words)))
            for frame in frames_of(x):
                resumed = {**following, "headers": {"Last-Event-ID": str(frame.id)}}
                async with opened(here, resumed, 1) as z:
                    seen = frames_of(x)[: frames_of(x).index(frame) + 1]
                    await z.until(lambda z, seen=seen: tongue.text(seen + frames_of(z)) == tongue.text(frames_of(x)))
            d.returned(posted, second, Block(kind="text", text="".join(words)))
            d.completed(posted)
            for one in both:
                await one.end()
    frames = frames_of(x)
    whole = tongue.anew("".join(WORDS[:2]), "".join(words))
    for one in both:
        assert tongue.text(frames_of(one)) == whole and "too late" not in one.body.decode()
        assert [f.type for f in frames_of(one) if f.type in tongue.ends.values()] == [tongue.ends["completed"]]
    assert tongue.facts(frames_of(y)) == tongue.facts(frames)
    for place, frame in enumerate(frames):
        again = await get(here, tongue.events(run_id_of(posted)), 1, headers={"Last-Event-ID": str(frame.id)})
        left = frames[: place + 1]
        wanted = whole if tongue.text(left) else "".join(words)
        if f"/{first}.0:" in str(frame.id):
            # What the void attempt had said is kept nowhere once the run has ended, so nobody can compare.
            wanted = tongue.void(tongue.text(left), "".join(words))
        assert tongue.text(left + frames_of(again)) == wanted, frame.id
        assert tongue.facts(left + frames_of(again)) == tongue.facts(frames), frame.id


async def test_a_failed_run_ends_the_stream_with_its_error(here: World, tongue: Tongue) -> None:
    async def play(d: Dispatcher, posted: Any) -> None:
        call = d.called(posted)
        d.failed(posted, call, retry=False)
        d.ended(posted, "500", "it fell over")

    here.dispatcher.play = play
    await tongue.prepare(here)
    frames = frames_of(await do(here, tongue.message()))
    assert [f.type for f in frames].count(tongue.ends["failed"]) == 1
    assert frames[-1].type == tongue.ends["failed"]
    assert "it fell over" in str(frames[-1].data) and ("model_500" in str(frames[-1].data)) is tongue.coded


async def test_a_cancelled_run_ends_the_stream(here: World, tongue: Tongue) -> None:
    stage = Stage(here)
    await tongue.prepare(here)
    async with opened(here, tongue.message()) as x:
        posted = await stage.posted()
        call = here.dispatcher.called(posted)
        cancel = await do(here, {"method": "POST", "path": f"/api/v1/chat/runs/{run_id_of(posted)}/cancel"})
        assert cancel.status == 200
        here.dispatcher.cancelled(posted, call, Block(kind="text", text="So far"))
        await x.end()
    frames = frames_of(x)
    assert tongue.text(frames) == "So far"
    assert frames[-1].type == tongue.ends["cancelled"]


async def test_an_idle_stream_sends_comments(tongue: Tongue) -> None:
    async with world(sockets=False, beat_s=0.02) as here:
        stage = Stage(here)
        await tongue.prepare(here)
        async with opened(here, tongue.message()) as x:
            posted = await stage.posted()
            await x.until(lambda x: x.parts.count(b": \n\n") >= 3)
            here.dispatcher.completed(posted)
            await x.end()
        assert frames_of(x)[-1].type == tongue.ends["completed"]


async def test_a_client_that_takes_nothing_is_let_go_and_loses_nothing_by_coming_back(tongue: Tongue) -> None:
    async with world(sockets=False, stall_s=0.1, queue_items=50) as here:
        stage = Stage(here)
        d = here.dispatcher
        await tongue.prepare(here)
        async with opened(here, tongue.message()) as x:
            posted = await stage.posted()
            call = d.called(posted)
            d.pieces(Piece(posted.stream, call, 0, "text", 0, "x"))
            await x.until(lambda x: tongue.text(frames_of(x)) == "x")
            x.held.clear()
            for n in range(1, 300):
                d.pieces(Piece(posted.stream, call, 0, "text", n, "x"))
            await x.end()
            assert not x.over, "the response is cut, not finished"
        assert here.core.hub.listening == 0
        d.returned(posted, call, Block(kind="text", text="x" * 300))
        d.completed(posted)
        before = frames_of(x)
        again = await get(here, tongue.events(run_id_of(posted)), headers={"Last-Event-ID": str(before[-1].id)})
        assert tongue.text(before + frames_of(again)) == "x" * 300
        assert frames_of(again)[-1].type == tongue.ends["completed"]


async def test_a_repeated_message_is_the_same_run(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = say("Hello ", "world")
    await here.application()
    await tongue.prepare(here)
    key: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}}
    first = await do(here, tongue.message(), **key)
    again = await do(here, tongue.message(), 1, **key)
    plain = await do(here, tongue.waiting(), 1, **key)
    assert len({x.headers["parley-run-id"] for x in (first, again, plain)}) == 1
    assert ["idempotency-replayed" in x.headers for x in (first, again, plain)] == [False, True, True]
    assert tongue.text(frames_of(first)) == tongue.text(frames_of(again)) == tongue.said(plain) == "Hello world"
    assert tongue.facts(frames_of(first)) == tongue.facts(frames_of(again))
    other = await do(here, tongue.message("something else"), **key)
    assert tongue.problem(other) == (409, "idempotency_conflict")
    for bad in ("", " x", "é", "x" * 256):
        assert tongue.problem(await do(here, tongue.message(), headers={"Idempotency-Key": bad}))[0] == 400, bad


async def test_answers_to_a_limited_key_say_how_often_it_may_ask_and_one_too_many_is_refused(
    here: World, tongue: Tongue
) -> None:
    limited = {"user": "ann", "scopes": ["*"], "rate_limit": "3/hour"}
    made = await do(here, {"method": "POST", "path": "/api/v1/keys", "body": limited}, key=here.admin_key)
    key = made.json()["key"]
    here.dispatcher.play = say("ok")
    await tongue.prepare(here)
    for left, deed in enumerate((tongue.waiting(), tongue.message(), tongue.waiting())):
        found = await do(here, deed, key=key)
        assert (found.status, found.headers["ratelimit-remaining"]) == (200, str(2 - left))
    said = len(messages(here))
    for deed in (tongue.waiting(), tongue.message()):
        refused = await do(here, deed, key=key)
        assert tongue.problem(refused) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 0
    assert len(messages(here)) == said


# ---- outages


class Away:
    """A producer whose log is away."""

    broken = False

    def send(self, record: Outgoing, *, now: bool = False) -> asyncio.Future[int]:
        lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        lost.set_exception(LogUnavailable("away"))
        return lost

    async def close(self, grace_s: float = 5.0) -> None:
        pass


async def test_while_the_log_is_away_a_message_is_503_and_nothing_is_half_accepted(tongue: Tongue) -> None:
    async with world(sockets=False, outcome_s=0.1) as here:
        await tongue.prepare(here)
        heard = len(here.dispatcher.heard)
        real, here.core.sender._producer = here.core.sender._producer, Away()
        for deed in (tongue.message(), tongue.waiting()):
            here.core.sender._producer = Away()
            away = await do(here, deed)
            assert tongue.problem(away) == (503, "unavailable")
            assert away.headers["retry-after"].isdigit()
        assert here.core.hub.listening == 0 and not here.core.hub._waiting
        here.core.sender._producer = real
        here.dispatcher.play = say("Hello")
        back = await do(here, tongue.waiting())
        assert back.status in (200, 202) and len(here.dispatcher.heard) > heard
        assert len(messages(here)) == 1, "only the one that was accepted is on the log"


async def test_an_outcome_that_is_late_is_202_with_the_ids(tongue: Tongue) -> None:
    async with world(sockets=False, outcome_s=0.1) as here:
        here.dispatcher.play = silence
        await tongue.prepare(here)
        await do(here, {**tongue.waiting(), "params": {"wait": "0"}})
        here.dispatcher.deaf = True
        key = {"Idempotency-Key": "k"}
        for deed in (tongue.message(), tongue.waiting()):
            late = await do(here, deed, headers=key)
            assert late.status == 202
            assert tongue.accepted(late) == (late.headers["parley-run-id"], "queued")
        assert here.core.hub.listening == 0 and not here.core.hub._waiting
        here.dispatcher.deaf = False
        again = await do(here, {**tongue.waiting(), "params": {"wait": "0"}}, headers=key)
        assert tongue.accepted(again)[0] == tongue.accepted(late)[0]


async def test_while_history_is_away_sending_and_open_streams_go_on(here: World, tongue: Tongue) -> None:
    stage = Stage(here)
    await tongue.prepare(here)
    await here.core.workspaces.get(WORKSPACE)
    async with opened(here, tongue.message()) as x:
        posted = await stage.posted()
        here.past.away = True
        params = {"structure_id": WORKSPACE, "role_id": "executive-office-cmo"}
        for path in (tongue.history(), tongue.run(run_id_of(posted)), tongue.events(run_id_of(posted))):
            away = await get(here, path, params=params)
            assert tongue.problem(away) == (503, "unavailable") and away.headers["retry-after"], path
        call = here.dispatcher.called(posted)
        here.dispatcher.speak(posted, call, WORDS)
        here.dispatcher.returned(posted, call, Block(kind="text", text=WHOLE))
        here.dispatcher.completed(posted)
        await x.end()
    assert tongue.text(frames_of(x)) == WHOLE and frames_of(x)[-1].type == tongue.ends["completed"]
    here.dispatcher.play = say("Hello")
    second = await do(here, tongue.waiting())
    assert second.status == 200 and tongue.said(second) == "Hello"


async def test_a_gateway_that_stops_or_starts_says_so_in_the_dialects_words(here: World, tongue: Tongue) -> None:
    await tongue.prepare(here)
    here.core.hub.drain()
    refused = await do(here, tongue.message())
    assert tongue.problem(refused) == (503, "unavailable") and refused.headers["retry-after"] == "1"


# ---- input that is not what it should be

TEXTS: list[tuple[Any, int]] = [
    ("", 400),
    (" \n\t", 400),
    (None, 400),
    (7, 400),
    (True, 400),
    (["hi"], 400),
    ({"text": "hi"}, 400),
    ("a\0b", 400),
    ("x" * (1024 * 1024 + 1), 413),
    ("é" * (512 * 1024 + 1), 413),
    ("x" * (2 * 1024 * 1024), 413),
]
"""What cannot be a message, with the status."""

NESTED = b'{"a":' * 100 + b"1" + b"}" * 100
VERY_NESTED = b"[" * 100_000 + b"]" * 100_000

BODIES: list[tuple[bytes, dict[str, str], int]] = [
    (b"{", {}, 400),
    (b"hi", {}, 400),
    (b"[]", {}, 400),
    (b"null", {}, 400),
    (b'"hi"', {}, 400),
    (b"\xff\xfe", {}, 400),
    (b'{"a":"\xed\xa0\x80"}', {}, 400),
    (b'{"a": NaN}', {}, 400),
    (b"{'a': 1}", {}, 400),
    (NESTED, {}, 400),
    (VERY_NESTED, {}, 400),
    (b"{}", {"Content-Type": "text/plain"}, 415),
    (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    (b"{}", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
    (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415),
    (b" " * (8 * 1024 * 1024 + 1), {}, 413),
    (b"", {"Content-Length": str(10**12)}, 413),
]
"""What cannot be a body, with the status."""


async def test_what_cannot_be_a_message_is_refused_in_the_dialects_words(here: World, tongue: Tongue) -> None:
    await tongue.prepare(here)
    heard = len(here.dispatcher.heard)
    for text, status in TEXTS:
        for deed in (tongue.message(text), {**tongue.waiting(), "body": tongue.message(text)["body"]}):
            refused = await do(here, deed)
            assert tongue.problem(refused)[0] == status, str(text)[:20]
    surrogate = tongue.message("SURROGATE")
    for half in (b"\\ud800", b"\\udc00", b"\\ud800\\ud800", b"\\udfff!"):
        raw = str(surrogate["body"]).replace("'", '"').encode().replace(b"SURROGATE", half)
        headers = {"content-type": "application/json"}
        assert tongue.problem(await do(here, {**surrogate, "body": raw}, headers=headers))[0] == 400, half
    for name in set(tongue.message()["body"]) - tongue.optional:
        body = {key: value for key, value in tongue.message()["body"].items() if key != name}
        refused = await do(here, {**tongue.message(), "body": body})
        assert tongue.problem(refused)[0] == 400, f"without {name}"
    assert len(here.dispatcher.heard) == heard, "nothing of it reached the log"
    assert here.core.hub.listening == 0


async def test_a_text_at_the_limit_and_odd_but_good_ones_are_taken(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = say("ok")
    await tongue.prepare(here)
    for text in ("x" * 1024 * 1024, "\\u0000", "😀", "\x01\x7f\u2028", "a\\nb"):
        assert (await do(here, tongue.waiting(text))).status == 200, text[:10]
        assert messages(here)[-1].text == text, "kept as it came"
    unknown = tongue.waiting()
    unknown = {**unknown, "body": {**unknown["body"], "nobody": {"knows": ["this"]}}}
    assert (await do(here, {**unknown, "params": {"wait": "5", "nor": "this"}})).status == 200


async def test_what_cannot_be_a_body_is_refused_in_the_dialects_words(here: World, tongue: Tongue) -> None:
    await tongue.prepare(here)
    heard = len(here.dispatcher.heard)
    for raw, headers, status in BODIES:
        for deed in (tongue.message(), tongue.waiting()):
            refused = await do(here, {**deed, "body": raw}, headers={"content-type": "application/json", **headers})
            assert tongue.problem(refused)[0] == status, (raw[:20], headers)
    assert len(here.dispatcher.heard) == heard


# ---- files


async def saves(dispatcher: Dispatcher, posted: Any) -> None:
    """A run that saves a file of one name twice."""
    first = dispatcher.called(posted)
    dispatcher.returned(posted, first, *[tool_block("save_artifact", first, {})] * 2)
    made = [Attachment(name="a é.html", content_type="text/html", size=n, sha256=MADE[n]) for n in (1, 2)]
    dispatcher.use(posted, first, "save_artifact", {}, "{}", files=made[:1])
    dispatcher.use(posted, first, "save_artifact", {}, "{}", files=made[1:], index=1)
    second = dispatcher.called(posted, turn=1)
    dispatcher.returned(posted, second, Block(kind="text", text="Saved."), turn=1)
    dispatcher.completed(posted)


MADE = {n: hashlib.sha256(b"x" * n).hexdigest() for n in (1, 2)}
FILE = {"name": "plan.txt", "content_base64": "aGVsbG8=", "content_type": "text/plain"}


async def file(here: World, filing: Tongue, name: str, **params: str) -> Exchange:
    path, own = filing.files()
    return await get(here, f"{path}/{name}", params={**own, **params})


def with_files(deed: dict[str, Any], *files: dict[str, Any]) -> dict[str, Any]:
    return {**deed, "body": {**deed["body"], "attachments": list(files)}}


async def test_attachments_are_stored_before_the_message_that_names_them(here: World, filing: Tongue) -> None:
    await filing.prepare(here)
    answer = await do(here, with_files(filing.waiting(""), FILE))
    assert answer.status == 200, "a message may be empty where it has attachments"
    (attachment,) = here.dispatcher.heard[-1].body.attachments  # type: ignore[attr-defined]
    assert (attachment.name, attachment.content_type, attachment.size) == ("plan.txt", "text/plain", 5)
    assert await here.objects.get(WORKSPACE, attachment.sha256) == b"hello"
    found = await file(here, filing, "plan.txt")
    assert (found.status, found.body, found.headers["content-type"]) == (200, b"hello", "text/plain")


async def test_nothing_is_half_accepted_while_the_object_store_is_away(
    here: World, filing: Tongue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filing.prepare(here)
    heard = len(here.dispatcher.heard)

    async def away(*_: Any) -> str:
        raise ObjectsUnavailable("away")

    monkeypatch.setattr(here.objects, "put", away)
    for deed in (with_files(filing.message(), FILE), filing.message("x" * (1024 * 1024))):
        refused = await do(here, deed)
        assert filing.problem(refused) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
    assert len(here.dispatcher.heard) == heard, "nothing of it reached the log"
    assert (await do(here, filing.waiting())).status == 200, "what needs no store goes on"


async def test_a_repeat_is_known_by_its_attachments_too(here: World, filing: Tongue) -> None:
    await filing.prepare(here)
    key = {"Idempotency-Key": "k"}
    first = await do(here, with_files(filing.waiting(), FILE), headers=key)
    again = await do(here, with_files(filing.waiting(), FILE), headers=key)
    assert again.status == 200 and again.headers["idempotency-replayed"] == "true"
    assert again.headers["parley-run-id"] == first.headers["parley-run-id"]
    for other in ({**FILE, "content_base64": "aGVsbG9v"}, {**FILE, "name": "b"}, {**FILE, "content_type": "a/b"}):
        assert (await do(here, with_files(filing.waiting(), other), headers=key)).status == 409, other
    assert (await do(here, filing.waiting(), headers=key)).status == 409


@pytest.mark.parametrize(
    "files",
    [
        [{**FILE, "name": "../plan.txt"}],
        [{**FILE, "name": "a\x00b"}],
        [{**FILE, "name": 1}],
        [{**FILE, "content_base64": "%%%"}],
        [{**FILE, "content_base64": ""}],
        [{**FILE, "content_type": "x\r\ny: z"}],
        [FILE, FILE],
        [{"name": "a"}],
        ["a"],
        "a",
    ],
    ids=str,
)
async def test_attachments_that_are_none_are_refused_in_the_dialects_words(
    here: World, filing: Tongue, files: Any
) -> None:
    await filing.prepare(here)
    heard = len(here.dispatcher.heard)
    deed = filing.message()
    refused = await do(here, {**deed, "body": {**deed["body"], "attachments": files}})
    assert filing.problem(refused)[0] == 400
    assert len(here.dispatcher.heard) == heard


async def test_a_body_may_be_larger_by_its_attachments_alone(here: World, filing: Tongue) -> None:
    await filing.prepare(here)
    large = {**FILE, "content_base64": base64.b64encode(bytes(20 * 1024 * 1024)).decode()}
    assert (await do(here, with_files(filing.waiting(), large))).status == 200
    padded = filing.waiting()
    padded["body"]["nothing"] = "x" * (8 * 1024 * 1024)
    assert filing.problem(await do(here, padded))[0] == 413
    assert filing.problem(await do(here, with_files(padded, large)))[0] == 413
    over = {**FILE, "content_base64": base64.b64encode(bytes(26 * 1024 * 1024)).decode()}
    status, code = filing.problem(await do(here, with_files(filing.waiting(), over)))
    assert (status, code) == (413, "too_large")


async def test_what_a_run_saved_is_listed_and_comes_out_as_a_file_and_nothing_else(here: World, filing: Tongue) -> None:
    await filing.prepare(here)
    here.dispatcher.play = saves
    for n in MADE:
        await here.objects.put(WORKSPACE, b"x" * n)
    assert (await do(here, filing.waiting())).status == 200
    path, own = filing.files()
    listed = (await get(here, path, params=own)).json()
    items = listed["items"] if isinstance(listed, dict) else listed
    assert [(item["name"], item["size"], item["sha256"]) for item in items] == [("a é.html", 2, MADE[2])]
    found = await file(here, filing, "a é.html")
    assert (found.status, found.body) == (200, b"xx"), "the newest of its name"
    assert found.headers["content-type"] == "text/html"
    assert found.headers["content-disposition"].startswith("attachment; ")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in found.headers["content-security-policy"]
    assert (await file(here, filing, "a é.html", sha256=MADE[1])).body == b"x"
    assert filing.problem(await file(here, filing, "b")) == (404, "not_found")
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"api": foreign})
    for name in ("a é.html", "b"):
        refused = await get(here, f"{path}/{name}", key=foreign, params=own)
        assert filing.problem(refused) == (404, "not_found")


def flat(path: str) -> bool:
    return any(path.startswith(dialect.base) and dialect.flat for dialect in DIALECTS.values())


async def test_wrong_methods_and_unknown_paths_are_refused_in_the_dialects_words(here: World, tongue: Tongue) -> None:
    await tongue.prepare(here)
    run = f"{NOBODY}.r0123456789abcdef"
    for path in (tongue.message()["path"], tongue.run(run), tongue.events(run), tongue.history()):
        for method in ("PUT", "OPTIONS", "TRACE", "BREW"):
            refused = await do(here, {"method": method, "path": path})
            assert tongue.problem(refused) == (405, "method_not_allowed"), (method, path)
    refused = await do(here, {"method": "PUT", "path": tongue.run(run)})
    assert refused.headers["allow"] == "GET"
    base = DIALECTS[tongue.name].base
    for path in (base, f"{base}/", f"{base}/nothing", f"{base}/runs", f"{base}/runs/{run}/", f"{base}/runs//events"):
        for method in ("GET", "POST"):
            assert tongue.problem(await do(here, {"method": method, "path": path}))[0] == 404, path


async def test_unknown_and_foreign_things_are_404(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = say("ok")
    await tongue.prepare(here)
    run = (await do(here, tongue.waiting())).headers["parley-run-id"]
    unknown = f"{NOBODY}.r0123456789abcdef"
    for odd in (NOBODY, unknown, run[:-1] + "z", run[:-1], "x", run + "\0", run.upper(), "%", "é"):
        for path in (tongue.run(odd), tongue.events(odd)):
            assert tongue.problem(await get(here, path)) == (404, "not_found"), odd
    assert (await get(here, tongue.run(run))).status == 200


async def test_limits_cursors_positions_and_waits_out_of_their_range_are_400(here: World, tongue: Tongue) -> None:
    here.dispatcher.play = say("ok")
    await tongue.prepare(here)
    run = (await do(here, tongue.waiting())).headers["parley-run-id"]
    node = {"structure_id": WORKSPACE, "role_id": "executive-office-cmo"}
    for limit in ("0", "-1", "201", "1.5", "many", "", "٣", "1e2", "99999999999999999999") * tongue.pages:
        refused = await get(here, tongue.history(), params={**node, "limit": limit})
        assert tongue.problem(refused) == (400, "bad_limit"), limit
    for limit in ("1", "200") * tongue.pages:
        assert (await get(here, tongue.history(), params={**node, "limit": limit})).status == 200
    for position in ("soon", "@", "1", "a@b", "\0"):
        for path in (tongue.history(), tongue.run(run), tongue.events(run)):
            refused = await get(here, path, params={**node, "min_position": position})
            assert tongue.problem(refused)[0] == 400, (position, path)
    for after in ("x", "1/2", "-1", "01"):
        places: list[dict[str, Any]] = [{"params": {"after": after}}, {"headers": {"Last-Event-ID": after}}]
        for options in places:
            assert tongue.problem(await get(here, tongue.events(run), **options)) == (400, "bad_cursor")
    ahead = await get(here, tongue.events(run), params={"after": "999"})
    assert tongue.problem(ahead) == (400, "cursor_ahead")
    for wait in ("-1", "soon", "nan", "inf", "1_0", " 1", "1e2", "٣", "-0.1"):
        refused = await do(here, {**tongue.waiting(), "params": {"wait": wait}})
        assert tongue.problem(refused) == (400, "bad_wait"), wait
    for wait in ("", "300", "99999", "0.5", "5."):
        assert (await do(here, {**tongue.waiting(), "params": {"wait": wait}})).status in (200, 202), wait


async def test_what_breaks_inside_is_500_in_the_dialects_words(
    here: World, tongue: Tongue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tongue.prepare(here)

    async def breaks(*args: Any) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(here.core.sender, "ask", breaks)
    broken = await do(here, tongue.message())
    assert tongue.problem(broken) == (500, "internal")
    assert "secret" not in broken.body.decode()
    assert here.core.hub.listening == 0

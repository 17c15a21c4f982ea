"""Joining: stored facts and live ones meet at the exact seq, whenever someone comes."""

from __future__ import annotations

import asyncio

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from parley_gateway import core as core_
from parley_gateway.feed.follow import ShownFact
from tests.support.sse import Frame, text_of
from tests.support.system import collect, new_thread, stream
from tests.unit.gateway.world import Dispatcher, World, run_id_of, silence, tool_block

BASE = "/api/v1/chat"
WORDS = ("The ", "quick ", "brown ", "fox ", "jumps.")
WHOLE = "".join(WORDS)


class Stage:
    """A run that the test plays step by step."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.posted: asyncio.Future[Fact] = asyncio.get_running_loop().create_future()
        here.dispatcher.play = self._play

    async def _play(self, dispatcher: Dispatcher, posted: Fact) -> None:
        if not self.posted.done():
            self.posted.set_result(posted)

    async def post(self, thread: str) -> Fact:
        async with self.here.client() as client:
            answer = await client.post(f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
            assert answer.status_code == 202
        return await self.posted


async def test_someone_who_comes_in_mid_call_sees_its_beginning_and_the_rest_live(here: World) -> None:
    stage = Stage(here)
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        posted = await stage.post(thread)
        call = here.dispatcher.called(posted)
        here.dispatcher.speak(posted, call, WORDS[:3])
        await here.eventually(lambda: len(here.core.hub.kept(thread)) == 3)
        seen: list[Frame] = []
        async with stream(client, "GET", f"{BASE}/runs/{run_id_of(posted)}/events") as (_, frames):
            async for frame in frames:
                seen.append(frame)
                if text_of(seen) == "The quick brown ":
                    break
            at = len("".join(WORDS[:3]))
            here.dispatcher.pieces(_piece(thread, call, at, WORDS[3]))
            async for frame in frames:
                seen.append(frame)
                if text_of(seen).endswith("fox "):
                    break
            here.dispatcher.returned(posted, call, Block(kind="text", text=WHOLE))
            here.dispatcher.completed(posted)
            seen += [frame async for frame in frames]
    assert text_of(seen) == WHOLE
    assert [f.type for f in seen if not f.type.endswith(".delta")] == [
        "message.posted",
        "model.called",
        "model.returned",
        "run.completed",
    ]


def _piece(thread: str, call: int, at: int, text: str) -> Piece:
    return Piece(thread, call, 0, "text", at, text)


async def test_every_id_of_a_run_that_has_ended_gives_the_rest(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        frames = await collect(client, "POST", f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
        run = frames[0].data["run_id"]
        await here.eventually(lambda: here.past.facts[thread][-1][1].type == "run.completed")
        for frame in frames:
            again = await collect(client, "GET", f"{BASE}/runs/{run}/events", headers={"Last-Event-ID": frame.id or ""})
            assert text_of([*frames[: frames.index(frame) + 1], *again]) == "Hello world"


async def test_the_end_asked_for_while_the_view_is_behind_ends_the_stream(here: World) -> None:
    stage = Stage(here)
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        posted = await stage.post(thread)
        await here.eventually(lambda: run_id_of(posted)[:36] in here.past.facts)
        call = here.dispatcher.called(posted)
        await here.eventually(lambda: len(here.past.facts[thread]) == 3)
        here.past.held.clear()
        here.dispatcher.returned(posted, call, Block(kind="text", text="x"))
        end = here.dispatcher.completed(posted)
        partition_end = here.core.hub.end_of
        before = partition_end(thread)
        await here.eventually(lambda: partition_end(thread) != before)
        asked = asyncio.create_task(
            collect(client, "GET", f"{BASE}/runs/{run_id_of(posted)}/events", headers={"Last-Event-ID": str(end.seq)})
        )
        await here.eventually(lambda: any("facts" in path for path in here.past.asked))
        here.past.held.set()
        assert await asked == []


async def test_past_the_end_of_a_run_stands_its_end_whatever_came_of_it_later(here: World) -> None:
    """Someone settled a call of the run after it had ended; who comes back past that is still told of the end."""

    async def play(d: Dispatcher, posted: Fact) -> None:
        call = d.called(posted)
        d.returned(posted, call, tool_block("pay", call, {}))
        d.use(posted, call, "pay", {}, "nobody knows", status="unknown")
        d.completed(posted)

    here.dispatcher.play = play
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        frames = await collect(client, "POST", f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
        run_id = frames[0].data["run_id"]
        settled = f.ToolSettled(run_id=run_id, tool_call_id="call-3-pay", happened=True, by="ann", call=3, index=0)
        late = here.dispatcher.append(thread, settled)
        await here.eventually(lambda: here.past.facts[thread][-1][1].seq == late.seq)
    core = here.core
    key = await core.auth.principal(f"Bearer {here.key}")
    run = await core.reads.run(key, run_id)
    feed = await core_.run_feed(core, key, run, str(late.seq), restarts=True)
    [shown] = await feed.take(1)
    feed.close()
    assert isinstance(shown, ShownFact) and shown.again
    assert (feed.over, shown.fact.type) == (True, "run.completed")


async def test_every_cursor_of_a_run_with_tools_and_attempts_resumes_on_another_gateway(here: World) -> None:
    async def play(dispatcher: Dispatcher, posted: Fact) -> None:
        first = dispatcher.called(posted)
        dispatcher.speak(posted, first, ("Let ", "me"), kind="thought")
        dispatcher.speak(posted, first, ("Wrong ", "way"), block=1)
        dispatcher.failed(posted, first)
        second = dispatcher.called(posted, attempt=2)
        dispatcher.speak(posted, second, ("Let ", "us"), kind="thought")
        dispatcher.speak(posted, second, ("Right ", "way. "), block=1)
        dispatcher.returned(
            posted,
            second,
            Block(kind="thought", text="Let us"),
            Block(kind="text", text="Right way. "),
            tool_block("clock", second, {"a": [1]}),
        )
        dispatcher.use(posted, second, "clock", {"a": [1]}, '{"now": 1}')
        third = dispatcher.called(posted, turn=1)
        dispatcher.speak(posted, third, ("Done", "."))
        dispatcher.returned(posted, third, Block(kind="text", text="Done."), turn=1)
        dispatcher.completed(posted)

    here.dispatcher.play = play
    await here.gateway()
    async with here.client() as client, here.client(1) as other:
        thread = await new_thread(client, "scripted")
        frames = await collect(client, "POST", f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
        assert text_of(frames) == "Right way. Done."
        assert text_of(frames, "thought.delta") == "Let us"
        run = frames[0].data["run_id"]
        facts = [frame.data for frame in frames if not frame.type.endswith(".delta")]
        for place, frame in enumerate(frames[:-1]):
            events = f"{BASE}/runs/{run}/events"
            rest = await collect(other, "GET", events, headers={"Last-Event-ID": frame.id or ""})
            both = frames[: place + 1] + rest
            assert text_of(both) == "Right way. Done.", frame.id
            assert [f.data for f in both if not f.type.endswith(".delta")] == facts, frame.id
        async with stream(other, "GET", f"{BASE}/threads/{thread}/events") as (_, live):
            whole: list[Frame] = []
            async for frame in live:
                whole.append(frame)
                if frame.type == "run.completed":
                    break
        assert [int(f.id or "0") for f in whole if (f.id or "").isdigit()] == list(range(1, whole[-1].data["seq"] + 1))
        assert text_of(whole) == "Right way. Done."
        for place, frame in enumerate(whole[:-1]):
            rest = []
            async with stream(
                other, "GET", f"{BASE}/threads/{thread}/events", headers={"Last-Event-ID": frame.id or ""}
            ) as (_, live):
                async for more in live:
                    rest.append(more)
                    if more.type == "run.completed":
                        break
            both = whole[: place + 1] + rest
            assert text_of(both) == "Right way. Done.", frame.id
            assert [f.data for f in both if not f.type.endswith(".delta")] == [
                f.data for f in whole if not f.type.endswith(".delta")
            ], frame.id


async def test_a_streamed_answer_needs_no_read_at_all(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        here.past.away = True
        here.past.asked.clear()
        frames = await collect(client, "POST", f"{BASE}/threads/{thread}/messages", json={"content": "hi"})
        assert text_of(frames) == "Hello world"
        assert here.past.asked == []
        answer = await client.get(
            f"{BASE}/runs/{frames[0].data['run_id']}/events", headers={"Accept": "text/event-stream"}
        )
        assert answer.status_code == 503, "refused before the stream starts"
        assert answer.headers["Retry-After"]


@pytest.mark.parametrize("cursor", ["x", "1/2", "3-", "0007"])
async def test_garbage_is_refused_before_the_stream_starts(here: World, cursor: str) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        answer = await client.get(f"{BASE}/threads/{thread}/events", headers={"Last-Event-ID": cursor})
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_cursor")
        ahead = await client.get(f"{BASE}/threads/{thread}/events?after=2")
        assert (ahead.status_code, ahead.json()["error"]) == (400, "cursor_ahead")
        assert here.core.hub.listening == 0


async def test_a_stream_goes_on_over_a_new_claim_and_never_shows_the_old_writer(here: World) -> None:
    stage = Stage(here)
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        posted = await stage.post(thread)
        call = here.dispatcher.called(posted)
        partition = here.core.hub.partition(thread)
        old = here.dispatcher.epochs[partition]
        async with stream(client, "GET", f"{BASE}/threads/{thread}/events") as (_, frames):
            seen = [await anext(frames) for _ in range(3)]
            await here.dispatcher.claim(partition)
            here.dispatcher.pieces(_piece(thread, call, 0, "zombie"), epoch=old)
            here.dispatcher.epochs[partition], new = old, here.dispatcher.epochs[partition]
            state = here.dispatcher.state(thread)
            seq = state.seq
            here.dispatcher.returned(posted, call, Block(kind="text", text="zombie"))
            state.seq = seq
            here.dispatcher.epochs[partition] = new
            again = here.dispatcher.called(posted, attempt=2)
            here.dispatcher.speak(posted, again, ("alive",))
            here.dispatcher.returned(posted, again, Block(kind="text", text="alive"))
            async for frame in frames:
                seen.append(frame)
                if frame.type == "model.returned":
                    break
    assert "zombie" not in "".join(str(frame.data) for frame in seen)
    assert text_of(seen) == "alive"


async def test_a_client_that_leaves_is_let_go_of(here: World) -> None:
    here.dispatcher.play = silence
    address = await here.gateway(beat_s=0.05)
    assert address
    async with here.client(1) as client:
        thread = await new_thread(client, "scripted")
        async with client.stream("GET", f"{BASE}/threads/{thread}/events") as response:
            lines = response.aiter_lines()
            got = [await anext(lines) for _ in range(6)]
            assert ": " in [line + " " if line == ":" else line for line in got], "an idle stream sends comments"
        hub = here.gateways[1][0].state.core.hub
        await here.eventually(lambda: hub.listening == 0)


async def test_a_stop_ends_open_streams_cleanly(here: World) -> None:
    here.dispatcher.play = silence
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        async with stream(client, "GET", f"{BASE}/threads/{thread}/events") as (_, frames):
            assert (await anext(frames)).type == "thread.created"
            here.core.hub.drain()
            assert [frame async for frame in frames] == []
        refused = await client.get(f"{BASE}/threads/{thread}")
        assert refused.status_code == 503 and refused.headers["Retry-After"]
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_a_slow_client_is_cut_off_and_loses_nothing_by_coming_back(here: World) -> None:
    stage = Stage(here)
    await here.gateway(queue_items=50)
    async with here.client() as client, here.client(1) as slow:
        thread = await new_thread(client, "scripted")
        posted = await stage.post(thread)
        hub = here.gateways[1][0].state.core.hub
        call = here.dispatcher.called(posted)
        await here.eventually(lambda: hub.ready)
        seen: list[Frame] = []
        async with stream(slow, "GET", f"{BASE}/runs/{run_id_of(posted)}/events") as (_, frames):
            seen += [await anext(frames), await anext(frames)]
            # All at once, without a pause in which the stream could be written.
            [listener] = hub._listeners[thread]
            for n in range(200):
                listener.put(_piece(thread, call, n, "x"), 1)
            for n in range(120):
                body = f.ThreadUpdated(title=str(n), changes=("title",))
                here.dispatcher.append(thread, body)
            here.dispatcher.returned(posted, call, Block(kind="text", text="x" * 200))
            here.dispatcher.completed(posted)
            seen += [frame async for frame in frames]
        if seen[-1].type != "run.completed":
            seen += await collect(
                slow, "GET", f"{BASE}/runs/{run_id_of(posted)}/events", headers={"Last-Event-ID": seen[-1].id or ""}
            )
    assert text_of(seen) == "x" * 200
    assert seen[-1].type == "run.completed"

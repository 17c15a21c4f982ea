"""A stream of `threads`, send by send and byte for byte, and what every cursor of it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block, Note
from parley_events.pieces import Piece
from tests.contract.dialects.transcript import Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of, text_of
from tests.unit.gateway.world import World, run_id_of, tool_block

BASE = "/api/v1/chat"
PAGES = Path(__file__).parent / "transcripts"
STREAM = {"Accept": "text/event-stream"}


async def new_thread(here: World) -> str:
    made = await ask(here.gateways[0][0], "POST", f"{BASE}/threads", key=here.key, body={"agent_id": "scripted"})
    return str(made.json()["id"])


async def tell(here: World, made: Transcript) -> tuple[str, str, Exchange]:
    """A run with thoughts, a failed attempt, a tool and two turns, every piece of it seen before the next is said."""
    stage = Stage(here)
    thread = await new_thread(here)
    path, body = f"{BASE}/threads/{thread}/messages", {"content": "hi"}
    d = here.dispatcher
    async with exchange(here.gateways[0][0], "POST", path, key=here.key, headers=STREAM, body=body) as x:
        watch = Watch(x)
        posted = await stage.posted()
        await watch.sees("message.posted")
        call = d.called(posted)
        await watch.sees("model.called")
        d.pieces(Piece(thread, call, 0, "thought", 0, "Let me "))
        await watch.sees("thought.delta")
        d.pieces(Piece(thread, call, 0, "thought", 7, "see."))
        await watch.sees("thought.delta")
        d.pieces(Piece(thread, call, 1, "text", 0, "Wrong "))
        await watch.sees("text.delta")
        d.failed(posted, call)
        await watch.sees("model.failed")
        call = d.called(posted, attempt=2)
        await watch.sees("run.restarted", "model.called")
        d.pieces(Piece(thread, call, 0, "text", 0, "Ré😀"))
        await watch.sees("text.delta")
        d.pieces(Piece(thread, call, 0, "text", 3, 't "1"\n'))
        await watch.sees("text.delta")
        arguments = {"zone": "UTC"}
        d.returned(posted, call, Block(kind="text", text='Ré😀t "1"\n. '), tool_block("clock", call, arguments))
        await watch.sees("text.delta", "model.returned")
        d.use(posted, call, "clock", arguments, '{"now":1}', note=Note(kind="milestone", id="n1", title="Go"))
        await watch.sees("tool.called", "tool.returned")
        call = d.called(posted, turn=1)
        await watch.sees("model.called")
        d.returned(posted, call, Block(kind="text", text="Done."), turn=1)
        await watch.sees("text.delta", "model.returned")
        d.completed(posted)
        await watch.sees("run.completed")
        await watch.ends()
        made.request("POST", path, {"headers": STREAM, "body": body})
        made.answer(x)
    end = d.state(thread).seq
    await here.eventually(lambda: len(here.past.facts[thread]) == end)
    return thread, run_id_of(posted), x


async def rest(here: World, path: str, cursor: str, gateway: int = 0, **options: Any) -> Exchange:
    headers = {"Last-Event-ID": cursor}
    return await ask(here.gateways[gateway][0], "GET", path, key=here.key, headers=headers, **options)


async def test_a_run_is_streamed_frame_by_frame(here: World) -> None:
    made = Transcript(here)
    _, run, x = await tell(here, made)
    assert x.status == 200
    assert x.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "parley-run-id": run,
        "parley-position": f"{run[:36]}@2",
    }
    frames = [frame_of(part) for part in x.parts]
    assert all(frame.id for frame in frames), "every frame carries a fact or a piece"
    assert {frame.data["message_id"] for frame in frames} == {run.replace(".r", ".a")}, "known from the first frame on"
    made.note("the same run, read when it has ended: the same facts; texts whole")
    await made.ask("GET", f"{BASE}/runs/{run}/events")
    made.compare(PAGES / "stream.txt")


async def test_every_id_gives_exactly_the_rest_on_any_gateway(here: World) -> None:
    await here.application()
    thread, run, x = await tell(here, Transcript(here))
    frames = [frame_of(part) for part in x.parts]
    facts = [frame.data for frame in frames if not frame.type.endswith(".delta")]
    text, thought = text_of(frames), text_of(frames, "thought.delta")
    messages = await ask(here.gateways[0][0], "GET", f"{BASE}/threads/{thread}/messages", key=here.key)
    assert text == messages.json()["items"][-1]["content"] == 'Ré😀t "1"\n. Done.'
    assert "5-1" in [frame.id for frame in frames], "a cursor between the frames of one fact is among them"
    for place, frame in enumerate(frames):
        again = await rest(here, f"{BASE}/runs/{run}/events", str(frame.id), gateway=place % 2)
        assert again.status == 200 and again.over
        both = frames[: place + 1] + [frame_of(part) for part in again.parts]
        assert [b.data for b in both if not b.type.endswith(".delta")] == facts, frame.id
        assert (text_of(both), text_of(both, "thought.delta")) == (text, thought), frame.id
        by_query = await ask(
            here.gateways[1][0], "GET", f"{BASE}/runs/{run}/events", key=here.key, params={"after": str(frame.id)}
        )
        assert by_query.body == again.body
    last = await rest(here, f"{BASE}/runs/{run}/events", str(frames[-1].id))
    assert last.status == 200 and last.over and last.body == b"", "at the end: nothing is left to say"


async def test_a_run_is_resumed_past_its_end_while_its_thread_goes_on(here: World) -> None:
    thread, run, _ = await tell(here, Transcript(here))
    stage = Stage(here)
    path = f"{BASE}/threads/{thread}/messages"
    await ask(here.gateways[0][0], "POST", path, key=here.key, body={"content": "more"})
    second = await stage.posted()
    past = await rest(here, f"{BASE}/runs/{run}/events", str(second.seq))
    assert (past.status, past.over, past.body) == (200, True, b"")
    early = await rest(here, f"{BASE}/runs/{run}/events", "0")
    assert frame_of(early.parts[0]).type == "message.posted", "from its beginning"
    ahead = await rest(here, f"{BASE}/runs/{run}/events", str((second.seq or 0) + 1))
    assert (ahead.status, ahead.json()["error"]) == (400, "cursor_ahead")


@pytest.mark.parametrize(
    "cursor", ["x", "-1", "01", "1-0", "2/", "2/3.0:1", "2/1.0", "٣", "1e3", "1 ", "2-1-1", "9" * 16]
)
async def test_garbage_is_no_cursor(here: World, cursor: str) -> None:
    thread = await new_thread(here)
    for params in ({"after": cursor}, {"cursor": cursor}):
        headers = {"Accept": "application/json"} if "cursor" in params else {}
        path = f"{BASE}/threads/{thread}/events"
        found = await ask(here.gateways[0][0], "GET", path, key=here.key, params=params, headers=headers)
        assert (found.status, found.json()["error"]) == (400, "bad_cursor"), params
    assert here.core.hub.listening == 0


async def test_a_page_of_facts_ends_where_the_log_ends(here: World) -> None:
    thread = await new_thread(here)
    path = f"{BASE}/threads/{thread}/events"
    for cursor, status in (("1", 200), ("2", 400), ("2-1", 400)):
        found = await ask(
            here.gateways[0][0],
            "GET",
            path,
            key=here.key,
            params={"cursor": cursor},
            headers={"Accept": "application/json"},
        )
        assert found.status == status, cursor
    here.past.held.clear()
    here.dispatcher.append(thread, f.ThreadUpdated(title="t", changes=("title",)))
    here.past.asked.clear()
    async with exchange(
        here.gateways[0][0],
        "GET",
        path,
        key=here.key,
        params={"cursor": "2"},
        headers={"Accept": "application/json"},
    ) as x:
        await here.eventually(lambda: sum("facts" in asked for asked in here.past.asked) == 2)
        here.past.held.set()
        await x.end()
    assert (x.status, x.json()) == (200, {"items": [], "next_cursor": None}), "the log had it, the view had not"


async def test_a_thread_is_streamed_stored_then_live_and_stays_open(here: World) -> None:
    thread, _, x = await tell(here, Transcript(here))
    stage = Stage(here)
    ran = [frame_of(part) for part in x.parts]
    path = f"{BASE}/threads/{thread}/events"
    async with exchange(here.gateways[0][0], "GET", path, key=here.key) as live:
        await live.until(lambda e: len(e.parts) and frame_of(e.parts[-1]).type == "run.completed")
        stored = [frame_of(part) for part in live.parts]
        assert [s.data for s in stored[1:] if not s.type.endswith(".delta")] == [
            r.data for r in ran if not r.type.endswith(".delta")
        ]
        whole_ids = [str(s.id) for s in stored if str(s.id).isdigit()]
        assert whole_ids == [str(n) for n in range(1, len(whole_ids) + 1)], "every fact's plain seq"
        await ask(here.gateways[0][0], "POST", f"{BASE}/threads/{thread}/messages", key=here.key, body={"content": "m"})
        posted = await stage.posted()
        here.dispatcher.append(thread, f.ThreadUpdated(title="t", changes=("title",)))
        here.dispatcher.completed(posted)
        await live.until(lambda e: len(e.parts) == len(stored) + 3)
        assert not live.over, "the thread goes on"
        assert [frame_of(p).type for p in live.parts[-3:]] == ["message.posted", "thread.updated", "run.completed"]
        assert "parley-run-id" not in live.headers


async def test_a_stream_of_one_run_shows_nothing_of_another(here: World) -> None:
    stage = Stage(here)
    thread = await new_thread(here)
    path = f"{BASE}/threads/{thread}/messages"
    app = here.gateways[0][0]
    d = here.dispatcher
    async with exchange(app, "POST", path, key=here.key, headers=STREAM, body={"content": "one"}) as first:
        one = await stage.posted()
        async with exchange(app, "POST", path, key=here.key, headers=STREAM, body={"content": "two"}) as second:
            two = await stage.posted()
            for posted in (one, two):
                call = d.called(posted)
                d.speak(posted, call, (f"of {run_id_of(posted)[-3:]}",))
                d.returned(posted, call, Block(kind="text", text=f"of {run_id_of(posted)[-3:]}"))
                d.completed(posted)
            await first.end()
            await second.end()
    for x, posted in ((first, one), (second, two)):
        frames = [frame_of(part) for part in x.parts]
        assert {frame.data["run_id"] for frame in frames} == {run_id_of(posted)}
        assert text_of(frames) == f"of {run_id_of(posted)[-3:]}"
        assert x.over
    assert frame_of(second.parts[0]).data["status"] == "queued"


async def test_a_cancelled_run_shows_what_it_had_said_and_ends(here: World) -> None:
    stage = Stage(here)
    thread = await new_thread(here)
    app, path = here.gateways[0][0], f"{BASE}/threads/{thread}/messages"
    d = here.dispatcher
    async with exchange(app, "POST", path, key=here.key, headers=STREAM, body={"content": "one"}) as x:
        watch = Watch(x)
        posted = await stage.posted()
        call = d.called(posted)
        d.pieces(Piece(thread, call, 0, "text", 0, "So "))
        await watch.sees("message.posted", "model.called", "text.delta")
        cancelled = await ask(app, "POST", f"{BASE}/runs/{run_id_of(posted)}/cancel", key=here.key)
        assert cancelled.status == 200
        await watch.sees("run.cancelling")
        d.cancelled(posted, call, Block(kind="text", text="So far"))
        frames: list[Frame] = await watch.sees("text.delta", "run.cancelled")
        await watch.ends()
    assert frames[0].data["delta"] == "far"
    assert frames[1].data["status"] == "cancelled" and frames[1].data["by"] == "ann"

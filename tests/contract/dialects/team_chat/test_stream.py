"""A stream of `team_chat`, send by send and byte for byte; what every cursor gives; tools where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from tests.contract.dialects.transcript import Stage, Transcript
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import Dispatcher, World, run_id_of, tool_block

AGENT = "/agents/assistant"
DONE = b"data: [DONE]\n\n"
PAGES = Path(__file__).parent / "transcripts"


async def parts(x: Exchange, number: int) -> None:
    """So many sends, one for each frame, have come."""
    await x.until(lambda x: len(x.parts) >= number or x.over)
    assert len(x.parts) == number, x.parts


def frames_of(x: Exchange) -> list[Frame]:
    """All frames but the closing word, which is there once, last."""
    assert [part for part in x.parts if part == DONE] == [DONE] == x.parts[-1:]
    return [frame_of(part) for part in x.parts[:-1]]


async def tell(here: World, made: Transcript, path: str) -> tuple[Exchange, Fact]:
    """The page's own stream, with a thought and a tool in between."""
    stage, d = Stage(here), here.dispatcher
    base, _, query = path.partition("?")
    params = dict([query.split("=")]) if query else {}
    message = {"message": "Hello!"}
    app = here.gateways[0][0]
    async with exchange(app, "POST", base, key=here.key, params=params, body=message) as x:
        posted = await stage.posted()
        tools = 2 if query else 0
        call = d.called(posted)
        d.pieces(Piece(posted.stream, call, 0, "thought", 0, "They greet."))
        d.returned(posted, call, Block(kind="thought", text="They greet."), tool_block("clock", call, {"zone": "UTC"}))
        d.use(posted, call, "clock", {"zone": "UTC"}, '{"time":"noon"}')
        await parts(x, tools) if tools else None
        call = d.called(posted, turn=1)
        for number, (at, word) in enumerate(((0, "Hello"), (5, " there!")), 1):
            d.pieces(Piece(posted.stream, call, 0, "text", at, word))
            await parts(x, tools + number)
        d.returned(posted, call, Block(kind="text", text="Hello there!"), turn=1)
        d.completed(posted)
        await x.end()
        await parts(x, tools + 4)
        made.request("POST", path, {"body": message})
        made.answer(x)
    end = d.state(posted.stream).seq
    await here.eventually(lambda: len(here.past.facts[posted.stream]) >= end)
    return x, posted


@pytest.mark.parametrize("below", ["", "/api"])
async def test_a_run_is_streamed_frame_by_frame(here: World, below: str) -> None:
    made = Transcript(here)
    x, posted = await tell(here, made, f"{below}{AGENT}/chat/stream")
    assert x.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "parley-run-id": run_id_of(posted),
        "parley-position": f"{posted.stream}@1",
    }
    lines = [line for line in x.body.decode().split("\n") if line.startswith("data: ")]
    assert lines == [
        'data: {"type":"text","content":"Hello"}',
        'data: {"type":"text","content":" there!"}',
        'data: {"type":"done","content":""}',
        "data: [DONE]",
    ], "as on the page"
    made.note("the same run, read when it has ended")
    await made.ask("GET", f"{below}{AGENT}/runs/{run_id_of(posted)}/events")
    made.note("with its tools")
    await made.ask("GET", f"{below}{AGENT}/runs/{run_id_of(posted)}/events?events=all")
    made.note("at its end")
    headers = {"Last-Event-ID": str(frames_of(x)[-1].id)}
    await made.ask("GET", f"{below}{AGENT}/runs/{run_id_of(posted)}/events", headers=headers)
    if not below:
        made.compare(PAGES / "stream.txt")


async def test_tools_are_told_where_they_are_asked_for(here: World) -> None:
    made = Transcript(here)
    x, _ = await tell(here, made, f"{AGENT}/chat/stream?events=all")
    made.compare(PAGES / "tools.txt")
    frames = frames_of(x)
    assert [frame.type for frame in frames] == ["tool_call", "tool_result", "text", "text", "done"]
    assert all(frame.data["content"] == "" for frame in frames if frame.type != "text")


@pytest.mark.parametrize("events", ["", "all"])
async def test_every_id_gives_exactly_the_rest(here: World, events: str) -> None:
    await here.application()
    query = f"?events={events}" if events else ""
    x, posted = await tell(here, Transcript(here), f"{AGENT}/chat/stream{query}")
    frames = frames_of(x)
    path, params = f"{AGENT}/runs/{run_id_of(posted)}/events", {"events": events} if events else {}
    for place, frame in enumerate(frames):
        headers = {"Last-Event-ID": str(frame.id)}
        app = here.gateways[place % 2][0]
        again = await ask(app, "GET", path, key=here.key, headers=headers, params=params)
        assert again.over and again.parts[-1] == DONE
        both = frames[: place + 1] + frames_of(again)
        assert "".join(b.data["content"] for b in both) == "Hello there!", frame.id
        facts = [b.data for b in both if b.type != "text"]
        assert facts == [b.data for b in frames if b.type != "text"], frame.id
    assert again.body == DONE, "at the end there is the closing word alone"


async def fails(d: Dispatcher, posted: Fact) -> None:
    call = d.called(posted)
    d.returned(posted, call, Block(kind="text", text="So far."), tool_block("clock", call, {}))
    d.failed(posted, d.called(posted, turn=1), retry=False)
    d.ended(posted, "cut", "the stream broke")


async def stops(d: Dispatcher, posted: Fact) -> None:
    d.cancelled(posted, d.called(posted), Block(kind="text", text="So far."))


async def test_a_failed_run_and_a_cancelled_one_end_in_an_error_and_the_closing_word(here: World) -> None:
    made = Transcript(here)
    for play in (fails, stops):
        here.dispatcher.play = play
        x = await made.ask("POST", f"{AGENT}/chat/stream", body={"message": "Go."})
        assert [frame.type for frame in frames_of(x)] == ["text", "error"]
    made.compare(PAGES / "broken.txt")


async def test_what_a_tool_of_the_client_said_is_told_with_its_name(here: World) -> None:
    async def hands(d: Dispatcher, posted: Fact) -> None:
        call = d.called(posted)
        d.returned(posted, call, tool_block("get_weather", call, {"location": "Tokyo"}))
        handed = d.handed(posted, call, "get_weather", {"location": "Tokyo"})
        d.parked(posted, handed)
        answer: dict[str, Any] = {"run_id": run_id_of(posted), "call": call, "index": 0, "tool_call_id": handed}
        d.append(posted.stream, f.ToolAnswered(result="clear", **answer))
        d.completed(posted)

    here.dispatcher.play = hands
    params = {"events": "all"}
    body = {"message": "Weather?"}
    x = await ask(here.gateways[0][0], "POST", f"{AGENT}/chat/stream", key=here.key, params=params, body=body)
    called, returned, _ = frames_of(x)
    assert called.data["tool_call"]["name"] == returned.data["tool_call"]["name"] == "get_weather"
    assert returned.data["tool_call"]["arguments"] == {"location": "Tokyo"}
    assert (returned.data["tool_call"]["result"], returned.data["tool_call"]["status"]) == ("clear", "ok")

"""A stream of `org_agents`, send by send and byte for byte; what every cursor gives."""

from __future__ import annotations

from pathlib import Path

from parley_events.body import Block
from parley_events.pieces import Piece
from tests.contract.dialects.org_agents.test_answers import CHAT, request_approval
from tests.contract.dialects.transcript import Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import frame_of
from tests.unit.gateway.world import World, tool_block

PAGES = Path(__file__).parent / "transcripts"
MESSAGE = {"message": "Pay.", "stream": True}


async def tell(here: World, made: Transcript) -> Exchange:
    stage, d = Stage(here), here.dispatcher
    async with exchange(here.gateways[0][0], "POST", CHAT, key=here.key, body=MESSAGE) as x:
        watch = Watch(x)
        await watch.sees("start")
        posted = await stage.posted()
        thread = posted.stream
        call = d.called(posted)
        d.pieces(Piece(thread, call, 0, "thought", 0, "Hm."))
        d.pieces(Piece(thread, call, 1, "text", 0, "I'll "))
        await watch.sees("text")
        blocks = (Block(kind="thought", text="Hm."), Block(kind="text", text="I'll pay. "))
        d.returned(posted, call, *blocks, tool_block("pay", call, {"eur": 3}), tool_block("log", call, {}))
        await watch.sees("text")
        request_approval(d, posted, call)
        d.use(posted, call, "pay", {"eur": 2}, "paid")
        [paid] = await watch.sees("tool_result")
        assert paid.data["input"] == {"eur": 2}, "as it was called, not as it was asked for"
        d.use(posted, call, "log", {}, "no", status="denied", index=1)
        await watch.sees("tool_result")
        call = d.called(posted, turn=1)
        d.pieces(Piece(thread, call, 0, "text", 0, "Paid"))
        await watch.sees("text")
        d.returned(posted, call, Block(kind="text", text="Paid."), turn=1)
        await watch.sees("text")
        d.completed(posted)
        [end] = await watch.sees("complete")
        assert end.data["response"]["text"] == "Paid.", "the last turn's"
        await watch.ends()
        made.request("POST", CHAT, {"body": MESSAGE})
        made.answer(x)
    end_seq = d.state(thread).seq
    await here.eventually(lambda: len(here.past.facts[thread]) == end_seq)
    return x


async def test_a_run_is_streamed_frame_by_frame(here: World) -> None:
    made = Transcript(here)
    x = await tell(here, made)
    run = x.headers["parley-run-id"]
    made.note("the same run, read when it has ended")
    await made.ask("GET", f"{CHAT}/runs/{run}/events")
    made.compare(PAGES / "stream.txt")


async def test_every_id_gives_exactly_the_rest(here: World) -> None:
    await here.application()
    x = await tell(here, Transcript(here))
    frames = [frame_of(part) for part in x.parts]
    path = f"{CHAT}/runs/{x.headers['parley-run-id']}/events"
    for place, frame in enumerate(frames):
        headers = {"Last-Event-ID": str(frame.id)}
        again = await ask(here.gateways[place % 2][0], "GET", path, key=here.key, headers=headers)
        assert again.status == 200 and again.over
        both = frames[: place + 1] + [frame_of(part) for part in again.parts]
        assert [b.data for b in both if b.type != "text"] == [b.data for b in frames if b.type != "text"], frame.id
        assert "".join(b.data["text"] for b in both if b.type == "text") == "I'll pay. Paid.", frame.id


async def test_a_run_of_another_agent_is_not_there(here: World) -> None:
    run = (await ask(here.gateways[0][0], "POST", CHAT, key=here.key, body=MESSAGE)).headers["parley-run-id"]
    for agent, status in (("assistant", 200), ("scripted", 404), ("nobody", 404)):
        path = CHAT.replace("assistant", agent) + f"/runs/{run}/events"
        assert (await ask(here.gateways[0][0], "GET", path, key=here.key)).status == status

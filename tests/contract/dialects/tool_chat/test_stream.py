"""A stream of `tool_chat`, send by send and byte for byte; what every cursor gives, up to where the client must act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from tests.contract.dialects.tool_chat.client import Client
from tests.contract.dialects.transcript import Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import World, tool_block

CHAT = "/api/agents/assistant/chat"
PAGES = Path(__file__).parent / "transcripts"
MESSAGE = {"message": "Tell me a story", "stream": True}
RESULT = {"role": "tool", "content": "clear", "stream": True}


class Told:
    """A run in two parts: the client runs two tools in between, and posts their results."""

    def __init__(self, here: World) -> None:
        self.here, self.stage, self.client = here, Stage(here), Client(here)
        self.made = Transcript(here)
        self.parts: list[list[Frame]] = []

    async def tell(self) -> Fact:
        d = self.here.dispatcher
        async with self._posting(MESSAGE) as x:
            watch = Watch(x)
            await watch.sees("start")
            posted = await self.stage.posted()
            self.run = x.headers["parley-run-id"]
            call = d.called(posted)
            d.pieces(Piece(posted.stream, call, 0, "text", 0, "Let me "))
            await watch.sees("delta")
            self.client.called(posted, call, "Let me look. ", "c1", "c2")
            [_, done] = await watch.sees("delta", "done")
            assert [one["id"] for one in done.data["message"]["tool_calls"]] == ["c1", "c2"]
            await watch.ends()
            self._ended(MESSAGE, x)
        first = {**RESULT, "tool_call_id": "c1"}
        pending = await self.made.ask("POST", CHAT, body=first)
        assert (pending.status, pending.json()) == (202, {"pending": ["c2"]})
        self.client.waits(posted, "c2")
        last = {**RESULT, "tool_call_id": "c2", "conversation_id": posted.stream}
        async with self._posting(last) as x:
            watch = Watch(x)
            await watch.sees("start")
            call = d.called(posted, turn=1)
            d.pieces(Piece(posted.stream, call, 0, "text", 0, "It is "))
            await watch.sees("delta")
            d.returned(posted, call, Block(kind="text", text="It is clear."), tool_block("clock", call, {}), turn=1)
            await watch.sees("delta")
            d.use(posted, call, "clock", {}, "now")
            call = d.called(posted, turn=2)
            d.returned(posted, call, Block(kind="text", text=" Now."), turn=2)
            d.completed(posted)
            await watch.sees("delta", "done")
            await watch.ends()
            self._ended(last, x)
        end = d.state(posted.stream).seq
        await self.here.eventually(lambda: len(self.here.past.facts[posted.stream]) == end)
        return posted

    def _posting(self, body: Any) -> Any:
        return exchange(self.here.gateways[0][0], "POST", CHAT, key=self.here.key, body=body)

    def _ended(self, body: Any, x: Exchange) -> None:
        self.made.request("POST", CHAT, {"body": body})
        self.made.answer(x)
        self.parts.append([frame_of(part) for part in x.parts])


def texts(frames: list[Frame]) -> str:
    return "".join(frame.data["content"] for frame in frames if frame.type == "delta")


def facts(frames: list[Frame]) -> list[Any]:
    return [frame.data for frame in frames if frame.type != "delta"]


async def test_a_run_is_streamed_in_parts_frame_by_frame(here: World) -> None:
    told = Told(here)
    await told.tell()
    told.made.compare(PAGES / "stream.txt")
    for part in told.parts:
        start, done = part[0].data, part[-1].data["message"]
        assert start == {"type": "start", "id": done["id"]}
        assert texts(part) == done["content"]
    rows = (await ask(here.gateways[0][0], "GET", CHAT, key=here.key)).json()["messages"]
    answers = [row for row in rows if row["role"] == "assistant"]
    assert answers == [part[-1].data["message"] for part in told.parts], "the history has what was told"


async def test_every_id_gives_exactly_the_rest_of_its_part(here: World) -> None:
    await here.application()
    told = Told(here)
    await told.tell()
    path = f"{CHAT}/runs/{told.run}/events"
    for number, part in enumerate(told.parts):
        for place, frame in enumerate(part):
            headers = {"Last-Event-ID": str(frame.id)}
            again = await ask(here.gateways[place % 2][0], "GET", path, key=here.key, headers=headers)
            assert again.status == 200 and again.over
            rest = [frame_of(one) for one in again.parts]
            if place == len(part) - 1 and number == 0:
                assert (texts(rest), facts(rest)) == (texts(told.parts[1]), facts(told.parts[1])), "the next part"
            else:
                both = part[: place + 1] + rest
                assert (texts(both), facts(both)) == (texts(part), facts(part)), frame.id


async def test_a_call_that_expires_goes_on_as_a_part_of_its_own(here: World) -> None:
    """One of two results came. Who follows the run sees the next part begin, with the id that the history has."""
    told = Told(here)
    d, app = here.dispatcher, here.gateways[0][0]
    found = await ask(app, "POST", CHAT, key=here.key, params={"wait": "0"}, body={"message": "hi"})
    posted = await told.stage.posted()
    told.client.called(posted, d.called(posted), "", "c1", "c2")
    assert (await ask(app, "POST", CHAT, key=here.key, body={**RESULT, "tool_call_id": "c1"})).status == 202
    path = f"{CHAT}/runs/{found.json()['run_id']}/events"
    first = await ask(app, "GET", path, key=here.key)
    headers = {"Last-Event-ID": str(frame_of(first.parts[-1]).id)}
    async with exchange(app, "GET", path, key=here.key, headers=headers) as x:
        watch = Watch(x)
        told.client.waits(posted, "c2")
        told.client.closed(posted, "c2")
        await watch.sees("start")
        call = d.called(posted, turn=1)
        d.returned(posted, call, Block(kind="text", text="Well."), turn=1)
        d.completed(posted)
        [_, done] = await watch.sees("delta", "done")
        await watch.ends()
    rows = (await ask(app, "GET", CHAT, key=here.key)).json()["messages"]
    assert rows[-1] == done.data["message"]


async def test_a_result_that_comes_before_the_run_is_parked_changes_nothing_for_who_follows(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(here)
    d, app = here.dispatcher, here.gateways[0][0]
    monkeypatch.setattr(told.client, "waits", lambda *_: None)
    async with told._posting(MESSAGE) as x:
        watch = Watch(x)
        await watch.sees("start")
        posted = await told.stage.posted()
        told.client.called(posted, d.called(posted), "", "c1")
        async with exchange(app, "POST", CHAT, key=here.key, body={**RESULT, "tool_call_id": "c1"}) as y:
            other = Watch(y)
            await other.sees("start")
            call = d.called(posted, turn=1)
            d.returned(posted, call, Block(kind="text", text="Well."), turn=1)
            d.completed(posted)
            await other.sees("delta", "done")
        await watch.sees("delta", "done")
        await watch.ends()

"""What is unread: what came to nobody, until it is marked; what was delivered is read without anybody's saying so."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.facts import ThreadRead
from parley_gateway.errors import Unavailable
from tests.contract.dialects.test_rights import new_key
from tests.contract.dialects.transcript import Stage, Transcript
from tests.support.asgi import Exchange, ask, exchange
from tests.unit.gateway.world import Dispatcher, World, run_id_of, say

AGENT = "/agents/assistant"
CHAT = "/api/v1/chat"
PAGES = Path(__file__).parent / "transcripts"


async def do(here: World, method: str, path: str, gateway: int = 0, **options: Any) -> Exchange:
    return await ask(here.gateways[gateway][0], method, path, **{"key": here.key, **options})


async def unread(here: World, gateway: int = 0, **options: Any) -> list[str]:
    found = (await do(here, "GET", f"{AGENT}/inbox", gateway, **options)).json()
    assert set(found) == {"messages", "unread"} and found["unread"] == len(found["messages"])
    return [message["content"] for message in found["messages"]]


async def left_behind(here: World, text: str, conversation: str | None = None) -> str:
    """An answer that comes when nobody is there; its conversation."""
    stage = Stage(here)
    body = {"message": "hi", **({"conversation_id": conversation} if conversation else {})}
    await do(here, "POST", f"{AGENT}/chat", params={"wait": "0"}, body=body)
    posted = await stage.posted()
    await say(text)(here.dispatcher, posted)
    end = here.dispatcher.state(posted.stream).seq
    await here.eventually(lambda: len(here.past.facts[posted.stream]) >= end)
    return posted.stream


def marks(here: World, stream: str) -> list[int]:
    return [fact.body.up_to for fact in here.dispatcher.written[stream] if isinstance(fact.body, ThreadRead)]


async def test_the_inbox_and_its_marks(here: World) -> None:
    first = await left_behind(here, "One.")
    other = (await do(here, "POST", f"{AGENT}/conversations", body={"title": "Other"})).json()["id"]
    await left_behind(here, "Two.", other)
    await left_behind(here, "Three.", other)
    made = Transcript(here)
    found = await made.ask("GET", f"{AGENT}/inbox")
    await made.ask("GET", f"{AGENT}/inbox?limit=1")
    two = next(message["id"] for message in found.json()["messages"] if message["content"] == "Two.")
    made.note("up to a message")
    await made.ask("POST", f"{AGENT}/mark-read", body={"up_to": two})
    assert await unread(here) == ["One.", "Three."]
    made.note("a mark does not go back; a repeat is one")
    for _ in range(2):
        body = {"conversation_id": other, "up_to": two}
        await made.ask("POST", f"{AGENT}/mark-read", body=body, headers={"Idempotency-Key": "m"})
    made.note("one conversation")
    await made.ask("POST", f"/api{AGENT}/mark-read", body={"conversation_id": first})
    assert await unread(here) == ["Three."]
    made.note("all there is")
    await made.ask("POST", f"{AGENT}/mark-read", body={})
    await made.ask("GET", f"{AGENT}/inbox")
    made.note("nothing is left to do")
    await made.ask("POST", f"{AGENT}/mark-read")
    made.compare(PAGES / "inbox.txt")


DELIVERED = [
    ("POST", f"{AGENT}/chat", {"message": "hi"}),
    ("POST", f"{AGENT}/chat/stream", {"message": "hi"}),
    ("POST", f"/api{AGENT}/chat/stream", {"message": "hi"}),
    ("POST", f"/api{AGENT}/chat", {"message": "hi"}),
    ("POST", f"/api{AGENT}/chat", {"message": "hi", "stream": True}),
]
"""Every way in which an answer comes to the one who asked; the last two are `tool_chat`'s, whose address clients of the
page use, too."""


@pytest.mark.parametrize(("method", "path", "body"), DELIVERED)
async def test_what_came_to_the_one_who_asked_is_read_at_once(
    here: World, method: str, path: str, body: dict[str, Any]
) -> None:
    await left_behind(here, "Before.")
    assert await unread(here) == ["Before."]
    for number in range(2):
        here.dispatcher.play = say(f"Answer {number}.")
        assert (await do(here, method, path, body=body)).status == 200
        shown = await unread(here)
        assert f"Answer {number}." not in shown, "though nobody waited for the mark"
    assert here.core.hub.listening == 0 and not here.core.marks._sending


@pytest.mark.parametrize(("method", "path", "body"), DELIVERED)
async def test_what_a_client_that_left_did_not_get_stays_unread(
    here: World, method: str, path: str, body: dict[str, Any]
) -> None:
    stage = Stage(here)
    async with exchange(here.gateways[0][0], method, path, key=here.key, body=body) as x:
        posted = await stage.posted()
        call = here.dispatcher.called(posted)
        x.leave()
        here.dispatcher.returned(posted, call, Block(kind="text", text="Anybody there?"))
        here.dispatcher.completed(posted)
        await x.end()
    assert await unread(here) == ["Anybody there?"]
    assert marks(here, posted.stream) == []


@pytest.mark.parametrize(
    "path", [f"{AGENT}/runs/{{}}/events", f"/api{AGENT}/chat/runs/{{}}/events", f"{AGENT}/runs/{{}}"]
)
async def test_who_comes_back_for_the_answer_has_read_it_then(here: World, path: str) -> None:
    conversation = await left_behind(here, "Late.")
    run = run_id_of(here.dispatcher.written[conversation][0])
    _, reader = await new_key(here, ("read",))
    _, boss = await new_key(here, ("*", "admin"), "boss")
    for key in (reader, boss):
        assert (await do(here, "GET", path.format(run), key=key)).status == 200
        assert await unread(here) == ["Late."], "who may only read, or is somebody else, moves no mark"
    assert (await do(here, "GET", path.format(run))).status == 200
    assert await unread(here) == []


async def test_who_looks_again_and_again_sends_one_mark(here: World) -> None:
    conversation = await left_behind(here, "Late.")
    run = run_id_of(here.dispatcher.written[conversation][0])
    for _ in range(3):
        for path in (f"{AGENT}/runs/{run}", f"{AGENT}/runs/{run}/events"):
            assert (await do(here, "GET", path)).status == 200
            assert await unread(here) == []
    asked = [command for command in here.dispatcher.heard if command.type == "thread.mark_read"]
    assert len(asked) == 1 and len(marks(here, conversation)) == 1


async def test_a_run_that_is_looked_at_before_it_has_ended_is_not_read(here: World) -> None:
    stage = Stage(here)
    late = await do(here, "POST", f"{AGENT}/chat", params={"wait": "0"}, body={"message": "hi"})
    posted = await stage.posted()
    assert (await do(here, "GET", f"{AGENT}/runs/{late.json()['run_id']}")).json()["status"] == "running"
    await say("Later.")(here.dispatcher, posted)
    await here.eventually(lambda: len(here.past.facts[posted.stream]) >= 4)
    assert await unread(here) == ["Later."]


async def test_a_stream_that_a_stopping_gateway_ends_has_not_delivered_the_answer(here: World) -> None:
    stage = Stage(here)
    async with exchange(here.gateways[0][0], "POST", f"{AGENT}/chat/stream", key=here.key, body={"message": "hi"}) as x:
        posted = await stage.posted()
        here.core.hub.drain()
        await x.end()
    assert not here.core.marks._sending
    await say("Later.")(here.dispatcher, posted)
    await here.application()
    assert await unread(here, 1) == ["Later."]


async def test_a_failed_run_is_read_where_its_text_was_seen(here: World) -> None:
    async def breaks(d: Dispatcher, posted: Fact) -> None:
        d.returned(posted, d.called(posted), Block(kind="text", text="So far."))
        d.ended(posted, "cut", "the stream broke")

    here.dispatcher.play = breaks
    assert (await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"})).status == 500
    assert await unread(here) == ["So far."], "a waiting call does not have it"
    assert (await do(here, "POST", f"{AGENT}/chat/stream", body={"message": "hi"})).status == 200
    assert await unread(here) == []


async def test_what_other_contracts_say_to_the_user_is_in_the_inbox_too(here: World) -> None:
    here.dispatcher.play = say("By another way.")
    path = "/api/v3/organizations/default/ai/agents/assistant/chat"
    assert (await do(here, "POST", path, body={"message": "hi"})).status == 200
    kept = await do(here, "POST", path, body={"message": "hi", "userId": "kim"})
    assert kept.status == 200
    assert await unread(here) == ["By another way."], "but not what is kept for somebody else"
    _, bob = await new_key(here, ("*",), "bob")
    assert await unread(here, key=bob) == []
    assert (await do(here, "GET", "/agents/scripted/inbox")).json() == {"messages": [], "unread": 0}


async def test_all_that_another_gateway_answered_a_moment_ago_is_marked(here: World) -> None:
    """History has not heard of it yet."""
    await here.application()
    here.dispatcher.play = say("Just now.")
    here.past.held.clear()
    path = "/api/v3/organizations/default/ai/agents/assistant/chat"
    session = (await do(here, "POST", path, body={"message": "hi"})).json()["sessionId"]
    async with exchange(here.gateways[1][0], "POST", f"{AGENT}/mark-read", key=here.key, body={}) as x:
        await here.eventually(lambda: any(path.endswith("/unread") for path in here.past.asked))
        here.past.held.set()
        await x.end()
    assert (x.status, x.json()) == (200, {"unread": 0})
    assert len(marks(here, session)) == 1


def asked_more(here: World, before: int) -> bool:
    return sum(path.endswith("/inbox") for path in here.past.asked) > before


async def test_what_is_left_is_counted_after_the_marks(here: World) -> None:
    """Though history takes a while to hear of them."""
    conversation = await left_behind(here, "Hi.")
    for body in ({"conversation_id": conversation}, {}):
        await left_behind(here, "Hi.", conversation)
        here.past.held.clear()
        counted = [path for path in here.past.asked if path.endswith("/inbox")]
        async with exchange(here.gateways[0][0], "POST", f"{AGENT}/mark-read", key=here.key, body=body) as x:
            await here.eventually(partial(asked_more, here, len(counted)))
            here.past.held.set()
            await x.end()
        assert (x.status, x.json()) == (200, {"unread": 0})


async def test_an_inbox_waits_for_the_marks_of_what_its_key_was_told(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_log, taken = here.core.sender.ask, asyncio.Event()

    async def slow(who: Any, command: Any) -> Any:
        if command.type == "thread.mark_read":
            await taken.wait()
        return await ask_log(who, command)

    monkeypatch.setattr(here.core.sender, "ask", slow)
    assert (await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"})).status == 200
    async with exchange(here.gateways[0][0], "GET", f"{AGENT}/inbox", key=here.key) as x:
        _, bob = await new_key(here, ("*",), "bob")
        assert await unread(here, key=bob) == [], "who was told nothing does not wait"
        assert not x.sends
        taken.set()
        await x.end()
    assert x.json() == {"messages": [], "unread": 0}


async def test_many_conversations_are_marked_at_once_and_one_deleted_meanwhile_does_not_matter(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = []
    for number in range(30):
        made = (await do(here, "POST", f"{AGENT}/conversations", body={"title": str(number)})).json()["id"]
        streams.append(await left_behind(here, f"{number}", made))
    look = here.core.reads.unread_now

    async def looks(who: Any, params: Any) -> Any:
        page = await look(who, params)
        assert (await do(here, "DELETE", f"{CHAT}/threads/{streams[7]}")).status == 204
        return page

    monkeypatch.setattr(here.core.reads, "unread_now", looks)
    found = await do(here, "POST", f"{AGENT}/mark-read", body={})
    assert (found.status, found.json()) == (200, {"unread": 0})
    assert [len(marks(here, stream)) for stream in streams] == [int(stream != streams[7]) for stream in streams]


async def test_they_are_marked_page_by_page(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_gateway.dialects.team_chat.inbox.PAGE", 2)
    for number in range(5):
        made = (await do(here, "POST", f"{AGENT}/conversations", body={"title": str(number)})).json()["id"]
        await left_behind(here, f"{number}", made)
    assert (await do(here, "POST", f"{AGENT}/mark-read", body={})).json() == {"unread": 0}
    assert sum(path.endswith("/unread") for path in here.past.asked) == 3


async def test_a_mark_that_the_log_does_not_take_leaves_the_answer_unread_and_nobody_waits(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_log = here.core.sender.ask

    async def away(who: Any, command: Any) -> Any:
        if command.type == "thread.mark_read":
            raise Unavailable("away")
        return await ask_log(who, command)

    monkeypatch.setattr(here.core.sender, "ask", away)
    here.dispatcher.play = say("Hi.")
    assert (await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"})).status == 200
    assert await unread(here) == ["Hi."]
    monkeypatch.undo()
    assert (await do(here, "POST", f"{AGENT}/mark-read")).json() == {"unread": 0}


async def test_an_inbox_waits_for_marks_no_longer_than_its_limit(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def hangs(who: Any, command: Any) -> Any:
        await never.wait()

    here.dispatcher.play = say("Hi.")
    monkeypatch.setattr("parley_gateway.marks.SETTLE_S", 0.05)
    monkeypatch.setattr("parley_gateway.marks.MOST", 1)
    answer = await do(here, "POST", f"{AGENT}/chat", params={"wait": "0"}, body={"message": "hi"})
    run = f"{AGENT}/runs/{answer.json()['run_id']}"
    await here.eventually(lambda: len(here.past.facts.get(answer.json()["conversation_id"], [])) >= 4)
    monkeypatch.setattr(here.core.sender, "ask", hangs)
    for _ in range(2):
        assert (await do(here, "GET", run)).json()["response"] == "Hi."
    assert here.core.marks._count == 1, "more than there may be are let go"
    assert await unread(here) == ["Hi."]
    never.set()

"""Every request of `tool_chat` that is not a stream: its command, and its answer byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.ids import agent_uuid
from tests.contract.dialects.test_rights import new_key
from tests.contract.dialects.tongues import NOBODY
from tests.contract.dialects.tool_chat.client import Client
from tests.contract.dialects.transcript import NOW_MS, Stage, Transcript
from tests.support.asgi import ask, exchange
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, say, tool_block

CHAT = "/api/agents/assistant/chat"
PAGES = Path(__file__).parent / "transcripts"


async def test_a_message_is_answered_and_kept_with_what_came_with_it(here: World) -> None:
    here.dispatcher.play = say("Hi ", "there!")
    made = Transcript(here)
    made.note("nothing was said here yet")
    await made.ask("GET", CHAT)
    for _ in range(2):
        first = await made.ask("POST", CHAT, body={"message": "Hello!"}, headers={"Idempotency-Key": "k"})
    made.note("under the same key with another body")
    await made.ask("POST", CHAT, body={"message": "Else."}, headers={"Idempotency-Key": "k"})
    conversation = first.json()["conversation_id"]
    made.note("the agent by its UUID; the same conversation, with a context and metadata")
    uuid = f"/api/agents/{agent_uuid(WORKSPACE, 'assistant')}/chat"
    context = {"message": "And?", "context": {"plan": "premium"}, "metadata": {"source": "web"}}
    await made.ask("POST", uuid, body={**context, "conversation_id": conversation})
    made.note("another conversation, with a prompt of its own")
    await made.ask("POST", CHAT, body={"message": "Help.", "system_prompt": "You are a support agent."})
    await made.ask("GET", f"{CHAT}?conversation_id={conversation}")
    await made.ask("GET", f"{CHAT}?limit=2")
    await made.ask("GET", f"{CHAT}?before=2&limit=1")
    await made.ask("GET", f"{CHAT}?after=3&limit=1&conversation_id={conversation}")
    made.note("cleared, it stays known and is empty")
    await made.ask("DELETE", f"{CHAT}?conversation_id={conversation}")
    await made.ask("GET", f"{CHAT}?conversation_id={conversation}")
    await made.ask("POST", CHAT, body={"message": "Once more.", "conversation_id": conversation})
    made.compare(PAGES / "messages.txt")


async def test_all_conversations_with_the_agent_are_cleared_and_no_others(here: World) -> None:
    app = here.gateways[0][0]
    for text in ("one", "two"):
        await ask(app, "POST", CHAT, key=here.key, body={"message": text})
    other = CHAT.replace("assistant", "scripted")
    await ask(app, "POST", other, key=here.key, body={"message": "three"})
    v3 = "/api/v3/organizations/default/ai/agents/assistant/chat"
    kept = await ask(app, "POST", v3, key=here.key, body={"message": "for kim", "userId": "kim"})
    _, bob = await new_key(here, ("*",), "bob")
    await ask(app, "POST", CHAT, key=bob, body={"message": "bob's"})
    cleared = await ask(app, "DELETE", CHAT, key=here.key)
    assert (cleared.status, cleared.json()) == (200, {"success": True, "deleted": 4})
    found = (await ask(app, "GET", CHAT, key=here.key)).json()
    assert found == {"messages": [], "meta": {"total": 0, "has_more": False}}
    assert (await ask(app, "DELETE", CHAT, key=here.key)).json() == {"success": True, "deleted": 0}
    for path, key in ((other, here.key), (CHAT, bob)):
        assert (await ask(app, "GET", path, key=key)).json()["meta"]["total"] == 2
    session = f"{CHAT}?conversation_id={kept.json()['sessionId']}"
    path, _, query = session.partition("?")
    params = dict([query.split("=")])
    assert (await ask(app, "GET", path, key=here.key, params=params)).json()["meta"]["total"] == 2


async def uses(d: Dispatcher, posted: Fact) -> None:
    """A tool of the server's, then the answer."""
    call = d.called(posted)
    d.returned(posted, call, Block(kind="text", text="Let me see. "), tool_block("clock", call, {"zone": "UTC"}))
    d.use(posted, call, "clock", {"zone": "UTC"}, '{"time":"now"}')
    call = d.called(posted, turn=1)
    d.returned(posted, call, Block(kind="text", text="Now."), turn=1)
    d.completed(posted)


async def test_what_tools_of_the_server_said_is_shown_where_it_is_asked_for(here: World) -> None:
    here.dispatcher.play = uses
    made = Transcript(here)
    await made.ask("POST", CHAT, body={"message": "When?"})
    await made.ask("GET", CHAT)
    await made.ask("GET", f"{CHAT}?include=tools")
    made.compare(PAGES / "tools.txt")


async def test_tools_of_the_client(here: World) -> None:
    """The page's story: an answer with calls, their results one by one, the next answer."""
    stage, d, client = Stage(here), here.dispatcher, Client(here)
    made = Transcript(here)

    async def play(d: Dispatcher, posted: Fact) -> None:
        client.called(posted, d.called(posted), "", "call_123", "call_124")
        stage._posts.put_nowait(posted)

    d.play = play
    asked = await made.ask("POST", CHAT, body={"message": "What's the weather like?"})
    posted = await stage.posted()
    await made.ask("GET", CHAT)
    made.note("one result of two; the same again under its key; a key of its own for the other")
    result = {"role": "tool", "tool_call_id": "call_123", "content": '{"sky":"clear"}'}
    for _ in range(2):
        await made.ask("POST", CHAT, body=result, headers={"Idempotency-Key": "r1"})
    made.note("answered already (also said twice); nobody's; incomplete")
    for _ in range(2):
        await made.ask("POST", CHAT, body=result, headers={"Idempotency-Key": "r3"})
    await made.ask("POST", CHAT, body={**result, "tool_call_id": "call_999"})
    conversation = asked.json()["conversation_id"]
    await made.ask("POST", CHAT, body={**result, "tool_call_id": "call_999", "conversation_id": conversation})
    await made.ask("POST", CHAT, body={"role": "tool", "content": "x"})
    await made.ask("POST", CHAT, body={"role": "tool", "tool_call_id": "call_124"})
    made.note("the last result: it is posted with `?wait=0`, and again when the run has gone on")
    last = {**result, "tool_call_id": "call_124", "content": "", "is_error": True, "conversation_id": conversation}
    key = {"Idempotency-Key": "r2"}
    await made.ask("POST", f"{CHAT}?wait=0", body=last, headers=key)
    client.waits(posted)
    call = d.called(posted, turn=1)
    client.called(posted, call, "Let me ask again. ", "call_125", turn=1)
    await made.ask("POST", CHAT, body=last, headers=key)
    made.note("the call is closed without its result, and the run goes on")
    client.closed(posted, "call_125")
    call = d.called(posted, turn=2)
    d.returned(posted, call, Block(kind="text", text="It is clear."), turn=2)
    d.completed(posted)
    await made.ask("GET", f"{CHAT}?min_position={posted.stream}@{d.state(posted.stream).seq}")
    made.note("the run's stream goes to where the client's turn came")
    await made.ask("GET", f"{CHAT}/runs/{asked.headers['parley-run-id']}/events")
    made.compare(PAGES / "client_tools.txt")
    rows = (await ask(here.gateways[0][0], "GET", CHAT, key=here.key)).json()["messages"]
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    told = "".join(row["content"] or "" for row in rows if row["role"] == "assistant")
    whole = await ask(here.gateways[0][0], "GET", f"/api/v1/chat/threads/{conversation}/messages", key=here.key)
    assert [m["content"] for m in whole.json()["items"] if m["role"] == "assistant"] == [told]


async def test_a_failed_run_is_500_and_a_cancelled_one_too(here: World) -> None:
    async def fails(d: Dispatcher, posted: Fact) -> None:
        call = d.called(posted)
        d.failed(posted, call, retry=False)
        d.ended(posted, "cut", "the stream broke")

    async def stops(d: Dispatcher, posted: Fact) -> None:
        d.cancelled(posted, d.called(posted), Block(kind="text", text="So far"))

    made = Transcript(here)
    for play in (fails, stops):
        here.dispatcher.play = play
        await made.ask("POST", CHAT, body={"message": "Go."})
    stage = Stage(here)
    await made.ask("POST", f"{CHAT}?wait=0", body={"message": "Go."})
    await stage.posted()
    made.compare(PAGES / "ends.txt")


async def test_what_is_refused(here: World) -> None:
    made = Transcript(here)
    app = here.gateways[0][0]
    mine = (await ask(app, "POST", CHAT, key=here.key, body={"message": "hi"})).json()["conversation_id"]
    _, bob = await new_key(here, ("*",), "bob")
    foreign = (await ask(app, "POST", CHAT, key=bob, body={"message": "hi"})).json()["conversation_id"]
    elsewhere = CHAT.replace("assistant", "scripted")
    for wrong in (
        {},
        {"message": ""},
        {"message": 7},
        {"message": "hi", "context": "x"},
        {"message": "hi", "role": "system"},
        {"message": "hi", "stream": 1},
        {"message": "hi", "conversation_id": ""},
    ):
        await made.ask("POST", CHAT, body=wrong)
    made.note("conversations that are not there: unknown, no id at all, another user's, one with another agent")
    for path, conversation in ((CHAT, NOBODY), (CHAT, "conv-123"), (CHAT, foreign), (elsewhere, mine)):
        made.note(f"{path} {conversation}")
        for found in (
            await made.ask("GET", f"{path}?conversation_id={conversation}"),
            await made.ask("DELETE", f"{path}?conversation_id={conversation}"),
            await made.ask("POST", path, body={"message": "hi", "conversation_id": conversation}),
            await made.ask(
                "POST", path, body={"role": "tool", "tool_call_id": "c", "content": "", "conversation_id": conversation}
            ),
        ):
            assert (found.status, found.json()["error"]["code"]) == (404, "not_found")
    for method in ("GET", "POST", "DELETE"):
        await made.ask(method, "/api/agents/nobody/chat", body={"message": "hi"})
    for query in ("before=1&after=1", "before=x", "after=-1", "before=1.0", "after=99999999999999999999", "limit=0"):
        await made.ask("GET", f"{CHAT}?{query}")
    made.compare(PAGES / "refused.txt")


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [(("chat",), 403), (("chat", "prompt:override"), 200), (("*",), 200), (("agent:assistant",), 403)],
)
async def test_a_prompt_is_replaced_by_those_who_may(here: World, scopes: tuple[str, ...], allowed: int) -> None:
    _, key = await new_key(here, scopes)
    app = here.gateways[0][0]
    for prompt in ("Be rude.", ""):
        found = await ask(app, "POST", CHAT, key=key, body={"message": "hi", "system_prompt": prompt})
        assert found.status == allowed
    assert (await ask(app, "POST", CHAT, key=key, body={"message": "hi", "system_prompt": None})).status == 200


async def test_a_key_that_may_only_chat_may_clear_and_go_on(here: World) -> None:
    _, key = await new_key(here, ("chat",))
    app = here.gateways[0][0]
    made = (await ask(app, "POST", CHAT, key=key, body={"message": "hi"})).json()["conversation_id"]
    params = {"conversation_id": made}
    assert (await ask(app, "POST", CHAT, key=key, body={"message": "on", **params})).status == 200
    assert (await ask(app, "DELETE", CHAT, key=key, params=params)).json()["deleted"] == 4
    assert (await ask(app, "GET", CHAT, key=key, params=params)).status == 403


async def test_an_approval_is_waited_for_like_anything_else(here: World) -> None:
    """It is not the client's turn while a person is asked alone."""
    stage, d = Stage(here), here.dispatcher
    found = await ask(here.gateways[0][0], "POST", CHAT, key=here.key, params={"wait": "0"}, body={"message": "Pay."})
    posted = await stage.posted()
    call = d.called(posted)
    d.returned(posted, call, tool_block("pay", call, {}))
    run = found.json()["run_id"]
    fields: dict[str, Any] = {"run_id": run, "call": call, "index": 0, "tool_call_id": "p", "due_at_ms": NOW_MS}
    d.append(posted.stream, f.ApprovalRequested(name="pay", arguments={}, **fields))
    d.append(posted.stream, f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=("p",)))
    d.completed(posted)
    stream = await ask(here.gateways[0][0], "GET", f"{CHAT}/runs/{run}/events", key=here.key)
    assert [b"start" in stream.parts[0], b"done" in stream.parts[1]] == [True, True] and len(stream.parts) == 2


async def test_a_call_that_another_gateway_told_of_a_moment_ago_is_found(here: World) -> None:
    """History has not heard of it yet, and the client does not say in which conversation it is."""
    client = Client(here)
    await here.application()

    async def play(d: Dispatcher, posted: Fact) -> None:
        client.called(posted, d.called(posted), "", "c1", "c2")

    here.dispatcher.play = play
    here.past.held.clear()
    first, second = here.gateways[0][0], here.gateways[1][0]
    asked = await ask(first, "POST", CHAT, key=here.key, body={"message": "hi"})
    assert len(asked.json()["tool_calls"]) == 2
    result = {"role": "tool", "tool_call_id": "c1", "content": "x"}
    async with exchange(second, "POST", CHAT, key=here.key, body=result) as x:
        await here.eventually(lambda: sum("client-call" in path for path in here.past.asked) == 2)
        here.past.held.set()
        await x.end()
    assert (x.status, x.json()) == (202, {"pending": ["c2"]})


async def test_what_another_gateway_answered_a_moment_ago_is_cleared_and_counted(here: World) -> None:
    await here.application()
    here.past.held.clear()
    first, second = here.gateways[0][0], here.gateways[1][0]
    await ask(first, "POST", CHAT, key=here.key, body={"message": "hi"})
    async with exchange(second, "DELETE", CHAT, key=here.key) as x:
        await here.eventually(lambda: any(path.endswith("/messages") for path in here.past.asked))
        here.past.held.set()
        await x.end()
    assert x.json() == {"success": True, "deleted": 2}
    assert (await ask(second, "GET", CHAT, key=here.key)).json()["meta"]["total"] == 0


async def test_a_key_for_one_agent_does_nothing_with_a_conversation_that_is_open_to_all(here: World) -> None:
    """Others may have answered in it."""
    app = here.gateways[0][0]
    thread = (await ask(app, "POST", "/api/v1/chat/threads", key=here.key, body={})).json()["id"]
    _, bound = await new_key(here, ("agent:assistant",))
    params = {"conversation_id": thread}
    for method in ("GET", "DELETE"):
        assert (await ask(app, method, CHAT, key=bound, params=params)).status == 403
        assert (await ask(app, method, CHAT, key=here.key, params=params)).status == 200
    result = {"role": "tool", "tool_call_id": "c", "content": "", **params}
    assert (await ask(app, "POST", CHAT, key=bound, body=result)).status == 403

"""Every request of `team_chat` that is not a stream: its command, and its answer byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.facts import ThreadDeleted
from parley_events.ids import agent_uuid
from tests.contract.dialects.test_rights import new_key
from tests.contract.dialects.tongues import NOBODY
from tests.contract.dialects.transcript import Stage, Transcript
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, say, tool_block

AGENT = "/agents/assistant"
PAGES = Path(__file__).parent / "transcripts"


async def do(here: World, method: str, path: str, gateway: int = 0, **options: Any) -> Exchange:
    return await ask(here.gateways[gateway][0], method, path, **{"key": here.key, **options})


async def fails(d: Dispatcher, posted: Fact) -> None:
    call = d.called(posted)
    d.failed(posted, call, retry=False)
    d.ended(posted, "cut", "the stream broke")


async def stops(d: Dispatcher, posted: Fact) -> None:
    d.cancelled(posted, d.called(posted), Block(kind="text", text="So far"))


async def test_a_message_is_answered_and_kept_in_the_one_conversation(here: World) -> None:
    """The page's own words."""
    made = Transcript(here)
    made.note("nothing was said here yet")
    await made.ask("GET", f"{AGENT}/history")
    here.dispatcher.play = say("I can help you find weather information. ", "What city are you interested in?")
    question = {"message": "What's the weather like today?"}
    for _ in range(2):
        first = await made.ask("POST", f"{AGENT}/chat", body=question, headers={"Idempotency-Key": "k"})
    made.note("under the same key with another body")
    await made.ask("POST", f"{AGENT}/chat", body={"message": "Else."}, headers={"Idempotency-Key": "k"})
    made.note("the agent by its UUID: the same conversation, and named as it was asked for")
    here.dispatcher.play = say("Hi there! ", "How can I help you today?")
    uuid = f"/agents/{agent_uuid(WORKSPACE, 'assistant')}"
    second = await made.ask("POST", f"{uuid}/chat", body={"message": "Hello!"})
    assert first.json()["conversation_id"] == second.json()["conversation_id"]
    await made.ask("GET", f"{AGENT}/history")
    newest = await made.ask("GET", f"{AGENT}/history?limit=1")
    [message] = newest.json()["messages"]
    made.note("the older ones")
    await made.ask("GET", f"{AGENT}/history?limit=2&before={message['id']}")
    made.note("below /api the same")
    await made.ask("GET", f"/api{AGENT}/history?limit=1")
    made.compare(PAGES / "messages.txt")


async def test_conversations(here: World) -> None:
    here.dispatcher.play = say("Hi!")
    made = Transcript(here)
    await made.ask("GET", f"{AGENT}/conversations")
    for _ in range(2):
        plans = await made.ask(
            "POST", f"{AGENT}/conversations", body={"title": "Plans"}, headers={"Idempotency-Key": "c"}
        )
    await made.ask("POST", f"{AGENT}/conversations", body={"title": "Others"}, headers={"Idempotency-Key": "c"})
    await made.ask("POST", f"/api{AGENT}/conversations", body={})
    conversation = plans.json()["id"]
    one = f"{AGENT}/conversations/{conversation}"
    await made.ask("POST", f"{AGENT}/chat", body={"message": "Hello!", "conversation_id": conversation})
    await made.ask("GET", f"{AGENT}/history?conversation_id={conversation}")
    made.note("the default conversation is another")
    await made.ask("GET", f"{AGENT}/history")
    await made.ask("PUT", one, body={"title": "Great plans"})
    made.note("by the other word; below /api")
    await made.ask("PUT", f"/api{one}", body={"name": "Greater plans"})
    await made.ask("GET", f"{AGENT}/conversations")
    await made.ask("DELETE", one)
    made.note("it is gone, and what was said in it")
    for method, path in (("DELETE", one), ("PUT", one), ("GET", f"{AGENT}/history?conversation_id={conversation}")):
        await made.ask(method, path, **({"body": {"title": "t"}} if method == "PUT" else {}))
    await made.ask("POST", f"{AGENT}/chat", body={"message": "Hello?", "conversation_id": conversation})
    await made.ask("GET", f"{AGENT}/conversations")
    made.compare(PAGES / "conversations.txt")


async def test_a_failed_run_is_500_and_a_cancelled_one_too_and_later_it_can_be_looked_at(here: World) -> None:
    made = Transcript(here)
    for play in (fails, stops):
        here.dispatcher.play = play
        ended = await made.ask("POST", f"{AGENT}/chat", body={"message": "Go."})
        await made.ask("GET", f"{AGENT}/runs/{ended.headers['parley-run-id']}")
    stage = Stage(here)
    late = await made.ask("POST", f"{AGENT}/chat?wait=0", body={"message": "Go."})
    posted = await stage.posted()
    run = f"{AGENT}/runs/{late.headers['parley-run-id']}"
    await made.ask("GET", run)
    await say("Gone.")(here.dispatcher, posted)
    end = here.dispatcher.state(posted.stream).seq
    await made.ask("GET", f"/api{run}?min_position={posted.stream}@{end}")
    made.compare(PAGES / "ends.txt")


async def test_what_is_refused(here: World) -> None:
    made = Transcript(here)
    mine = (await do(here, "POST", f"{AGENT}/conversations", body={})).json()["id"]
    _, bob = await new_key(here, ("*",), "bob")
    foreign = (await do(here, "POST", f"{AGENT}/conversations", body={}, key=bob)).json()["id"]
    wrong: dict[str, Any]
    for wrong in ({}, {"message": ""}, {"message": 7}, {"message": "hi", "conversation_id": ""}):
        await made.ask("POST", f"{AGENT}/chat", body=wrong)
    await made.ask("POST", f"{AGENT}/conversations", body={"title": 7})
    for name in ("title", "name"):
        assert (await do(here, "POST", f"{AGENT}/conversations", body={name: "x" * 1001})).status == 400
    for wrong in ({}, {"title": None}, {"name": ["x"]}):
        await made.ask("PUT", f"{AGENT}/conversations/{mine}", body=wrong)
    for wrong in ({"up_to": "x"}, {"up_to": 4}, {"conversation_id": ""}, {"up_to": f"{mine}.a1"}):
        await made.ask("POST", f"{AGENT}/mark-read", body=wrong)
    made.note("conversations that are not there: unknown, no id at all, another user's, one with another agent")
    for agent, conversation in (
        ("assistant", NOBODY),
        ("assistant", "conv-123"),
        ("assistant", foreign),
        ("scripted", mine),
    ):
        made.note(f"{agent} {conversation}")
        path = f"/agents/{agent}"
        for found in (
            await made.ask("GET", f"{path}/history?conversation_id={conversation}"),
            await made.ask("PUT", f"{path}/conversations/{conversation}", body={"title": "t"}),
            await made.ask("DELETE", f"{path}/conversations/{conversation}"),
            await made.ask("POST", f"{path}/mark-read", body={"conversation_id": conversation}),
            await made.ask("POST", f"{path}/chat", body={"message": "hi", "conversation_id": conversation}),
            await made.ask("POST", f"{path}/chat/stream", body={"message": "hi", "conversation_id": conversation}),
        ):
            assert (found.status, found.json()["error"]["code"]) == (404, "not_found")
    for method, path in (("POST", "chat"), ("GET", "history"), ("GET", "inbox"), ("GET", "conversations")):
        await made.ask(method, f"/agents/nobody/{path}", **({"body": {"message": "hi"}} if method == "POST" else {}))
    for query in ("before=x", "before=1", f"before={mine}.a1", f"before={foreign}.a1", "limit=0", "limit=201"):
        await made.ask("GET", f"{AGENT}/history?{query}")
    made.compare(PAGES / "refused.txt")


async def test_a_message_of_somebody_else_or_of_another_conversation_is_no_place(here: World) -> None:
    _, bob = await new_key(here, ("*",), "bob")
    here.dispatcher.play = say("Hi!")
    ids = []
    for key in (bob, here.key):
        await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"}, key=key)
        ids.append((await do(here, "GET", f"{AGENT}/history", key=key)).json()["messages"][-1]["id"])
    named = (await do(here, "POST", f"{AGENT}/conversations", body={})).json()["id"]
    for message, within in ((ids[0], {}), (ids[1], {"conversation_id": named}), (ids[1] + "0", {})):
        found = await do(here, "GET", f"{AGENT}/history", params={"before": message, **within})
        assert (found.status, found.json()["error"]["code"]) == (400, "bad_cursor"), message
        heard = len(here.dispatcher.heard)
        found = await do(here, "POST", f"{AGENT}/mark-read", body={"up_to": message, **within})
        assert (found.status, found.json()["error"]["code"]) == (400, "invalid_request"), message
        assert len(here.dispatcher.heard) == heard
    assert (await do(here, "GET", f"{AGENT}/history", params={"before": ids[1]})).status == 200


async def test_a_deleted_default_conversation_is_begun_anew_on_every_gateway(here: World) -> None:
    await here.application()
    said = []
    for number in range(3):
        answer = await do(here, "POST", f"{AGENT}/chat", number % 2, body={"message": str(number)})
        assert answer.status == 200
        conversation = answer.json()["conversation_id"]
        said.append(conversation)
        for gateway in (0, 1):
            rows = (await do(here, "GET", f"{AGENT}/history", gateway)).json()["messages"]
            assert [row["content"] for row in rows if row["role"] == "user"] == [str(number)]
        gone = await do(here, "DELETE", f"{AGENT}/conversations/{conversation}", (number + 1) % 2)
        assert gone.status == 204
        assert (await do(here, "GET", f"{AGENT}/history")).json() == {"messages": []}
    assert len(set(said)) == 3
    third = await here.application()
    asked = len(here.dispatcher.heard)
    answer = await ask(third, "POST", f"{AGENT}/chat", key=here.key, body={"message": "again"})
    assert answer.status == 200 and answer.json()["conversation_id"] not in said
    tries = [command.stream for command in here.dispatcher.heard[asked:] if command.type == "message.post"]
    assert tries == [said[0], answer.json()["conversation_id"]], "history says how many were deleted"


async def test_a_default_conversation_that_was_deleted_is_found_while_history_is_away(here: World) -> None:
    for _ in range(2):
        conversation = (await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"})).json()["conversation_id"]
        assert (await do(here, "DELETE", f"{AGENT}/conversations/{conversation}")).status == 204
    here.core.renewed.clear()
    here.past.away = True
    answer = await do(here, "POST", f"{AGENT}/chat", body={"message": "hi"})
    assert answer.status == 200 and answer.json()["conversation_id"] != conversation


async def test_deleting_cancels_what_runs(here: World) -> None:
    stage = Stage(here)
    await do(here, "POST", f"{AGENT}/chat", params={"wait": "0"}, body={"message": "hi"})
    posted = await stage.posted()
    assert (await do(here, "DELETE", f"{AGENT}/conversations/{posted.stream}")).status == 204
    [run] = here.dispatcher.state(posted.stream).open_runs.values()  # type: ignore[union-attr]
    assert run.status == "cancelling"
    assert isinstance(here.dispatcher.written[posted.stream][-1].body, ThreadDeleted)


async def test_below_api_the_history_has_what_was_said_at_the_address_of_the_other_contract(here: World) -> None:
    """A client of the page below `/api` sends its messages there, and each opens a conversation."""
    here.dispatcher.play = say("Hi!")
    for number in range(2):
        assert (await do(here, "POST", f"/api{AGENT}/chat", body={"message": f"sync {number}"})).status == 200
    await do(here, "POST", f"/api{AGENT}/chat/stream", body={"message": "streamed"})
    named = (await do(here, "POST", f"{AGENT}/conversations", body={})).json()["id"]
    await do(here, "POST", f"{AGENT}/chat", body={"message": "elsewhere", "conversation_id": named})

    async def questions(path: str, **params: str) -> list[str]:
        rows = (await do(here, "GET", path, params=params)).json()["messages"]
        return [row["content"] for row in rows if row["role"] == "user"]

    assert await questions(f"/api{AGENT}/history") == ["sync 0", "sync 1", "streamed"]
    assert await questions(f"{AGENT}/history") == ["streamed"]
    assert await questions(f"/api{AGENT}/history", conversation_id=named) == ["elsewhere"]
    newest = (await do(here, "GET", f"/api{AGENT}/history", params={"limit": "2"})).json()["messages"]
    assert await questions(f"/api{AGENT}/history", before=newest[0]["id"]) == ["sync 0", "sync 1"]


async def test_the_history_has_questions_and_whole_answers_alone(here: World) -> None:
    async def uses(d: Dispatcher, posted: Fact) -> None:
        call = d.called(posted)
        d.returned(posted, call, Block(kind="text", text="Let me see. "), tool_block("clock", call, {}))
        d.use(posted, call, "clock", {}, "now")
        call = d.called(posted, turn=1)
        d.returned(posted, call, Block(kind="text", text="Now."), turn=1)
        d.completed(posted)

    here.dispatcher.play = uses
    answer = (await do(here, "POST", f"{AGENT}/chat", body={"message": "When?"})).json()
    rows = (await do(here, "GET", f"{AGENT}/history")).json()["messages"]
    assert answer["response"] == "Let me see. Now."
    assert [(row["role"], row["content"]) for row in rows] == [("user", "When?"), ("assistant", "Let me see. Now.")]


async def test_conversations_come_in_pages_that_the_client_need_not_know(here: World) -> None:
    made = [(await do(here, "POST", f"{AGENT}/conversations", body={"title": str(n)})).json()["id"] for n in range(3)]
    first = await do(here, "GET", f"/api{AGENT}/conversations", params={"limit": "2"})
    assert "link" not in first.headers or first.headers["link"].startswith(f"</api{AGENT}/conversations?")
    whole = await do(here, "GET", f"{AGENT}/conversations")
    assert [one["id"] for one in whole.json()["conversations"]] == made[::-1]


@pytest.mark.parametrize("scopes", [("agent:assistant",), ("chat", "read")])
async def test_a_key_for_one_agent_does_nothing_with_a_conversation_that_is_open_to_all(
    here: World, scopes: tuple[str, ...]
) -> None:
    """Others may have answered in it."""
    thread = (await do(here, "POST", "/api/v1/chat/threads", body={})).json()["id"]
    _, key = await new_key(here, scopes)
    allowed = scopes != ("agent:assistant",)
    for method, path, options in (
        ("GET", "history", {"params": {"conversation_id": thread}}),
        ("POST", "mark-read", {"body": {"conversation_id": thread}}),
        ("PUT", f"conversations/{thread}", {"body": {"title": "t"}}),
        ("DELETE", f"conversations/{thread}", {}),
    ):
        found = await do(here, method, f"{AGENT}/{path}", key=key, **options)
        assert (found.status < 300) is allowed and found.status in (200, 204, 403), (method, path, found.status)


async def test_what_an_end_user_of_another_contract_says_is_not_among_ones_own(here: World) -> None:
    v3 = "/api/v3/organizations/default/ai/agents/assistant/chat"
    await do(here, "POST", v3, body={"message": "for kim", "userId": "kim"})
    assert (await do(here, "GET", f"{AGENT}/conversations")).json() == {"conversations": []}
    own = await do(here, "POST", v3, body={"message": "mine"})
    [listed] = (await do(here, "GET", f"{AGENT}/conversations")).json()["conversations"]
    assert listed["id"] == own.json()["sessionId"]

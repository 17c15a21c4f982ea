"""Every request of `org_agents` that is not a stream: its command, and its answer byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block, Usage
from parley_events.codec import Fact
from parley_events.ids import agent_uuid, approval_id
from tests.contract.dialects.tongues import NOBODY
from tests.contract.dialects.transcript import NOW_MS, Stage, Transcript
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, run_id_of, say, tool_block

AI = "/api/v3/organizations/default/ai"
CHAT = f"{AI}/agents/assistant/chat"
PAGES = Path(__file__).parent / "transcripts"


async def works(d: Dispatcher, posted: Fact) -> None:
    """A turn with a tool that works and one that does not, then a turn that answers."""
    call = d.called(posted)
    asked = {"city": "Tokyo"}
    uses = (tool_block("weather", call, asked), tool_block("map", call, asked))
    d.returned(posted, call, Block(kind="text", text="Let me look. "), *uses)
    d.use(posted, call, "weather", asked, '{"sky":"clear"}')
    d.use(posted, call, "map", asked, "There is no map.", status="error", index=1)
    call = d.called(posted, turn=1)
    d.returned(posted, call, Block(kind="text", text="It is clear."), turn=1)
    d.completed(posted)


def request_approval(d: Dispatcher, posted: Fact, call: int, index: int = 0) -> str:
    """A person is asked, and the run waits for the word."""
    fields: dict[str, Any] = {"run_id": run_id_of(posted), "call": call, "index": index, "tool_call_id": f"pay-{index}"}
    approval = approval_id(posted.stream, d.state(posted.stream).seq + 1)
    asked = f.ApprovalRequested(
        approval_id=approval, name="pay", arguments={"eur": 3}, due_at_ms=NOW_MS + 1000, **fields
    )
    d.append(posted.stream, asked)
    waits = f.RunWaiting(run_id=run_id_of(posted), waits_for="approval", tool_call_ids=(fields["tool_call_id"],))
    d.append(posted.stream, waits)
    return approval


def position(here: World, posted: Fact) -> str:
    return f"min_position={posted.stream}@{here.dispatcher.state(posted.stream).seq}"


async def test_sync_answers_with_the_response_and_the_session_has_both_sides(here: World) -> None:
    here.dispatcher.play = works
    made = Transcript(here)
    asked = {"message": "Weather?", "system": "Be brief.", "nobody": "knows this"}
    for _ in range(2):
        first = await made.ask("POST", CHAT, body=asked, headers={"Idempotency-Key": "k"})
    made.note("under the same key with another body")
    await made.ask("POST", CHAT, body={"message": "Else."}, headers={"Idempotency-Key": "k"})
    session = first.json()["sessionId"]
    made.note("the organisation by its id, the agent by its UUID, the session again")
    uuid = agent_uuid(WORKSPACE, "assistant")
    other = f"/api/v3/organizations/{WORKSPACE}/ai/agents/{uuid}"
    await made.ask("POST", f"{other}/chat", body={"message": "And now?", "sessionId": session.upper()})
    await made.ask("GET", f"{other}/sessions/{session}")
    await made.ask("GET", f"{AI}/sessions/{session}")
    await made.ask("GET", f"/api/v3/ai/chat/executions/{first.headers['parley-run-id']}")
    made.compare(PAGES / "sync.txt")


async def test_async_is_polled_to_its_end(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    made = Transcript(here)
    late = await made.ask("POST", CHAT, body={"message": "Pay.", "async": True})
    posted = await stage.posted()
    poll = late.json()["pollUrl"]
    made.note("both flags; the same session: its run waits for its turn")
    both = {"message": "Again.", "async": True, "stream": True, "sessionId": posted.stream}
    queued = await made.ask("POST", CHAT, body=both)
    second = await stage.posted()
    await made.ask("GET", f"{queued.json()['pollUrl']}?{position(here, second)}")
    call = d.called(posted)
    d.returned(posted, call, tool_block("pay", call, {"eur": 3}))
    await made.ask("GET", f"{poll}?{position(here, posted)}")
    approval = request_approval(d, posted, call)
    made.note("a person is asked")
    await made.ask("GET", f"/api/v3{poll}?{position(here, posted)}")
    answered = f.ApprovalAnswered(approval_id=approval, run_id=run_id_of(posted), decision="approve", by="ann")
    d.append(posted.stream, answered)
    d.use(posted, call, "pay", {"eur": 3}, "paid")
    await made.ask("GET", f"{poll}?{position(here, posted)}")
    call = d.called(posted, turn=1)
    d.returned(posted, call, Block(kind="text", text="Paid."), turn=1)
    d.completed(posted)
    await made.ask("GET", f"/api/v3/organizations/default{poll}?{position(here, posted)}")
    made.note("a run that fails, and one that is cancelled")
    call = d.called(second)
    d.failed(second, call, retry=False)
    d.ended(second, "cut", "the stream broke")
    await made.ask("GET", f"{queued.json()['pollUrl']}?{position(here, second)}")
    await made.ask("POST", CHAT, body={"message": "Stop.", "async": True, "sessionId": posted.stream})
    third = await stage.posted()
    d.cancelled(third, None)
    await made.ask("GET", f"/ai/chat/executions/{run_id_of(third)}?{position(here, third)}")
    made.compare(PAGES / "async.txt")


async def test_sync_past_the_wait_failed_and_cancelled(here: World) -> None:
    made = Transcript(here)
    stage = Stage(here)
    late = await made.ask("POST", f"{CHAT}?wait=0", body={"message": "Go.", "userId": "kim & co"})
    posted = await stage.posted()
    d = here.dispatcher
    d.completed(posted)
    await made.ask("GET", late.json()["pollUrl"] + "&" + position(here, posted))
    await made.ask("GET", late.json()["eventsUrl"] + "&" + position(here, posted))

    async def fails(d: Dispatcher, posted: Fact) -> None:
        call = d.called(posted)
        d.failed(posted, call, retry=False)
        d.ended(posted, "cut", "the stream broke")

    async def stops(d: Dispatcher, posted: Fact) -> None:
        d.cancelled(posted, d.called(posted), Block(kind="text", text="So far"))

    for play in (fails, stops):
        here.dispatcher.play = play
        await made.ask("POST", CHAT, body={"message": "Go."})
    made.compare(PAGES / "ends.txt")


async def test_what_is_refused(here: World) -> None:
    made = Transcript(here)
    session = (await ask(here.gateways[0][0], "POST", CHAT, key=here.key, body={"message": "hi"})).json()["sessionId"]
    here.dispatcher.append(session, f.ThreadExpired(idle_since_ms=NOW_MS))
    for path in (
        CHAT.replace("default", "other"),
        CHAT.replace("default", NOBODY),
        CHAT.replace("assistant", "nobody"),
        CHAT.replace("assistant", NOBODY),
    ):
        await made.ask("POST", path, body={"message": "hi"})
    for wrong in (
        {},
        {"message": ""},
        {"message": "hi", "stream": "yes"},
        {"message": "hi", "async": 1},
        {"message": "hi", "system": ["x"]},
        {"message": "hi", "userId": ""},
        {"message": "hi", "sessionId": "mine"},
        {"message": "hi", "sessionId": NOBODY},
    ):
        await made.ask("POST", CHAT, body=wrong)
    made.note("a session that expired; its history is kept")
    await made.ask("POST", CHAT, body={"message": "hi", "sessionId": session})
    kept = await made.ask("GET", f"{AI}/sessions/{session}?min_position={session}@2")
    assert kept.json()["messages"]
    made.note("a session with another agent")
    other = await ask(here.gateways[0][0], "POST", CHAT, key=here.key, body={"message": "hi"})
    session = other.json()["sessionId"]
    await made.ask("POST", CHAT.replace("assistant", "scripted"), body={"message": "hi", "sessionId": session})
    await made.ask("GET", f"{AI}/agents/scripted/sessions/{session}")
    for path in (f"{AI}/sessions/{NOBODY}", f"{AI}/sessions/x", "/ai/chat/executions/x"):
        await made.ask("GET", path)
    await made.ask("GET", f"/api/v3/organizations/other/ai/sessions/{session}")
    made.compare(PAGES / "refused.txt")


async def test_sessions_expire_when_nothing_happens_and_one_that_must_not_does_not(here: World) -> None:
    await here.application(session_idle_s=0)
    for gateway, idle_s in ((0, 3600), (1, None)):
        await ask(here.gateways[gateway][0], "POST", CHAT, key=here.key, body={"message": "hi"})
        opened = here.dispatcher.heard[-1].body.open  # type: ignore[attr-defined]
        assert (opened.idle_s, opened.channel, opened.user_id) == (idle_s, "org_agents", "ann")


@pytest.mark.parametrize(
    ("flags", "unattended"),
    [
        ({}, ("approval", "client_tool")),
        ({"stream": True}, ("approval", "client_tool")),
        ({"async": True}, ("client_tool",)),
        ({"async": True, "stream": True}, ("client_tool",)),
        ({"async": False, "stream": None}, ("approval", "client_tool")),
    ],
)
async def test_only_async_runs_wait_for_approvals_and_none_for_the_client(
    here: World, flags: dict[str, Any], unattended: tuple[str, ...]
) -> None:
    await ask(here.gateways[0][0], "POST", CHAT, key=here.key, body={"message": "hi", **flags})
    assert here.dispatcher.heard[-1].body.unattended == unattended  # type: ignore[attr-defined]


async def test_a_user_id_isolates_everywhere(here: World) -> None:
    """A session made with one is not there without it or with another, at any gateway; an admin sees it."""
    here.dispatcher.play = say("a secret")
    await here.application()
    made = await ask(here.gateways[0][0], "POST", CHAT, key=here.key, body={"message": "hi", "userId": "kim"})
    session, run = made.json()["sessionId"], made.headers["parley-run-id"]
    paths = (
        f"{AI}/sessions/{session}",
        f"{AI}/agents/assistant/sessions/{session}",
        f"/ai/chat/executions/{run}",
        f"{CHAT}/runs/{run}/events",
    )

    async def get(path: str, user: str | None, gateway: int, key: str) -> Exchange:
        params = {"min_position": f"{session}@4", **({} if user is None else {"userId": user})}
        return await ask(here.gateways[gateway][0], "GET", path, key=key, params=params)

    async def post(user: str | None, gateway: int, key: str) -> Exchange:
        body = {"message": "again", "sessionId": session, "userId": user}
        return await ask(here.gateways[gateway][0], "POST", CHAT, key=key, body=body)

    for gateway in (0, 1):
        heard = len(here.dispatcher.heard)
        for user in (None, "lee", "KIM", "kim "):
            found = [await get(path, user, gateway, here.key) for path in paths] + [await post(user, gateway, here.key)]
            for one in found:
                assert one.status == 404 and one.json()["error"]["code"] == "not_found", (user, one.body)
                assert b"secret" not in one.body
        assert len(here.dispatcher.heard) == heard, "nothing of it reached the log"
        for user, key in (("kim", here.key), (None, here.admin_key), ("lee", here.admin_key)):
            for path in paths:
                assert (await get(path, user, gateway, key)).status == 200, (user, path)
            assert (await post(user, gateway, key)).status == 200
    assert (await get(paths[0], "kim", 0, here.key)).json()["userId"] == "kim"


async def test_a_long_session_comes_whole(here: World) -> None:
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    session = (await ask(app, "POST", CHAT, key=here.key, body={"message": "m0"})).json()["sessionId"]
    for n in range(1, 60):
        await ask(app, "POST", CHAT, key=here.key, body={"message": f"m{n}", "sessionId": session})
    found = (await ask(app, "GET", f"{AI}/sessions/{session}", key=here.key)).json()
    assert [message["content"] for message in found["messages"] if message["role"] == "user"] == [
        f"m{n}" for n in range(60)
    ]
    assert [message["role"] for message in found["messages"]] == ["user", "assistant"] * 60


async def test_an_approval_in_a_run_inside_the_run_is_shown(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    app = here.gateways[0][0]
    late = await ask(app, "POST", CHAT, key=here.key, body={"message": "Go.", "async": True})
    posted = await stage.posted()
    call = d.called(posted)
    d.returned(posted, call, tool_block("ask_agent", call, {}))
    child = f"{posted.stream}.rchild"
    started = f.ChildStarted(
        run_id=child,
        parent_run_id=run_id_of(posted),
        tool_call_id="t",
        agent_id="scripted",
        agent_version=1,
        text="do",
    )
    d.append(posted.stream, started)
    began = f.ModelCalled(
        run_id=child, turn=0, attempt=1, agent_id="scripted", agent_version=1, model="scripted", shown=1
    )
    call = d.append(posted.stream, began).seq or 0
    asks = f.ModelReturned(
        run_id=child, call=call, turn=0, blocks=(tool_block("pay", call, {}),), stop_reason="tool_use", usage=Usage()
    )
    d.append(posted.stream, asks)
    fields: dict[str, Any] = {"run_id": child, "call": call, "index": 0, "tool_call_id": "p", "due_at_ms": NOW_MS}
    asked = d.append(posted.stream, f.ApprovalRequested(name="pay", arguments={}, **fields)).body
    d.append(posted.stream, f.RunWaiting(run_id=run_id_of(posted), waits_for="approval", tool_call_ids=("t",)))
    params = {"min_position": f"{posted.stream}@{d.state(posted.stream).seq}"}
    polled = (await ask(app, "GET", late.json()["pollUrl"], key=here.key, params=params)).json()
    assert (polled["status"], polled["approval"]["id"]) == ("running", asked.approval_id)  # type: ignore[attr-defined]

"""Runs that wait for somebody, in the native contract: approvals, tools that the client runs, calls of which nobody
knows what came, and stopping; each request byte for byte, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from tests.contract.dialects.transcript import NOW_MS, Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import frame_of
from tests.unit.gateway.world import Dispatcher, World, run_id_of, tool_block, world

BASE = "/api/v1/chat"
PAGES = Path(__file__).parent / "transcripts"
STREAM = {"Accept": "text/event-stream"}
NAMES = ("publish", "publish_too", "get_weather", "get_time", "pay")


async def do(here: World, method: str, path: str, **options: Any) -> Exchange:
    return await ask(here.gateways[0][0], method, BASE + path, **{"key": here.key, **options})


async def begun(here: World, stage: Stage) -> tuple[str, Fact, int]:
    """A thread with a run whose first turn asked for five tools: the thread, the question's fact, the call."""
    thread = (await do(here, "POST", "/threads", body={"agent_id": "scripted"})).json()["id"]
    await do(here, "POST", f"/threads/{thread}/messages", body={"content": "hi"})
    posted = await stage.posted()
    return thread, posted, turn(here.dispatcher, posted)


def turn(d: Dispatcher, posted: Fact) -> int:
    call = d.called(posted)
    d.returned(posted, call, Block(kind="text", text="Let me. "), *(tool_block(name, call, {}) for name in NAMES))
    return call


def goes_on(d: Dispatcher, posted: Fact) -> None:
    """The run says a last word, and ends."""
    call = d.called(posted, turn=1)
    d.returned(posted, call, Block(kind="text", text="Done."), turn=1)
    d.completed(posted)


async def settled(here: World, thread: str) -> None:
    """History has come as far as the log."""
    await here.eventually(lambda: len(here.past.facts.get(thread, [])) == here.dispatcher.state(thread).seq)


async def test_approvals_are_listed_shown_and_answered(here: World) -> None:
    made, stage, d = Transcript(here), Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    asked = {"question": "Shall this go out?", "input_schema": schema, "who": ("ann", "bob")}
    first = d.asked(posted, call, "publish", {"text": "a"}, **asked)
    second = d.asked(posted, call, "publish_too", {"text": "b"}, index=1)
    d.parked(posted, f"call-{call}-publish", f"call-{call}-publish_too", waits_for="approval")
    await settled(here, thread)
    await made.ask("GET", f"{BASE}/approvals?status=open&thread_id={thread}")
    await made.ask("GET", f"{BASE}/approvals?limit=1")
    await made.ask("GET", f"{BASE}/approvals/{first}")
    await made.ask("GET", f"{BASE}/runs/{run_id_of(posted)}")
    made.note("approved with a comment and other arguments, under a key; and again; and otherwise")
    body = {"decision": "approve", "comment": "shorter", "arguments": {"text": "A"}}
    for sent in (body, body, {"decision": "deny"}):
        await made.ask("POST", f"{BASE}/approvals/{first}", body=sent, headers={"Idempotency-Key": "k"})
    made.note("the other one is denied; then it is not open any more")
    await made.ask("POST", f"{BASE}/approvals/{second}", body={"decision": "deny"})
    await made.ask("POST", f"{BASE}/approvals/{second}", body={"decision": "approve"})
    await made.ask("GET", f"{BASE}/approvals?status=denied")
    made.note("nothing there; not an answer; arguments of a denial; a status that is none")
    await made.ask("POST", f"{BASE}/approvals/{thread}.p99", body={"decision": "approve"})
    await made.ask("POST", f"{BASE}/approvals/{first}", body={"decision": "maybe"})
    await made.ask("POST", f"{BASE}/approvals/{first}", body={"decision": "deny", "arguments": {}})
    await made.ask("GET", f"{BASE}/approvals?status=shut")
    made.compare(PAGES / "approvals.txt")


async def test_a_client_gives_results_and_the_run_goes_on(here: World) -> None:
    made, stage, d = Transcript(here), Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run = run_id_of(posted)
    ids = [d.handed(posted, call, name, {"n": n}, index=n) for n, name in enumerate(NAMES[2:4], 2)]
    d.parked(posted, *ids)
    made.note("the first of two; then again, and one that nobody asked for")
    await made.ask("POST", f"{BASE}/runs/{run}/tools/{ids[0]}", body={"content": "21 °C"})
    await made.ask("POST", f"{BASE}/runs/{run}/tools/{ids[0]}", body={"content": "22 °C"})
    await made.ask("POST", f"{BASE}/runs/{run}/tools/nothing", body={"content": "x"})
    await made.ask("POST", f"{BASE}/runs/{run}/tools/{ids[1]}?wait=0", body={"content": "", "is_error": True})
    goes_on(d, posted)
    await settled(here, thread)
    await made.ask("GET", f"{BASE}/runs/{run}/events", headers={"Accept": "application/json"})
    made.note("no result; no text")
    await made.ask("POST", f"{BASE}/runs/{run}/tools/{ids[1]}", body={})
    await made.ask("POST", f"{BASE}/runs/{run}/tools/{ids[1]}", body={"content": 7})
    made.compare(PAGES / "client_tools.txt")


async def test_an_answer_that_waits_holds_until_the_end_or_the_next_wait(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run = run_id_of(posted)
    weather = d.handed(posted, call, "get_weather", {}, index=2)
    d.parked(posted, weather)
    path, wait = f"{BASE}/runs/{run}/tools", {"wait": "20"}
    options: dict[str, Any] = {"key": here.key, "params": wait, "body": {"content": "21 °C"}}
    async with exchange(here.gateways[0][0], "POST", f"{path}/{weather}", **options) as x:
        await here.eventually(lambda: any(fact.type == "tool.answered" for fact in d.written[thread]))
        d.asked(posted, call, "publish", {})
        d.parked(posted, f"call-{call}-publish", waits_for="approval")
        await x.end()
    found = x.json()
    assert (x.status, found["status"], found["waits_for"]) == (202, "waiting", "approval")
    assert found["pending"] == [f"call-{call}-publish"]
    time = d.handed(posted, call, "get_time", {}, index=3)
    d.parked(posted, time)
    async with exchange(here.gateways[0][0], "POST", f"{path}/{time}", **options) as x:
        await here.eventually(lambda: sum(fact.type == "tool.answered" for fact in d.written[thread]) == 2)
        goes_on(d, posted)
        await x.end()
    assert x.status == 200, x.body
    assert (x.json()["run"]["status"], x.json()["message"]["content"]) == ("completed", "Let me. Done.")
    assert here.core.hub.listening == 0


async def test_an_answer_that_streams_shows_the_run_from_there_on(here: World) -> None:
    """And what it shows is what one that follows the run sees of it."""
    stage, d = Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run = run_id_of(posted)
    weather = d.handed(posted, call, "get_weather", {"location": "Bern"}, index=2)
    d.parked(posted, weather)
    await settled(here, thread)
    path = f"{BASE}/runs/{run}/tools/{weather}"
    async with exchange(
        here.gateways[0][0], "POST", path, key=here.key, headers=STREAM, body={"content": "21 °C"}
    ) as x:
        watch = Watch(x)
        [answered] = await watch.sees("tool.answered")
        assert answered.data["tool_call"]["arguments"] == {"location": "Bern"}, "known from before"
        d.asked(posted, call, "publish", {})
        d.parked(posted, f"call-{call}-publish", waits_for="approval")
        await watch.sees("approval.requested", "run.waiting")
        assert not x.over, "waiting is not an end"
        goes_on(d, posted)
        await x.end()
    assert x.headers["parley-run-id"] == run
    await settled(here, thread)
    whole = await do(here, "GET", f"/runs/{run}/events")
    mine = [frame_of(part) for part in x.parts]
    theirs = [frame_of(part) for part in whole.parts][-len(mine) :]
    assert [frame.data for frame in mine] == [frame.data for frame in theirs]
    assert [frame.id for frame in mine] == [frame.id for frame in theirs]
    key = {"Idempotency-Key": "k"}
    late = await do(here, "POST", f"/runs/{run}/tools/{weather}", headers={**STREAM, **key}, body={"content": "x"})
    assert (late.status, late.json()["error"]) == (409, "not_open")


async def test_any_gateway_takes_answers_and_cancels_and_every_stream_sees_them(here: World) -> None:
    """The client hangs at one gateway; the person, the client's tool and the one who stops it come to another."""
    await here.application()
    stage, d, other = Stage(here), here.dispatcher, here.gateways[1][0]
    thread = (await do(here, "POST", "/threads", body={"agent_id": "scripted"})).json()["id"]
    path = f"{BASE}/threads/{thread}/messages"
    async with exchange(here.gateways[0][0], "POST", path, key=here.key, headers=STREAM, body={"content": "hi"}) as x:
        posted = await stage.posted()
        call, run = turn(d, posted), run_id_of(posted)
        approval, weather = d.asked(posted, call, "publish", {}), d.handed(posted, call, "get_weather", {}, index=2)
        d.parked(posted, f"call-{call}-publish", weather, waits_for="approval")
        for deed, body in (
            (f"/approvals/{approval}", {"decision": "deny"}),
            (f"/runs/{run}/tools/{weather}", {"content": "21 °C"}),
            (f"/runs/{run}/cancel", {}),
        ):
            found = await ask(other, "POST", BASE + deed, key=here.key, body=body)
            assert found.status in (200, 202), found.body
        d.cancelled(posted, None)
        await x.end()
    types = [frame_of(part).type for part in x.parts]
    assert types[-5:] == ["run.waiting", "approval.answered", "tool.answered", "run.cancelling", "run.cancelled"]
    ended = await ask(other, "POST", f"{BASE}/runs/{run}/cancel", key=here.key, params={"wait": "5"})
    assert (ended.status, ended.json()["status"]) == (200, "cancelled")


async def test_a_repeated_answer_streams_the_same_again(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run, weather = run_id_of(posted), d.handed(posted, call, "get_weather", {}, index=2)
    d.parked(posted, weather)
    await settled(here, thread)
    options: dict[str, Any] = {"headers": {**STREAM, "Idempotency-Key": "k"}, "body": {"content": "21 °C"}}
    path = f"/runs/{run}/tools/{weather}"
    async with exchange(here.gateways[0][0], "POST", BASE + path, key=here.key, **options) as x:
        await x.until(lambda x: x.parts)
        goes_on(d, posted)
        await x.end()
    await settled(here, thread)
    again = await do(here, "POST", path, **options)
    assert again.headers["idempotency-replayed"] == "true"
    facts = [[frame.data for frame in map(frame_of, e.parts) if ".delta" not in frame.type] for e in (x, again)]
    assert facts[0] == facts[1]


async def test_what_became_of_a_call_is_said_by_a_person(here: World) -> None:
    made, stage, d = Transcript(here), Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run = run_id_of(posted)
    d.use(posted, call, "pay", {"eur": 3}, "nobody knows", index=4, status="unknown")
    goes_on(d, posted)
    path = f"{BASE}/runs/{run}/tools/call-{call}-pay/settle"
    body = {"happened": True, "comment": "it is on the statement"}
    for _ in range(2):
        await made.ask("POST", path, body=body, headers={"Idempotency-Key": "k"})
    made.note("once it is known it is known; not a word; nothing there")
    await made.ask("POST", path, body={"happened": False})
    await made.ask("POST", path, body={"happened": "yes"})
    await made.ask("POST", f"{BASE}/runs/{run}/tools/other/settle", body={"happened": False})
    await settled(here, thread)
    made.note("in the thread it is a fact like others; the run's stream ended with its end")
    end = await made.ask("GET", f"{BASE}/runs/{run}/events", headers={"Last-Event-ID": str(d.state(thread).seq)})
    assert end.over and not end.body
    events = await made.ask("GET", f"{BASE}/threads/{thread}/events?cursor=9", headers={"Accept": "application/json"})
    assert [item["type"] for item in events.json()["items"]] == ["tool.settled"]
    made.compare(PAGES / "settle.txt")


async def test_runs_are_stopped_one_by_one_by_thread_and_by_filter(here: World) -> None:
    made, stage, d = Transcript(here), Stage(here), here.dispatcher
    thread, posted, _ = await begun(here, stage)
    run = run_id_of(posted)
    path = f"{BASE}/threads/{thread}/cancel"
    await made.ask("POST", path, headers={"Idempotency-Key": "k"})
    d.cancelled(posted, None)
    await settled(here, thread)
    made.note("again under the key; and without one, when nothing runs")
    await made.ask("POST", path, headers={"Idempotency-Key": "k"}, body={})
    await made.ask("POST", path)
    made.note("a run that has ended is answered as it is")
    await made.ask("POST", f"{BASE}/runs/{run}/cancel?wait=5")
    made.note("many: a filter is wanted, of what there is, and of one's own")
    await made.ask("POST", f"{BASE}/runs/cancel", body={})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"older_than_s": -1})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"agent_id": "nobody"})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"user_id": "bob"})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"thread_id": "x"})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"thread_id": thread})
    await do(here, "POST", f"/threads/{thread}/messages", body={"content": "again"})
    await stage.posted()
    await settled(here, thread)
    await made.ask("POST", f"{BASE}/runs/cancel", body={"older_than_s": 1, "agent_id": "scripted"})
    await made.ask("POST", f"{BASE}/runs/cancel", body={"thread_id": thread, "user_id": "ann"})
    made.compare(PAGES / "stopping.txt")


async def test_a_cancel_that_waits_holds_until_the_run_has_ended(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    thread, posted, _ = await begun(here, stage)
    app, run = here.gateways[0][0], run_id_of(posted)
    for path, kind in ((f"/runs/{run}/cancel", "run"), (f"/threads/{thread}/cancel", "thread")):
        if kind == "thread":
            await do(here, "POST", f"/threads/{thread}/messages", body={"content": "again"})
            posted = await stage.posted()
        early = await do(here, "POST", path, params={"wait": "0.05"})
        assert early.status == 202, "it was told, and has not ended"
        heard = len(d.heard)
        async with exchange(app, "POST", BASE + path, key=here.key, params={"wait": "20"}) as x:
            await heard_more(here, heard)
            assert not x.over
            d.cancelled(posted, None, Block(kind="text", text="so far"))
            await x.end()
        assert x.status == 200, x.body
        if kind == "run":
            assert (x.json()["status"], x.json()["id"]) == ("cancelled", run)
        else:
            assert x.json()["cancelled"] == [run_id_of(posted)]
            assert x.json()["position"] == f"{thread}@{d.state(thread).seq}", "a read from here sees the ends"
    assert here.core.hub.listening == 0


async def heard_more(here: World, count: int) -> None:
    """The dispatcher has heard more than so many commands."""
    await here.eventually(lambda: len(here.dispatcher.heard) > count)


async def test_many_are_stopped_in_parts_and_only_ones_own() -> None:
    times = iter(range(NOW_MS, NOW_MS + 10**9, 1000))
    async with world(sockets=False, clock=lambda: next(times)) as here:
        stage, runs = Stage(here), []
        for _ in range(101):
            thread = (await do(here, "POST", "/threads", body={"agent_id": "scripted"})).json()["id"]
            await do(here, "POST", f"/threads/{thread}/messages", body={"content": "hi"})
            posted = await stage.posted()
            runs.append(run_id_of(posted))
        await settled(here, thread)
        other = await do(here, "POST", "/keys", key=here.admin_key, body={})
        assert other.status == 404, "keys are made elsewhere"
        made = await ask(
            here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body={"user": "bob", "scopes": ["*"]}
        )
        bobs = made.json()["key"]
        assert (await do(here, "POST", "/runs/cancel", key=bobs, body={"agent_id": "scripted"})).json() == {
            "cancelled": [],
            "more": False,
        }
        first = await do(here, "POST", "/runs/cancel", body={"agent_id": "scripted"})
        assert first.json() == {"cancelled": runs[:100], "more": True}, "the oldest first"
        boss = await do(here, "POST", "/runs/cancel", key=here.admin_key, body={"user_id": "ann", "older_than_s": 0})
        assert set(boss.json()["cancelled"]) <= set(runs) and boss.json()["more"]


async def test_a_message_that_waits_is_answered_when_it_is_the_clients_turn(here: World) -> None:
    """An approval is waited for with the rest: nobody but its end ends a waiting call before its time."""

    async def play(d: Dispatcher, posted: Fact) -> None:
        call = turn(d, posted)
        d.asked(posted, call, "publish", {})
        d.parked(posted, f"call-{call}-publish", waits_for="approval")
        weather = d.handed(posted, call, "get_weather", {}, index=2)
        d.append(posted.stream, f.ApprovalExpired(approval_id=f"{posted.stream}.p5", run_id=run_id_of(posted)))
        d.parked(posted, weather)

    here.dispatcher.play = play
    thread = (await do(here, "POST", "/threads", body={"agent_id": "scripted"})).json()["id"]
    found = await do(here, "POST", f"/threads/{thread}/messages", body={"content": "hi"}, params={"wait": "20"})
    assert (found.status, found.json()["status"], found.json()["waits_for"]) == (202, "waiting", "client_tool")
    assert found.json()["pending"] == ["call-3-get_weather"]


@pytest.mark.parametrize(
    "place", ["x", "00000000-0000-4000-8000-000000000001", "{thread}.m1", "{thread}.p0", "{thread}.px"]
)
async def test_what_is_no_id_is_not_there(here: World, place: str) -> None:
    thread = (await do(here, "POST", "/threads", body={})).json()["id"]
    heard = len(here.dispatcher.heard)
    place = place.format(thread=thread)
    for method, path, body in (
        ("GET", f"/approvals/{place}", None),
        ("POST", f"/approvals/{place}", {"decision": "approve"}),
        ("POST", f"/runs/{place}/tools/t", {"content": "x"}),
        ("POST", f"/runs/{place}/tools/t/settle", {"happened": True}),
        ("POST", f"/runs/{place}/cancel", {}),
    ):
        found = await do(here, method, path, **({} if body is None else {"body": body}))
        assert (found.status, found.json()["error"]) == (404, "not_found"), path
    assert len(here.dispatcher.heard) == heard


async def test_what_is_too_large_or_no_json_is_refused(here: World) -> None:
    stage = Stage(here)
    thread, posted, call = await begun(here, stage)
    run, weather = run_id_of(posted), here.dispatcher.handed(posted, call, "get_weather", {}, index=2)
    results: list[tuple[dict[str, Any], int]] = [
        ({"content": "x" * (1024 * 1024 + 1)}, 413),
        ({"content": "a\x00"}, 400),
        ({"content": None}, 400),
    ]
    for body, status in results:
        found = await do(here, "POST", f"/runs/{run}/tools/{weather}", body=body)
        assert found.status == status, found.body[:200]
    answers: list[dict[str, Any]] = [{"comment": "x" * 10_001}, {"arguments": []}]
    for more in answers:
        found = await do(here, "POST", f"/approvals/{thread}.p5", body={"decision": "approve", **more})
        assert found.status == 400
    found = await do(here, "POST", f"/runs/{run}/tools/{weather}", params={"wait": "-1"}, body={"content": "x"})
    assert (found.status, found.json()["error"]) == (400, "bad_wait")
    assert not any(command.type in ("tool.answer", "approval.answer") for command in here.dispatcher.heard)


async def test_while_history_is_away_answers_and_cancels_are_taken(here: World) -> None:
    stage, d = Stage(here), here.dispatcher
    thread, posted, call = await begun(here, stage)
    run = run_id_of(posted)
    approval = d.asked(posted, call, "publish", {})
    weather = d.handed(posted, call, "get_weather", {}, index=2)
    d.parked(posted, weather, waits_for="approval")
    await settled(here, thread)
    here.past.away = True
    found = await do(here, "POST", f"/approvals/{approval}", body={"decision": "approve"})
    assert (found.status, found.json()["id"]) == (202, approval)
    assert (await do(here, "POST", f"/runs/{run}/tools/{weather}", body={"content": "x"})).status == 202
    assert (await do(here, "POST", f"/runs/{run}/cancel")).status == 202
    assert (await do(here, "POST", f"/threads/{thread}/cancel")).status == 200
    assert (await do(here, "GET", "/approvals")).status == 503
    assert (await do(here, "POST", "/runs/cancel", body={"thread_id": thread})).status == 503
    types = [fact.type for fact in d.written[thread]]
    assert types[-4:] == ["approval.answered", "tool.answered", "run.cancelling", "thread.cancelling"]

"""`POST /threads/{id}/fork`: what it answers, what it takes over, and whose it is."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block
from parley_events.commands import ForkThread
from parley_events.ids import moved_id
from tests.contract.dialects.threads.test_many import new_key, watched
from tests.contract.dialects.threads.test_stream import tell
from tests.contract.dialects.transcript import Stage, Transcript
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of, text_of
from tests.unit.gateway.world import World, say, world

BASE = "/api/v1/chat"
PAGES = Path(__file__).parent / "transcripts"


async def fork(here: World, thread: str, key: str | None = None, headers: Any = None, **body: Any) -> Exchange:
    path = f"{BASE}/threads/{thread}/fork"
    return await ask(here.gateways[0][0], "POST", path, key=key or here.key, body=body, headers=headers or {})


async def forked(here: World, thread: str, **body: Any) -> str:
    found = await fork(here, thread, **body)
    assert found.status == 201, found.body
    return str(found.json()["id"])


async def said(here: World, *texts: str, key: str | None = None) -> str:
    """A thread with these questions, each answered."""
    app = here.gateways[0][0]
    thread = (await ask(app, "POST", f"{BASE}/threads", key=key or here.key, body={"agent_id": "scripted"})).json()
    path = f"{BASE}/threads/{thread['id']}/messages"
    for text in texts:
        await ask(app, "POST", path, key=key or here.key, body={"content": text}, params={"wait": ""})
    return str(thread["id"])


async def contents(here: World, thread: str) -> list[tuple[str, str]]:
    found = await ask(here.gateways[0][0], "GET", f"{BASE}/threads/{thread}/messages", key=here.key)
    assert found.status == 200, found.body
    return [(item["role"], item["content"]) for item in found.json()["items"]]


async def test_a_thread_is_forked(here: World) -> None:
    here.dispatcher.play = say("Hello ", "world")
    made = Transcript(here)
    whole = {"agent_id": "scripted", "title": "Plans", "system_prompt": "Be brief.", "metadata": {"a": 1}}
    thread = (await made.ask("POST", f"{BASE}/threads", body=whole)).json()["id"]
    path = f"{BASE}/threads/{thread}/fork"
    for text in ("one", "two"):
        await ask(
            here.gateways[0][0],
            "POST",
            f"{BASE}/threads/{thread}/messages",
            key=here.key,
            body={"content": text},
            params={"wait": ""},
        )
    made.note("all of it, under another title and an idempotency key, twice")
    key = {"Idempotency-Key": "k"}
    for _ in range(2):
        fork = (await made.ask("POST", path, body={"title": "What if"}, headers=key)).json()["id"]
    await made.ask("POST", path, body={"title": "What else"}, headers=key)
    made.note("its messages, with the times of the source; its facts; what ran in the source, as it ended there")
    messages = (await made.ask("GET", f"{BASE}/threads/{fork}/messages")).json()["items"]
    await made.ask("GET", f"{BASE}/threads/{fork}/events", headers={"Accept": "application/json"})
    await made.ask("GET", f"{BASE}/runs/{messages[0]['run_id']}")
    await made.ask("GET", f"{BASE}/runs/{messages[0]['run_id']}/events")
    await made.ask("POST", f"{BASE}/runs/{messages[0]['run_id']}/cancel")
    made.note("up to the first answer; no further than its question; before anything was said; without a body")
    for body in ({"at": 5}, {"at": 2, "title": None}, {"at": 1}):
        earlier = (await made.ask("POST", path, body=body)).json()["id"]
        await made.ask("GET", f"{BASE}/threads/{earlier}/messages")
    await made.ask("POST", path)
    made.note("a fork of a fork, in the middle of what that took over")
    again = (await made.ask("POST", f"{BASE}/threads/{fork}/fork", body={"at": messages[1]["seq"]})).json()["id"]
    await made.ask("GET", f"{BASE}/threads/{again}/messages")
    made.note("refused")
    for at in (0, -1, 10, 2**63, "2", 2.0, True):
        await made.ask("POST", path, body={"at": at})
    await made.ask("POST", f"{BASE}/threads/{fork}/fork", body={"at": messages[0]["seq"] - 1})
    await made.ask("POST", path, body={"title": "x" * 1001})
    await made.ask("POST", f"{BASE}/threads/nothing/fork", body={})
    await made.ask("GET", path)
    made.note("the source is deleted: what was forked stands, and is told again; nothing more comes of it")
    await made.ask("DELETE", f"{BASE}/threads/{thread}")
    await made.ask("POST", path, body={"title": "What if"}, headers=key)
    await made.ask("POST", path, body={}, headers={"Idempotency-Key": "another"})
    await made.ask("POST", path)
    await made.ask("GET", f"{BASE}/threads/{fork}/messages?limit=1")
    made.compare(PAGES / "fork.txt")


async def test_its_feed_tells_the_past_as_the_sources_does(here: World) -> None:
    """After its own frame: the frames of the source, with its own ids and lower seqs; resumed at each of them, any
    gateway gives the rest."""
    await here.application()
    thread, _, _ = await tell(here, Transcript(here))
    source = await until_the_end(here, thread, "run.completed")
    made = await forked(here, thread)
    here.dispatcher.append(made, f.ThreadUpdated(title="t", changes=("title",)))
    frames = await until_the_end(here, made, "thread.updated")
    assert frames[0].type == "thread.forked"
    assert {"past", "numbers"} & frames[0].data.keys() == set()
    assert (frames[0].data["source_thread_id"], frames[0].data["at"]) == (thread, source[-1].data["seq"])
    past = frames[1:-1]
    down = source[-1].data["seq"]
    assert [frame.data for frame in past] == [
        moved(frame.data, made, thread, down) for frame in source if frame.type != "thread.created"
    ]
    assert (text_of(past), text_of(past, "thought.delta")) == (text_of(source), text_of(source, "thought.delta"))
    ids = [frame.id for frame in frames]
    assert ids == [*(f"1-{n}" for n in range(1, len(past) + 1)), "1", "2"]
    for place, frame in enumerate(frames[:-1]):
        async with exchange(
            here.gateways[place % 2][0],
            "GET",
            f"{BASE}/threads/{made}/events",
            key=here.key,
            headers={"Last-Event-ID": str(frame.id)},
        ) as x:
            await x.until(lambda x: x.parts and frame_of(x.parts[-1]).type == "thread.updated")
            assert [frame_of(part) for part in x.parts] == frames[place + 1 :], frame.id


async def test_a_run_of_the_past_is_read_as_one_of_the_source(here: World) -> None:
    """From every id on, and page by page; as a run of another contract it is not there."""
    await here.application()
    thread, run, _ = await tell(here, Transcript(here))
    app, path = here.gateways[0][0], f"{BASE}/runs"
    source = [frame_of(part) for part in (await ask(app, "GET", f"{path}/{run}/events", key=here.key)).parts]
    made = await forked(here, thread)
    items = (await ask(app, "GET", f"{BASE}/threads/{made}/messages", key=here.key)).json()["items"]
    [copied] = {item["run_id"] for item in items}
    view = (await ask(app, "GET", f"{path}/{copied}", key=here.key)).json()
    assert (view["status"], view["usage"]) == ("completed", {"input_tokens": 0, "output_tokens": 0})
    whole = await ask(app, "GET", f"{path}/{copied}/events", key=here.key)
    assert whole.over and whole.headers["parley-run-id"] == copied
    frames = [frame_of(part) for part in whole.parts]
    down = source[-1].data["seq"]
    assert [frame.data for frame in frames] == [moved(frame.data, made, thread, down) for frame in source]
    for place, frame in enumerate(frames):
        rest = await ask(
            here.gateways[place % 2][0],
            "GET",
            f"{path}/{copied}/events",
            key=here.key,
            headers={"Last-Event-ID": str(frame.id)},
        )
        assert (rest.status, rest.over) == (200, True)
        assert [frame_of(part) for part in rest.parts] == frames[place + 1 :], frame.id
    for cursor, code in (("2", "cursor_ahead"), ("x", "bad_cursor")):
        found = await ask(app, "GET", f"{path}/{copied}/events", key=here.key, params={"after": cursor})
        assert (found.status, found.json()["error"]) == (400, code)
    facts: list[Any] = []
    params: dict[str, str] = {"limit": "3"}
    while params:
        accept = {"Accept": "application/json"}
        page = await ask(app, "GET", f"{path}/{copied}/events", key=here.key, params=params, headers=accept)
        facts += page.json()["items"]
        cursor = page.json()["next_cursor"]
        params = {"limit": "3", "cursor": cursor} if cursor else {}
    assert facts == [f.data for f in frames if not f.type.endswith(".delta") and f.type != "run.restarted"]
    for elsewhere in (f"/api/org/chat/runs/{copied}", f"/api/org/chat/runs/{copied}/events"):
        assert (await ask(app, "GET", elsewhere, key=here.key)).status == 404


async def until_the_end(here: World, thread: str, last: str) -> list[Frame]:
    async with exchange(here.gateways[0][0], "GET", f"{BASE}/threads/{thread}/events", key=here.key) as x:
        await x.until(lambda x: x.parts and frame_of(x.parts[-1]).type == last)
        return [frame_of(part) for part in x.parts]


def moved(data: dict[str, Any], fork: str, source: str, down: int) -> dict[str, Any]:
    """A frame of the source as the fork has it."""
    there: dict[str, Any] = {
        name: moved_id(value, fork, down) if isinstance(value, str) and value.startswith(f"{source}.") else value
        for name, value in data.items()
    } | {"thread_id": fork}
    return there | {name: there[name] - down for name in ("seq", "call", "shown") if isinstance(there.get(name), int)}


async def test_a_run_that_is_open_in_the_source_is_said_so_far_and_goes_on_there_alone(here: World) -> None:
    stage = Stage(here)
    thread = await said(here)
    await ask(here.gateways[0][0], "POST", f"{BASE}/threads/{thread}/messages", key=here.key, body={"content": "one"})
    posted = await stage.posted()
    call = here.dispatcher.called(posted)
    here.dispatcher.returned(posted, call, Block(kind="text", text="So far. "))
    made = await forked(here, thread)
    here.dispatcher.called(posted, turn=1)
    here.dispatcher.completed(posted)
    assert await contents(here, made) == [("user", "one"), ("assistant", "So far. ")]
    frames = await until_the_end(here, made, "run.cancelled")
    assert (frames[-1].data["status"], frames[-1].data["reason"]) == ("cancelled", "the thread was forked here")
    assert len(here.dispatcher.written[made]) == 1, "nothing runs in the fork"
    again = await fork(here, made, at=1)
    assert again.status == 201


async def test_what_was_cleared_away_does_not_come_back(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "a secret")
    end = here.dispatcher.state(thread).seq
    here.dispatcher.append(thread, f.ThreadCleared(by="ann"))
    await ask(
        here.gateways[0][0],
        "POST",
        f"{BASE}/threads/{thread}/messages",
        key=here.key,
        body={"content": "anew"},
        params={"wait": ""},
    )
    assert await contents(here, await forked(here, thread)) == [("user", "anew"), ("assistant", "ok")]
    assert await contents(here, await forked(here, thread, at=end)) == []
    made = await forked(here, thread)
    here.dispatcher.append(made, f.ThreadCleared(by="ann"))
    assert (await fork(here, made, at=0)).status == 400, "its past is gone"
    assert await contents(here, await forked(here, made, at=1)) == []


async def test_a_fork_belongs_to_the_one_who_makes_it(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    thread = await said(here, "of bob", key=bob)
    assert (await fork(here, thread)).status == 404, "another user's is not there"
    boss = await new_key(here, "boss", "*", "admin")
    made = (await fork(here, thread, key=boss)).json()
    assert made["user_id"] == "boss"
    app = here.gateways[0][0]
    assert (await ask(app, "GET", f"{BASE}/threads/{made['id']}", key=bob)).status == 404
    assert [item["id"] for item in (await ask(app, "GET", f"{BASE}/threads", key=boss)).json()["items"]] == [made["id"]]


async def test_a_fork_of_a_shared_thread_is_ones_own(here: World) -> None:
    here.dispatcher.play = say("ok")
    app = here.gateways[0][0]
    node = {"structure_id": here.settings.workspace_id, "role_id": "scripted"}
    body = {"message": "for all", **node}
    assert (await ask(app, "POST", "/api/org/chat/message/sync", key=here.key, body=body)).status == 200
    [thread] = [stream for stream in here.dispatcher.written if not stream.startswith("ws:")]
    bob = await new_key(here, "bob", "*")
    made = (await fork(here, thread, key=bob)).json()
    assert (made["user_id"], made["message_count"]) == ("bob", 1)
    assert (await fork(here, made["id"])).status == 404, "it is no longer shared"


async def test_a_fork_is_a_conversation_of_its_contract(here: World) -> None:
    here.dispatcher.play = say("ok")
    app, agent = here.gateways[0][0], "/api/agents/scripted/chat"
    one = (await ask(app, "POST", agent, key=here.key, body={"message": "one"})).json()["conversation_id"]
    made = await forked(here, one)
    shown = [
        (await ask(app, "GET", agent, key=here.key, params={"conversation_id": thread})).json()["messages"]
        for thread in (one, made)
    ]
    assert [(row["role"], row["content"]) for row in shown[1]] == [(row["role"], row["content"]) for row in shown[0]]
    numbers = [row["id"] for row in shown[1]]
    assert numbers == sorted(numbers) and not {*numbers} & {row["id"] for row in shown[0]}
    both = (await ask(app, "GET", agent, key=here.key)).json()
    assert both["meta"]["total"] == 4
    more = await ask(app, "POST", agent, key=here.key, body={"message": "two", "conversation_id": made})
    assert more.json()["id"] > max(numbers)

    session = "/api/v3/organizations/default/ai"
    body = {"message": "one", "userId": "kim"}
    first = (await ask(app, "POST", f"{session}/agents/scripted/chat", key=here.key, body=body)).json()["sessionId"]
    made = await forked(here, first)
    path = f"{session}/sessions/{made}"
    assert (await ask(app, "GET", path, key=here.key)).status == 404, "kept for kim, as its source"
    whole = (await ask(app, "GET", path, key=here.key, params={"userId": "kim"})).json()
    assert [row["content"] for row in whole["messages"]] == ["one", "ok"]


async def test_the_stream_of_all_threads_shows_the_fork_and_not_its_past(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "one")
    bob = await new_key(here, "bob", "*")
    async with watched(here, here.key) as anns, watched(here, bob) as his:
        made = await forked(here, thread)
        [frame] = await anns.sees("thread.forked")
        assert (frame.data["thread_id"], frame.data["seq"]) == (made, 1)
        await said(here, key=bob)
        await his.sees("thread.created")
        assert made.encode() not in his.exchange.body


async def test_a_page_of_facts_has_the_forks_own(here: World) -> None:
    here.dispatcher.play = say("ok")
    made = await forked(here, await said(here, "one"))
    here.dispatcher.append(made, f.ThreadUpdated(title="t", changes=("title",)))
    path = f"{BASE}/threads/{made}/events"
    page = await ask(here.gateways[0][0], "GET", path, key=here.key, headers={"Accept": "application/json"})
    assert [item["type"] for item in page.json()["items"]] == ["thread.forked", "thread.updated"]


async def test_too_much_is_refused_whole(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "one", "two")
    heard = len(here.dispatcher.heard)
    for name, most in (("MOST_FACTS", 7), ("MOST_BYTES", 2000)):
        with monkeypatch.context() as patch:
            patch.setattr(f"parley_events.past.{name}", most)
            found = await fork(here, thread)
            assert (found.status, found.json()["error"]) == (413, "too_large"), name
            assert "fork at an earlier seq" in found.json()["message"]
            assert (await fork(here, thread, at=2)).status == 201
    assert len(here.dispatcher.heard) == heard + 2


async def test_few_are_made_at_a_time_and_nobody_waits_for_ever(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "one")
    monkeypatch.setattr("parley_gateway.dialects.threads.fork._ROOM_S", 0.05)
    async with here.core.forking, here.core.forking:
        found = await fork(here, thread)
        assert (found.status, found.json()["error"]) == (503, "unavailable")
    assert {x.status for x in await asyncio.gather(*(fork(here, thread) for _ in range(2)))} == {201}
    assert (await fork(here, thread, at=99)).status == 400
    assert not here.core.forking.locked(), "who was refused keeps no place"


async def test_while_the_source_cannot_be_read_nothing_is_forked(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "one")
    here.past.away = True
    found = await fork(here, thread)
    assert (found.status, found.json()["error"]) == (503, "unavailable")
    assert "retry-after" in found.headers


async def test_it_has_all_that_is_on_the_log_when_it_is_asked_for(here: World) -> None:
    """Also what another gateway answered a moment ago, and the view has not yet."""
    here.dispatcher.play = say("ok")
    second = await here.application()
    thread = await said(here, "one")
    end = here.dispatcher.state(thread).seq
    await here.eventually(lambda: len(here.past.facts[thread]) == end)
    here.past.held.clear()
    path = f"{BASE}/threads/{thread}"
    posted = await ask(here.gateways[0][0], "POST", f"{path}/messages", key=here.key, body={"content": "two"})
    assert posted.status == 202
    await here.eventually(lambda: here.dispatcher.state(thread).seq == end + 4)
    for body in ({}, {"at": end + 1}):
        asked = len([one for one in here.past.asked if "facts" in one])
        async with exchange(second, "POST", f"{path}/fork", key=here.admin_key, body=body) as x:
            await here.eventually(partial(more_than, here, asked))
            here.past.held.set()
            await x.end()
        assert (x.status, x.json()["message_count"]) == (201, 2), x.body
        here.past.held.clear()
        here.dispatcher.append(thread, f.ThreadUpdated(title="t", changes=("title",)))


def more_than(here: World, asked: int) -> bool:
    """Whether facts were asked for since."""
    return len([one for one in here.past.asked if "facts" in one]) > asked


async def test_what_is_not_decided_in_time_is_told_with_its_id(here: World) -> None:
    here.dispatcher.play = say("ok")
    thread = await said(here, "one")
    here.dispatcher.deaf = True
    found = await fork(here, thread, headers={"Idempotency-Key": "k"})
    assert (found.status, found.json()["status"]) == (202, "accepted")
    [command] = [one for one in here.dispatcher.heard if isinstance(one.body, ForkThread)]
    assert command.stream == found.json()["id"]


async def test_a_large_past_goes_through_the_object_store() -> None:
    """It is larger than a record."""
    async with world(sockets=False, outcome_s=60.0) as here:
        here.dispatcher.play = say("x" * 1_000_000)
        thread = await said(here, *(f"{n} " + "y" * 200_000 for n in range(8)))
        made = await forked(here, thread)
        assert await contents(here, made) == await contents(here, thread)
        [record] = [record for record, one in here.past.facts[made] if one.seq == 1]
        assert len(record.value or b"") > 8 * 2**20, "made whole again by the one who reads it"

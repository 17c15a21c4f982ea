"""Teams in `team_chat`: every request with its command and its answer, a stream send by send, and every cursor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block, Usage
from parley_events.codec import Fact
from parley_events.ids import agent_uuid, answer_id
from parley_events.pieces import Piece
from tests.contract.dialects.test_rights import new_key
from tests.contract.dialects.tongues import NOBODY
from tests.contract.dialects.transcript import Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, run_id_of, tool_block

PAGES = Path(__file__).parent / "transcripts"
TEAM = "/teams/founders"
MESSAGE = {"message": "Brainstorm startup ideas", "mode": "brainstorm"}


@pytest.fixture
async def team(here: World) -> World:
    """A world with a team of two, whose lead is the second one."""
    body = {"id": "founders", "name": "Founders", "members": ["assistant", "scripted"], "lead": "scripted"}
    assert (await ask(here.gateways[0][0], "POST", "/api/v1/teams", key=here.admin_key, body=body)).status == 201
    return here


def speak(d: Dispatcher, posted: Fact, at: int, text: str, round: int = 0) -> Fact:
    """A member says something, and is done."""
    member = d.member(posted, at, round)
    call = d.called(member)
    d.returned(member, call, Block(kind="text", text=text))
    d.completed(member)
    return member


def sum_up(d: Dispatcher, posted: Fact, text: str = "In short.") -> None:
    call = d.called(posted)
    d.returned(posted, call, Block(kind="text", text=text))
    d.completed(posted)


async def plays(d: Dispatcher, posted: Fact) -> None:
    """Every member says who it is, in every round; then the lead."""
    play = posted.body.play  # type: ignore[attr-defined]
    for round in range(play.rounds):
        for at, name in reversed(list(enumerate(play.members))):
            speak(d, posted, at, f"{name} in round {round}.", round)
    sum_up(d, posted)


async def one_fails(d: Dispatcher, posted: Fact) -> None:
    speak(d, posted, 0, "An idea.")
    member = d.member(posted, 1)
    d.failed(member, d.called(member), retry=False)
    d.ended(member, "cut", "the stream broke")
    sum_up(d, posted)


async def no_summary(d: Dispatcher, posted: Fact) -> None:
    for at in range(2):
        speak(d, posted, at, "An idea.")
    d.ended(posted, "overloaded", "the model is overloaded")


async def nobody_answers(d: Dispatcher, posted: Fact) -> None:
    for at in range(2):
        d.ended(d.member(posted, at), "auth", "the key is not good")
    d.append(posted.stream, _failed(posted, "team_failed", "no member of the team gave an answer"))


async def breaks(d: Dispatcher, posted: Fact) -> None:
    d.member(posted, 0)
    d.append(posted.stream, _failed(posted, "internal", "the run broke inside Parley"))


def _failed(posted: Fact, code: str, message: str) -> f.RunFailed:
    run = run_id_of(posted)
    return f.RunFailed(run_id=run, message_id=answer_id(run), code=code, message=message, usage=Usage())


async def test_a_team_answers_in_every_mode(team: World) -> None:
    team.dispatcher.play = plays
    made = Transcript(team)
    for _ in range(2):
        await made.ask("POST", f"{TEAM}/chat", body=MESSAGE, headers={"Idempotency-Key": "k"})
    made.note("under the same key in another mode")
    await made.ask("POST", f"{TEAM}/chat", body={**MESSAGE, "mode": "debate"}, headers={"Idempotency-Key": "k"})
    made.note("of a debate the second round; the team by its UUID, below /api")
    uuid = agent_uuid(WORKSPACE, "founders")
    await made.ask("POST", f"/api/teams/{uuid}/chat", body={**MESSAGE, "mode": "debate"})
    made.note("the default mode is the team's own; `auto` says so")
    for more in ({}, {"mode": "auto"}):
        found = await made.ask("POST", f"{TEAM}/chat", body={"message": "And?", **more})
    made.note("the run, looked at afterwards")
    await made.ask("GET", f"{TEAM}/runs/{found.headers['parley-run-id']}")
    made.compare(PAGES / "team.txt")


async def test_what_became_of_members_is_said_and_the_answer_is_there(team: World) -> None:
    made = Transcript(team)
    for play, note in (
        (one_fails, "a member fails"),
        (no_summary, "the summary fails"),
        (nobody_answers, "all members fail"),
        (breaks, "the run itself breaks"),
    ):
        made.note(note)
        team.dispatcher.play = play
        found = await made.ask("POST", f"{TEAM}/chat", body=MESSAGE)
        run = found.headers["parley-run-id"]
        await made.ask("GET", f"{TEAM}/runs/{run}")
        await made.ask("GET", f"{TEAM}/runs/{run}/events")
    made.compare(PAGES / "team-failures.txt")


async def test_bad_requests_are_told_in_the_contracts_words(team: World) -> None:
    made = Transcript(team)
    made.note("no such team, no such mode, no message")
    await made.ask("POST", "/teams/nobody/chat", body=MESSAGE)
    await made.ask("POST", f"/teams/{NOBODY}/chat/stream", body=MESSAGE)
    await made.ask("POST", f"{TEAM}/chat", body={**MESSAGE, "mode": "vote"})
    await made.ask("POST", f"{TEAM}/chat", body={**MESSAGE, "mode": 7})
    await made.ask("POST", f"{TEAM}/chat", body={"mode": "debate"})
    await made.ask("POST", f"{TEAM}/chat", body={"message": ""})
    made.note("a conversation that there is not, and one with an agent")
    await made.ask("POST", f"{TEAM}/chat", body={**MESSAGE, "conversation_id": NOBODY})
    own = await ask(team.gateways[0][0], "POST", "/agents/assistant/conversations", key=team.key, body={})
    await made.ask("POST", f"{TEAM}/chat", body={**MESSAGE, "conversation_id": own.json()["id"]})
    made.note("a run that there is not")
    await made.ask("GET", f"{TEAM}/runs/{NOBODY}.r1")
    made.compare(PAGES / "team-refusals.txt")


async def tell(here: World, made: Transcript) -> Exchange:
    """A stream whose members speak side by side."""
    stage, d = Stage(here), here.dispatcher
    async with exchange(here.gateways[0][0], "POST", f"{TEAM}/chat/stream", key=here.key, body=MESSAGE) as x:
        watch = Watch(x)
        posted = await stage.posted()
        thread = posted.stream
        first, second = d.member(posted, 0), d.member(posted, 1)
        calls = d.called(first), d.called(second)
        d.pieces(Piece(thread, calls[0], 0, "thought", 0, "Hm."))
        d.pieces(Piece(thread, calls[0], 1, "text", 0, "One "))
        await watch.sees("text")
        d.pieces(Piece(thread, calls[1], 0, "text", 0, "Two "))
        await watch.sees("text")
        d.returned(
            first, calls[0], Block(kind="thought", text="Hm."), Block(kind="text", text="One thing."),
            tool_block("clock", calls[0], {}),
        )  # fmt: skip
        await watch.sees("text")
        d.use(first, calls[0], "clock", {}, "now")
        again = d.called(first, turn=1)
        d.returned(first, again, Block(kind="text", text=" Now."), turn=1)
        await watch.sees("text")
        d.completed(first)
        d.failed(second, calls[1], retry=False)
        d.ended(second, "cut", "the stream broke")
        await watch.sees("member_error")
        call = d.called(posted)
        d.pieces(Piece(thread, call, 0, "text", 0, "In "))
        d.returned(posted, call, Block(kind="text", text="In short."))
        d.completed(posted)
        await x.until(lambda x: x.over)
        made.request("POST", f"{TEAM}/chat/stream", {"body": MESSAGE})
        made.answer(x)
    end_seq = d.state(thread).seq
    await here.eventually(lambda: len(here.past.facts[thread]) == end_seq)
    return x


async def test_a_team_is_streamed_member_by_member(team: World) -> None:
    made = Transcript(team)
    x = await tell(team, made)
    made.note("the same run, read when it has ended")
    await made.ask("GET", f"{TEAM}/runs/{x.headers['parley-run-id']}/events")
    made.compare(PAGES / "team-stream.txt")


async def test_every_id_gives_exactly_the_rest(team: World) -> None:
    await team.application()
    x = await tell(team, Transcript(team))
    whole = frames_of(x)
    path = f"{TEAM}/runs/{x.headers['parley-run-id']}/events"
    for place, frame in enumerate(whole):
        headers = {"Last-Event-ID": str(frame.id)}
        again = await ask(team.gateways[place % 2][0], "GET", path, key=team.key, headers=headers)
        assert again.status == 200 and again.over and again.parts[-1] == b"data: [DONE]\n\n"
        both = whole[: place + 1] + frames_of(again)
        for kind in ("member_error", "summary", "done"):
            assert [one.data for one in both if one.type == kind] == [one.data for one in whole if one.type == kind]
        assert said(both, "assistant") == "One thing. Now."
        assert said(both, "scripted") in ("", "Two "), "of an attempt that failed nothing is promised"


def frames_of(x: Exchange) -> list[Frame]:
    return [frame_of(part) for part in x.parts if part != b"data: [DONE]\n\n"]


def said(frames: list[Frame], agent: str) -> str:
    return "".join(one.data["content"] for one in frames if one.type == "text" and one.data["agent_id"] == agent)


async def test_of_a_debate_the_stream_has_the_second_round_alone(team: World) -> None:
    team.dispatcher.play = plays
    body = {"message": "Argue.", "mode": "debate"}
    x = await ask(team.gateways[0][0], "POST", f"{TEAM}/chat/stream", key=team.key, body=body)
    assert {agent: said(frames_of(x), agent) for agent in ("assistant", "scripted")} == {
        "assistant": "assistant in round 1.",
        "scripted": "scripted in round 1.",
    }


async def test_who_does_not_wait_is_told_where_to_look(team: World) -> None:
    stage = Stage(team)
    app = team.gateways[0][0]
    waiting = await ask(app, "POST", f"{TEAM}/chat", key=team.key, body=MESSAGE, params={"wait": "0"})
    found = waiting.json()
    assert (waiting.status, found["status"]) == (202, "running")
    posted = await stage.posted()
    seen = await ask(app, "GET", f"{TEAM}/runs/{found['run_id']}", key=team.key)
    assert (seen.json()["status"], seen.json()["responses"]) == ("running", None)
    await plays(team.dispatcher, posted)
    end_seq = team.dispatcher.state(posted.stream).seq
    await team.eventually(lambda: len(team.past.facts[posted.stream]) == end_seq)
    seen = await ask(app, "GET", f"{TEAM}/runs/{found['run_id']}", key=team.key)
    assert (seen.json()["status"], seen.json()["summary"]) == ("completed", "In short.")
    assert (await ask(app, "GET", found["events_url"], key=team.key)).body.endswith(b"data: [DONE]\n\n")
    other = f"/teams/pair/runs/{found['run_id']}"
    assert {(await ask(app, "GET", path, key=team.key)).status for path in (other, f"{other}/events")} == {404}


async def test_a_cancelled_team_is_an_error(team: World) -> None:
    async def stopped(d: Dispatcher, posted: Fact) -> None:
        d.cancelled(d.member(posted, 0), None)
        d.cancelled(posted, None)

    team.dispatcher.play = stopped
    app = team.gateways[0][0]
    x = await ask(app, "POST", f"{TEAM}/chat", key=team.key, body=MESSAGE)
    assert (x.status, x.json()["error"]["details"]) == (500, {"code": "cancelled"})
    x = await ask(app, "POST", f"{TEAM}/chat/stream", key=team.key, body=MESSAGE)
    assert frames_of(x)[-1].data == {"type": "error", "content": "the run was cancelled"}


async def test_everybody_has_one_default_conversation_with_a_team_and_a_new_one_when_it_is_deleted(team: World) -> None:
    team.dispatcher.play = plays
    app = team.gateways[0][0]

    async def talk(key: str, **more: Any) -> str:
        x = await ask(app, "POST", f"{TEAM}/chat", key=key, body={**MESSAGE, **more})
        assert x.status == 200, x.body
        return str(x.json()["conversation_id"])

    first = await talk(team.key)
    _, bob = await new_key(team, ("*",), "bob")
    assert await talk(team.key) == first != await talk(bob)
    assert await talk(team.key, conversation_id=first) == first
    assert (await ask(app, "DELETE", f"/api/v1/chat/threads/{first}", key=team.key)).status == 204
    second = await talk(team.key)
    assert second != first and await talk(team.key) == second


async def test_a_key_for_one_team_speaks_and_reads_with_it_alone(team: World) -> None:
    team.dispatcher.play = plays
    app = team.gateways[0][0]
    other = await ask(app, "POST", "/teams/pair/chat", key=team.key, body={"message": "a secret"})
    _, key = await new_key(team, ("team:founders",), "ann")
    x = await ask(app, "POST", f"{TEAM}/chat", key=key, body=MESSAGE)
    run, thread = x.headers["parley-run-id"], x.json()["conversation_id"]
    chat = "/api/v1/chat"
    for path in (
        f"{TEAM}/runs/{run}", f"{TEAM}/runs/{run}/events", f"{chat}/threads/{thread}", f"{chat}/runs/{run}",
        f"{chat}/threads/{thread}/messages", f"{chat}/threads",
    ):  # fmt: skip
        assert (await ask(app, "GET", path, key=key)).status == 200, path
    listed = (await ask(app, "GET", f"{chat}/threads", key=key)).json()["items"]
    assert [one["id"] for one in listed] == [thread]
    foreign = other.json()["conversation_id"]
    for method, path, body in (
        ("POST", "/teams/pair/chat", MESSAGE),
        ("POST", "/agents/assistant/chat", {"message": "hi"}),
        ("POST", f"{TEAM}/chat", {**MESSAGE, "conversation_id": foreign}),
        ("POST", f"{chat}/threads/{thread}/messages", {"content": "hi"}),
        ("GET", f"{chat}/threads/{foreign}", None),
        ("GET", f"/teams/pair/runs/{other.headers['parley-run-id']}", None),
        ("DELETE", f"{chat}/threads/{foreign}", None),
    ):
        heard = len(team.dispatcher.heard)
        options = {} if body is None else {"body": body}
        assert (await ask(app, method, path, key=key, **options)).status == 403, (method, path)
        assert len(team.dispatcher.heard) == heard
    assert (await ask(app, "DELETE", f"{chat}/threads/{thread}", key=key)).status == 204


async def test_what_members_say_ends_when_the_client_has_gone_and_not_for_the_team(team: World) -> None:
    """A dropped connection stops nobody."""
    stage = Stage(team)
    async with exchange(team.gateways[0][0], "POST", f"{TEAM}/chat/stream", key=team.key, body=MESSAGE):
        posted = await stage.posted()
    await asyncio.sleep(0)
    await plays(team.dispatcher, posted)
    end_seq = team.dispatcher.state(posted.stream).seq
    await team.eventually(lambda: len(team.past.facts[posted.stream]) == end_seq)
    run = run_id_of(posted)
    found = (await ask(team.gateways[0][0], "GET", f"{TEAM}/runs/{run}", key=team.key)).json()
    assert (found["status"], found["summary"]) == ("completed", "In short.")

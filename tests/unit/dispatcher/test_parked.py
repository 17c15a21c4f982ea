"""Runs that wait: for people who approve, for clients that run tools, for children that do either."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher.providers.base import Event, Request, Said, Stopped, Used
from parley_dispatcher.tools import TOOLS
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Approval, ClientTool, Usage
from tests.unit.dispatcher.test_runner import Held, Plays
from tests.unit.dispatcher.world import (
    ANN,
    BOB,
    Dispatcher,
    HeldModel,
    World,
    agent,
    eventually,
    make_world,
    new_thread,
    post,
    within,
)

WEATHER = ClientTool(
    name="get_weather",
    input_schema={"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)
TERMS: dict[str, Any] = {"approvals": ("publish",), "client_tools": (WEATHER,)}
PUBLISH = '/tool publish {"text": "%s"}'
ASK_WEATHER = '/tool get_weather {"location": "%s"}'
ASK_CHILD = '/tool ask_agent {"agent_id": "assistant", "message": %s}'


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path, agent(**TERMS), agent("assistant", **TERMS)) as made:
        yield made


def approve(approval: str, **more: Any) -> c.AnswerApproval:
    fields: dict[str, Any] = {"principal": ANN, "approval_id": approval, "decision": "approve"} | more
    return c.AnswerApproval(**fields)


def deny(approval: str, **more: Any) -> c.AnswerApproval:
    return approve(approval, decision="deny", **more)


def result(tool_call_id: str, text: str = "rain", **more: Any) -> c.AnswerTool:
    return c.AnswerTool(principal=ANN, tool_call_id=tool_call_id, result=text, **more)


def published(world: World) -> list[str]:
    """The texts that were really published, in order."""
    file = world.folder / "effects" / "published"
    return [json.loads(line.partition("\t")[2]) for line in file.read_text().splitlines()] if file.exists() else []


async def parked(world: World, thread: str, count: int = 1) -> f.RunWaiting:
    """The thread's `count`-th `run.waiting`."""
    waiting: f.RunWaiting = await world.read.wait_for(thread, f.RunWaiting, count=count)
    return waiting


async def let_go(dispatcher: Dispatcher, thread: str) -> None:
    """Until nothing of the thread is held."""
    owner = dispatcher.owner(thread)
    await eventually(lambda: thread not in owner.states.held and not owner.running)


def results(world: World, thread: str) -> dict[str, tuple[str, str]]:
    """What came of each call of a tool, by its id: status and text."""
    found = world.read.of(thread, f.ToolReturned)
    return {body.tool_call_id: (body.status, body.result) for body in found}


def calls(world: World, thread: str) -> list[str]:
    """The ids of the calls that the models of a thread asked for, in order."""
    blocks = [block for body in world.read.of(thread, f.ModelReturned) for block in body.blocks]
    return [block.tool_call_id for block in blocks if block.kind == "tool"]


# ---- approvals


async def test_a_tool_that_needs_an_approval_is_called_once_it_was_given_and_not_before(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        asked = await world.ask(thread, post(f"{PUBLISH % 'hello'}\n/text done"))
        waiting = await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert (waiting.waits_for, waiting.tool_call_ids) == ("approval", (request.tool_call_id,))
        assert waiting.due_at_ms == request.due_at_ms
        assert (request.run_id, request.name, request.arguments) == (asked.run_id, "publish", {"text": "hello"})
        assert request.input_schema["properties"]["text"]["type"] == "string"
        await let_go(dispatcher, thread)
        assert published(world) == [] and not world.read.of(thread, f.ToolCalled)
        answered = await world.ask(thread, approve(request.approval_id, principal=BOB, comment="fine"))
        assert (answered.type, answered.decision, answered.by) == ("approval.answered", "approve", "bob")
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == ["hello"]
    kinds = world.read.types(thread)
    order = ["model.returned", "approval.requested", "run.waiting", "approval.answered", "tool.called", "tool.returned"]
    assert kinds[2:8] == order


async def test_a_denied_call_is_not_made_and_the_model_is_told_why(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(f"{PUBLISH % 'secret'}\n/show messages"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, deny(request.approval_id, comment="not today"))
        await world.read.ended(thread)
    assert published(world) == [] and not world.read.of(thread, f.ToolCalled)
    status, text = results(world, thread)[request.tool_call_id]
    assert status == "denied" and "not today" in text
    shown = json.loads(world.read.of(thread, f.ModelReturned)[-1].blocks[0].text)
    assert shown[-1]["content"][0]["is_error"] and "not today" in shown[-1]["content"][0]["content"]


async def test_edited_arguments_are_what_is_called_and_the_model_is_told_of_them(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(f"{PUBLISH % 'hello'}\n/show messages"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        refused = await world.ask(thread, approve(request.approval_id, arguments={"text": 3}))
        assert (refused.code, refused.message) == ("invalid", "arguments: 'text' is not of the type string")
        await world.ask(thread, approve(request.approval_id, arguments={"text": "hello, world"}))
        await world.read.ended(thread)
    assert published(world) == ["hello, world"]
    [called] = world.read.of(thread, f.ToolCalled)
    assert called.arguments == {"text": "hello, world"}
    shown = json.loads(world.read.of(thread, f.ModelReturned)[-1].blocks[0].text)
    assert shown[-2]["content"][0]["input"] == {"text": "hello"}, "what the model said stays what it said"
    assert "hello, world" in shown[-1]["content"][0]["content"].splitlines()[0]


async def test_several_are_answered_one_by_one_and_each_is_done_at_once(world: World) -> None:
    thread = new_thread()
    script = "\n".join([PUBLISH % "a", '/tool echo {"x": 1}', PUBLISH % "b", ASK_WEATHER % "Tokyo", "/text done"])
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(script))
        waiting = await parked(world, thread)
        first, plain, second, weather = calls(world, thread)
        assert (waiting.waits_for, set(waiting.tool_call_ids)) == ("approval", {first, second, weather})
        assert results(world, thread) == {plain: ("ok", '{"x": 1}')}
        approvals = {body.tool_call_id: body.approval_id for body in world.read.of(thread, f.ApprovalRequested)}
        await world.ask(thread, approve(approvals[second]))
        waiting = await parked(world, thread, 2)
        assert published(world) == ["b"] and set(waiting.tool_call_ids) == {first, weather}
        answered = await world.ask(thread, result(weather, "ra\x00in"))
        assert (answered.pending, answered.result) == ((), "ra\ufffdin")
        await parked(world, thread, 3)
        await let_go(dispatcher, thread)
        await world.ask(thread, deny(approvals[first]))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == ["b"]
    assert len(world.read.of(thread, f.ModelCalled)) == 2


async def test_one_run_may_ask_again_and_again(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post("\n".join(f"{PUBLISH % text}\n/text next" for text in "abc")))
        for count, text in enumerate("abc", start=1):
            await parked(world, thread, count)
            assert published(world) == list("abc"[: count - 1])
            request = world.read.of(thread, f.ApprovalRequested)[-1]
            assert request.arguments == {"text": text}
            await world.ask(thread, approve(request.approval_id))
        await world.read.ended(thread)
    assert published(world) == list("abc")


async def test_of_two_answers_the_first_in_the_log_counts(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(PUBLISH % "x"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        one = await world.put(thread, approve(request.approval_id))
        two = await world.put(thread, deny(request.approval_id))
        assert (await world.read.outcome(one)).type == "approval.answered"
        assert (await world.read.outcome(two)).code == "not_open"
        await world.put(thread, approve(request.approval_id), one)
        assert (await world.read.outcome(one, 2)).type == "command.repeated"
        await world.read.ended(thread)
    assert published(world) == ["x"]


async def test_nobody_is_asked_about_a_call_that_cannot_be_made(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post('/tool publish {"words": "x"}\n/text done'))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert not world.read.of(thread, f.ApprovalRequested)
    [returned] = world.read.of(thread, f.ToolReturned)
    assert returned.status == "error" and "do not fit" in returned.result


async def test_the_terms_are_on_record_and_bind_who_may_answer(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
    terms = Approval(tool="pub*", question="Really?", input_schema=schema, who=("bob",), expires_s=60)
    async with make_world(tmp_path, agent(approvals=(terms,))) as world, world.dispatcher():
        thread = new_thread()
        await world.put(thread, post(PUBLISH % "x"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert (request.question, request.input_schema, request.who) == ("Really?", schema, ("bob",))
        [at] = [fact.time_ms for fact in world.read.facts if isinstance(fact.body, f.ApprovalRequested)]
        assert 59_000 < request.due_at_ms - at <= 60_000
        assert (await world.ask(thread, approve(request.approval_id))).code == "forbidden"
        more = approve(request.approval_id, principal=BOB, arguments={"text": "x", "more": 1})
        assert (await world.ask(thread, more)).message == "arguments: 'more' is not known"
        assert (await world.ask(thread, approve(request.approval_id, principal=BOB))).type == "approval.answered"
        await world.read.ended(thread)


# ---- tools of the client


async def test_a_client_tool_is_shown_to_the_model_and_its_call_waits_for_the_client(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(f"/show tools\n{ASK_WEATHER % 'Tokyo'}\n{ASK_WEATHER % 'Oslo'}\n/show messages"))
        waiting = await parked(world, thread)
        tokyo, oslo = calls(world, thread)
        assert (waiting.waits_for, waiting.tool_call_ids) == ("client_tool", (tokyo, oslo))
        tools = {tool["name"]: tool for tool in json.loads(world.read.of(thread, f.ModelReturned)[0].blocks[0].text)}
        assert tools["get_weather"]["input_schema"] == WEATHER.input_schema
        called = world.read.of(thread, f.ToolCalled)
        assert [(body.effect, body.arguments["location"]) for body in called] == [
            ("client", "Tokyo"),
            ("client", "Oslo"),
        ]
        assert waiting.due_at_ms == min(body.due_at_ms for body in called)
        first = await world.ask(thread, result(oslo, "snow"))
        assert (first.pending, first.run_id) == ((tokyo,), waiting.run_id)
        assert (await world.ask(thread, result(oslo, "sun"))).code == "not_open"
        assert (await world.ask(thread, result("call_none"))).code == "not_found"
        assert (await world.ask(thread, result(tokyo, is_error=True))).pending == ()
        await world.read.ended(thread)
    shown = json.loads(world.read.of(thread, f.ModelReturned)[-1].blocks[0].text)[-1]["content"]
    assert [(block["content"], block.get("is_error", False)) for block in shown] == [("rain", True), ("snow", False)]
    assert not world.read.of(thread, f.ToolReturned), "the answer is the result"


async def test_one_id_given_to_two_calls_is_answered_oldest_first(world: World) -> None:
    class Twice:
        async def stream(self, request: Request) -> AsyncIterator[Event]:
            if request.turn == 0:
                for index, place in enumerate(("Tokyo", "Oslo")):
                    yield Used(index, "same", "get_weather", {"location": place})
                yield Stopped("tool_use", Usage())
            else:
                yield Said(0, "text", json.dumps(request.messages[-1]["content"]))
                yield Stopped("end_turn", Usage())

    thread = new_thread()
    async with world.dispatcher(providers={"scripted": Twice()}):
        await world.put(thread, post("x"))
        await parked(world, thread)
        assert (await world.ask(thread, result("same", "of Tokyo"))).pending == ("same",)
        assert (await world.ask(thread, result("same", "of Oslo"))).pending == ()
        await world.read.ended(thread)
    said = world.read.of(thread, f.ModelReturned)[-1].blocks[0].text
    assert [block["content"] for block in json.loads(said)] == ["of Tokyo", "of Oslo"]


async def test_arguments_that_are_no_object_never_reach_the_client(world: World) -> None:
    model = Plays(Used(0, "bad", "get_weather", {}, malformed="[1"), Stopped("tool_use", Usage()))
    thread = new_thread()
    async with world.dispatcher(providers={"scripted": model}):
        await world.put(thread, post("x"))
        returned = await world.read.wait_for(thread, f.ToolReturned)
        assert returned.status == "error" and "[1" in returned.result
        assert not world.read.of(thread, f.RunWaiting)


async def test_what_an_agent_declares_goes_before_a_built_in_tool_of_the_same_name(tmp_path: Path) -> None:
    own = ClientTool(name="clock", description="The client's own.")
    async with make_world(tmp_path, agent(client_tools=(own,))) as world, world.dispatcher():
        thread = new_thread()
        await world.put(thread, post("/show tools\n/tool clock"))
        assert (await parked(world, thread)).waits_for == "client_tool"
        tools = json.loads(world.read.of(thread, f.ModelReturned)[0].blocks[0].text)
        assert [tool["description"] for tool in tools if tool["name"] == "clock"] == ["The client's own."]


async def test_a_message_during_a_wait_for_the_client_alone_closes_its_calls_and_the_run_goes_on(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(f"{ASK_WEATHER % 'Tokyo'}\n/show messages"))
        await parked(world, thread)
        second = await world.ask(thread, post("/text the second"))
        assert second.disposition == "queued"
        [call] = calls(world, thread)
        assert (await world.read.ended(thread, 2)).run_id == second.run_id
        assert (await world.ask(thread, result(call))).code == "not_open"
    status, text = results(world, thread)[call]
    assert status == "error" and "went on" in text
    assert [end.type for end in world.read.of(thread, f.RunCompleted)] == ["run.completed"] * 2


async def test_a_message_while_an_approval_is_open_is_queued(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{PUBLISH % 'x'}\n{ASK_WEATHER % 'Tokyo'}"))
        await parked(world, thread)
        second = await world.ask(thread, post("/text the second"))
        assert second.disposition == "queued"
        await let_go(dispatcher, thread)
        _, call = calls(world, thread)
        await world.ask(thread, result(call))
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, approve(request.approval_id))
        assert (await world.read.ended(thread, 2)).run_id == second.run_id
    assert published(world) == ["x"]


# ---- over owners


async def test_a_parked_run_is_not_loaded_by_a_new_owner_and_goes_on_when_it_is_answered(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        await let_go(dispatcher, thread)
    [request] = world.read.of(thread, f.ApprovalRequested)
    await world.history.reaches(await world.log.ends("parley.events"))
    for _ in range(2):
        world.history.asked.clear()
        async with world.dispatcher() as dispatcher:
            await eventually(lambda: dispatcher.worker.ready)
            other = new_thread(0)
            await world.ask(other, post("/text hi"))
            await world.read.ended(other)
            assert not dispatcher.owner(thread).running
        assert f"streams/{thread}/facts" not in world.history.asked
        await world.history.reaches(await world.log.ends("parley.events"))
    async with world.dispatcher():
        await world.ask(thread, approve(request.approval_id))
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == ["x"]
    assert len(world.read.of(thread, f.ModelCalled)) == 2, "no turn was repeated"


async def test_what_was_answered_before_the_owner_died_is_done_by_the_next(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        dispatcher.runner.draining = True
        await world.ask(thread, approve(request.approval_id))
        assert published(world) == []
    async with world.dispatcher():
        await world.read.ended(thread)
    assert published(world) == ["x"]


async def test_while_draining_what_has_nothing_left_to_do_is_parked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(effect="read_only")
    monkeypatch.setitem(TOOLS, "held", held.tool)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/tool held"))
        await within(held.begun.wait())
        dispatcher.runner.draining = True
        held.gate.open()
        await parked(world, thread)


# ---- children


async def test_a_child_that_parks_parks_its_parent_and_its_answer_resumes_both(world: World) -> None:
    thread = new_thread(0)
    inner = json.dumps(f"{PUBLISH % 'inner'}\n/text from the child")
    async with world.dispatcher() as dispatcher:
        outer = await world.ask(thread, post(f"{ASK_CHILD % inner}\n/show messages"))
        second = await parked(world, thread, 2)
        first = world.read.of(thread, f.RunWaiting)[0]
        [child] = world.read.of(thread, f.ChildStarted)
        assert (first.run_id, second.run_id) == (child.run_id, outer.run_id)
        assert (second.waits_for, second.due_at_ms) == ("approval", first.due_at_ms)
        assert second.tool_call_ids == (child.tool_call_id,)
        await let_go(dispatcher, thread)
    async with world.dispatcher():
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert request.run_id == child.run_id
        await world.ask(thread, approve(request.approval_id))
        await world.read.ended(thread, 2)
    assert published(world) == ["inner"]
    assert [body.name for body in world.read.of(thread, f.ToolCalled)] == ["ask_agent", "publish"]
    assert len(world.read.of(thread, f.ChildStarted)) == 1
    assert results(world, thread)[child.tool_call_id] == ("ok", "from the child")
    assert len(world.read.of(thread, f.ModelCalled)) == 4


async def test_a_grandchild_parks_all_above_it_and_its_answer_resumes_them(world: World) -> None:
    thread = new_thread(0)
    inner = ASK_CHILD % json.dumps(f"{PUBLISH % 'deep'}\n/text deep")
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{ASK_CHILD % json.dumps(inner + chr(10) + '/text middle')}\n/text top"))
        await parked(world, thread, 3)
        await let_go(dispatcher, thread)
    async with world.dispatcher():
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, approve(request.approval_id))
        await world.read.ended(thread, 3)
    assert published(world) == ["deep"]
    assert len(world.read.of(thread, f.RunCompleted)) == 3 and len(world.read.of(thread, f.ChildStarted)) == 2


async def test_two_children_are_answered_one_by_one(world: World) -> None:
    thread = new_thread()
    asks = [ASK_CHILD % json.dumps(f"{PUBLISH % text}\n/text {text}") for text in ("a", "b")]
    async with world.dispatcher():
        await world.put(thread, post("\n".join([*asks, "/text done"])))
        await parked(world, thread, 3)
        requests = {body.arguments["text"]: body.approval_id for body in world.read.of(thread, f.ApprovalRequested)}
        await world.ask(thread, approve(requests["b"]))
        await world.read.ended(thread)
        await parked(world, thread, 4)
        assert published(world) == ["b"]
        await world.ask(thread, deny(requests["a"]))
        assert (await world.read.ended(thread, 3)).type == "run.completed"
    assert [text for _, text in sorted(results(world, thread).values()) if text in "ab"] == ["a", "b"]


async def test_a_child_that_waits_for_the_client_is_let_go_by_the_users_next_message(world: World) -> None:
    thread = new_thread()
    inner = json.dumps(f"{ASK_WEATHER % 'Tokyo'}\n/text inner")
    async with world.dispatcher():
        await world.put(thread, post(f"{ASK_CHILD % inner}\n/text outer"))
        await parked(world, thread, 2)
        await world.ask(thread, post("/text second"))
        await world.read.ended(thread, 3)
    assert len(world.read.of(thread, f.RunCompleted)) == 3


# ---- cancelling


async def test_a_parked_run_that_is_cancelled_ends_at_once_with_a_result_for_each_open_call(world: World) -> None:
    thread = new_thread()
    script = "\n".join([PUBLISH % "x", ASK_WEATHER % "Tokyo", ASK_CHILD % json.dumps(PUBLISH % "y")])
    async with world.dispatcher() as dispatcher:
        asked = await world.ask(thread, post(script))
        await parked(world, thread, 2)
        await let_go(dispatcher, thread)
        cancel = c.CancelRun(principal=ANN, run_id=asked.run_id, reason="enough")
        outcome = await world.ask(thread, cancel)
        assert outcome.type == "run.cancelling"
        end = await world.read.ended(thread, 2)
        assert (end.type, end.run_id, end.by, end.reason) == ("run.cancelled", asked.run_id, "ann", "enough")
        assert (await world.ask(thread, cancel)).code == "not_open"
        for request in world.read.of(thread, f.ApprovalRequested):
            assert (await world.ask(thread, approve(request.approval_id))).code == "not_open"
        # The thread stays usable, and the model sees no call without its result.
        await world.ask(thread, post("/show messages"))
        await world.read.ended(thread, 3)
    assert published(world) == []
    kinds = world.read.types(thread)
    ends = [place for place, kind in enumerate(kinds) if kind == "run.cancelled"]
    returned = [place for place, kind in enumerate(kinds) if kind == "tool.returned"]
    assert len(returned) == 4 and len(ends) == 2 and max(returned) < max(ends)
    shown = json.loads(world.read.of(thread, f.ModelReturned)[-1].blocks[0].text)
    used = [block["id"] for message in shown for block in message["content"] if block["type"] == "tool_use"]
    told = [block["tool_use_id"] for message in shown for block in message["content"] if block["type"] == "tool_result"]
    assert used == told and len(used) == 3


async def test_cancelling_twice_is_told_of_the_first(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}) as dispatcher:
        asked = await world.ask(thread, post("/text HOLD"))
        await within(model.holding.wait())
        dispatcher.runner.draining = True  # nothing ends it meanwhile
        cancel = c.CancelRun(principal=ANN, run_id=asked.run_id)
        await world.ask(thread, cancel)
        again = await world.ask(thread, cancel)
        [seq] = [fact.seq for fact in world.read.facts if isinstance(fact.body, f.RunCancelling)]
        assert (again.type, again.outcome_type, again.outcome_seq) == ("command.repeated", "run.cancelling", seq)
        assert again.first["run_id"] == asked.run_id


async def test_cancelling_a_thread_ends_everything_in_it(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        first = await world.ask(thread, post(PUBLISH % "x"))
        await parked(world, thread)
        second = await world.ask(thread, post("/text queued"))
        await let_go(dispatcher, thread)
        outcome = await world.ask(thread, c.CancelThread(principal=ANN, reason="all"))
        assert (outcome.type, outcome.run_ids) == ("thread.cancelling", (first.run_id, second.run_id))
        await world.read.ended(thread, 2)
        assert {end.run_id for end in world.read.of(thread, f.RunCancelled)} == {first.run_id, second.run_id}
        assert all((end.by, end.reason) == ("ann", "all") for end in world.read.of(thread, f.RunCancelled))
        empty = await world.ask(thread, c.CancelThread(principal=ANN))
        assert (empty.type, empty.run_ids) == ("thread.cancelling", ())
        await world.ask(thread, post("/text again"))
        assert (await world.read.ended(thread, 3)).type == "run.completed"
    assert published(world) == []


async def test_nobody_is_asked_after_the_thread_is_being_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel comes while the run's task is between the model's turn and the question."""
    held, thread = Held(effect="read_only"), new_thread()
    monkeypatch.setitem(TOOLS, "held", held.tool)
    async with world.dispatcher():
        await world.put(thread, post(f"/tool held\n/text and\n{PUBLISH % 'x'}"))
        await within(held.begun.wait())
        await world.ask(thread, c.CancelThread(principal=ANN))
        held.gate.open()
        assert (await world.read.ended(thread)).type == "run.cancelled"
    assert not world.read.of(thread, f.ApprovalRequested)


# ---- what nobody knows


async def test_what_became_of_an_unknown_call_can_be_said_later_and_the_model_is_shown_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, thread = Held(), new_thread()
    monkeypatch.setitem(TOOLS, "held", held.tool)
    async with world.dispatcher(tool_timeout_s=0.01):
        asked = await world.ask(thread, post("/tool held\n/show messages"))
        assert (await world.read.ended(thread)).type == "run.completed", "the run does not wait for it"
        [call] = calls(world, thread)
        settle = c.SettleTool(principal=ANN, tool_call_id=call, happened=True, comment="I saw it")
        assert (await world.ask(thread, settle.model_copy(update={"principal": BOB}))).code == "not_found"
        outcome = await world.ask(thread, settle)
        assert (outcome.type, outcome.run_id, outcome.by, outcome.happened) == (
            "tool.settled",
            asked.run_id,
            "ann",
            True,
        )
        assert (await world.ask(thread, settle)).code == "not_open"
        await world.ask(thread, post("/show messages"))
        await world.read.ended(thread, 2)
    before, after = (
        json.loads(body.blocks[0].text)[2]["content"][0] for body in world.read.of(thread, f.ModelReturned)[1:]
    )
    assert before["is_error"] and "unknown" in before["content"]
    assert "is_error" not in after and "it took effect. They said: I saw it" in after["content"]


# ---- what else may happen


@pytest.mark.parametrize(
    "body", [c.DeleteThread(principal=ANN), c.ClearThread(principal=ANN)], ids=lambda one: one.type
)
async def test_deleting_or_clearing_a_thread_ends_what_is_parked_in_it(world: World, body: c.CommandBody) -> None:
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        await world.put(thread, post(f"{PUBLISH % 'x'}\n{ASK_WEATHER % 'Tokyo'}"))
        await parked(world, thread)
        await let_go(dispatcher, thread)
        await world.ask(thread, body)
        assert (await world.read.ended(thread)).type == "run.cancelled"
    assert {status for status, _ in results(world, thread).values()} == {"cancelled"}


async def test_large_arguments_and_results_go_the_way_of_large_contents(tmp_path: Path) -> None:
    """A field above 256 KiB lies in the object store; the state is loaded anew in between, from history and the log."""
    async with make_world(tmp_path, agent(approvals=("echo",), client_tools=(WEATHER,))) as world:
        thread, large = new_thread(0), "x" * 400_000
        async with world.dispatcher() as dispatcher:
            await world.put(thread, post(f'/tool echo {{"a": "{large}"}}\n{ASK_WEATHER % "Tokyo"}\n/text done'))
            await parked(world, thread)
            await let_go(dispatcher, thread)
        async with world.dispatcher():
            _, call = calls(world, thread)
            answered = await world.ask(thread, result(call, "y" * 2_000_000))
            assert len(answered.result) == 2_000_000
            [request] = world.read.of(thread, f.ApprovalRequested)
            await world.ask(thread, approve(request.approval_id, arguments={"a": large + "z"}))
            await world.read.ended(thread)
        assert len(results(world, thread)[calls(world, thread)[0]][1]) > 400_000
        assert max(world.read.sizes) < 300_000


async def test_a_thread_is_let_go_of_only_once_all_that_is_known_of_it_was_read_back(world: World) -> None:
    """Before, nobody could load it again: history and the owner's tail do not have it yet."""
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        dispatcher.log.own_tail.close()
        world.history.taking.close()
        await world.put(thread, post(f"{PUBLISH % 'x'}\n{ASK_WEATHER % 'Tokyo'}"))
        await parked(world, thread)
        _, call = calls(world, thread)
        assert (await world.ask(thread, result(call))).pending == ()
        await parked(world, thread, 2)
        assert thread in dispatcher.owner(thread).states.held
        dispatcher.log.own_tail.open()
        await let_go(dispatcher, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, deny(request.approval_id))
        await world.read.ended(thread)
        world.history.taking.open()


async def test_many_parked_runs_hold_nothing(world: World) -> None:
    threads = [new_thread(0) for _ in range(60)]
    async with world.dispatcher() as dispatcher:
        for thread in threads:
            await world.put(thread, post(PUBLISH % thread))
        for thread in threads:
            await parked(world, thread)
        owner = dispatcher.owner(threads[0])
        await eventually(lambda: not owner.states.held and not owner.running)
        assert (owner.states.size, owner.states.sizes, owner.states.read, owner._resting) == (0, {}, {}, set())


async def test_who_answers_while_the_run_still_works_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may come before the run is parked: it never is, then."""
    held, thread = Held(effect="read_only"), new_thread()
    monkeypatch.setitem(TOOLS, "held", held.tool)
    async with world.dispatcher():
        await world.put(thread, post(f"{PUBLISH % 'x'}\n{ASK_WEATHER % 'Tokyo'}\n/tool held\n/text done"))
        await within(held.begun.wait())
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, approve(request.approval_id))
        _, weather, _ = calls(world, thread)
        assert (await world.ask(thread, result(weather))).pending == ()
        held.gate.open()
        assert (await world.read.ended(thread)).type == "run.completed"
    assert published(world) == ["x"] and not world.read.of(thread, f.RunWaiting)

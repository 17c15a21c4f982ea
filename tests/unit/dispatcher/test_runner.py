"""Runs on a real log: turns, retries, tools and their effects, agents that ask agents, and how runs are stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_dispatcher import journal, tool_calls
from parley_dispatcher.providers.base import Event, Request, Said, Stopped, Used
from parley_dispatcher.tools import TOOLS
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Limits, Usage
from parley_events.clock import parse_rfc3339
from parley_events.ids import derived_uuid, run_id
from tests.unit.dispatcher.world import (
    ANN,
    Gate,
    HeldModel,
    World,
    agent,
    eventually,
    make_world,
    new_thread,
    post,
    within,
)


def said(returned: f.ModelReturned) -> str:
    return "".join(block.text for block in returned.blocks if block.kind == "text")


class Plays:
    """A provider that plays a list of events, or raises."""

    def __init__(self, *events: Event | Exception) -> None:
        self._events = events

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            yield event


class Held:
    """A tool that waits: `begun` is set when it is called, and it answers once `gate` is open."""

    def __init__(self, name: str = "held", **more: Any) -> None:
        self.gate, self.begun, self.calls = Gate(), asyncio.Event(), 0
        self.gate.close()
        self.tool = Tool(name, "Waits.", Arguments, self._run, **more)

    async def _run(self, call: Call, arguments: Arguments) -> Result:
        self.calls += 1
        self.begun.set()
        await self.gate.passed()
        return Result("it is done")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    tool = Held()
    monkeypatch.setitem(TOOLS, "held", tool.tool)
    return tool


# ---- a run


async def test_a_run_is_its_facts_in_order(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        posted = await world.ask(thread, post('/text Look:\n/tool clock\n/tool echo {"a": 1}\n/text Done.'))
        end = await world.read.ended(thread)
    kinds = world.read.types(thread)
    assert kinds[:3] == ["message.posted", "model.called", "model.returned"]
    assert sorted(kinds[3:7]) == ["tool.called", "tool.called", "tool.returned", "tool.returned"]
    assert kinds[7:] == ["model.called", "model.returned", "run.completed"]
    assert (end.run_id, end.message_id, end.stop_reason) == (posted.run_id, posted.answer_id, "end_turn")
    first, second = world.read.of(thread, f.ModelReturned)
    assert end.usage == first.usage + second.usage
    seqs = {fact.seq: fact for fact in world.read.facts if fact.stream == thread}
    for fact in seqs.values():
        if isinstance(fact.body, f.ModelReturned):
            assert fact.call == fact.body.call
            assert isinstance(seqs[fact.body.call].body, f.ModelCalled)
    numbers = [number for fact in seqs.values() if isinstance(fact.body, f.Numbered) for number in fact.body.numbers]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3 + 4


async def test_pieces_show_the_text_before_its_fact_and_never_anything_else(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}):
        await world.ask(thread, post("/think hm\n/text one two three HOLD on"))
        await within(model.holding.wait())
        await world.read.until(lambda: text_of(world, thread, 1) == "one two three ")
        assert world.read.of(thread, f.ModelReturned) == []
        model.gate.open()
        await world.read.ended(thread)
    [called] = [fact for fact in world.read.facts if isinstance(fact.body, f.ModelCalled)]
    assert {piece.call for piece in world.read.pieces} == {called.seq}
    assert {(piece.block, piece.kind) for piece in world.read.pieces} == {(0, "thought"), (1, "text")}
    assert "one two three HOLD on".startswith(text_of(world, thread, 1))


async def test_no_nul_is_shown_or_recorded(world: World) -> None:
    """No view can hold it, and what is streamed must be what is stored."""
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post('/text a\\u0000b c\n/tool fail {"message": "no\\u0000thing"}'))
        await world.read.ended(thread)
    first, _ = world.read.of(thread, f.ModelReturned)
    assert said(first) == "a\ufffdb c"
    assert said(first).startswith(text_of(world, thread, 0))
    [result] = world.read.of(thread, f.ToolReturned)
    assert result.result == "no\ufffdthing"


def text_of(world: World, thread: str, block: int) -> str:
    text = ""
    for piece in world.read.pieces:
        if (piece.thread_id, piece.block) == (thread, block):
            assert piece.at == len(text)
            text += piece.text
    return text


@pytest.mark.parametrize(
    ("line", "attempts", "end"),
    [
        ("/error 529 2", 3, "run.completed"),
        ("/error cut 1", 2, "run.completed"),
        ("/error 429 always", 5, "model_429"),
        ("/error stall always", 5, "model_stall"),
        ("/error 400", 1, "model_400"),
        ("/error 401 always", 1, "model_401"),
    ],
)
async def test_a_failed_model_call_is_tried_again_as_its_kind_deserves(
    world: World, line: str, attempts: int, end: str
) -> None:
    thread = new_thread()
    async with world.dispatcher(model_stall_s=0.001):
        await world.ask(thread, post(f"/text half\n{line}\n/text whole"))
        ended = await world.read.ended(thread)
    assert getattr(ended, "code", ended.type) == end
    assert [called.attempt for called in world.read.of(thread, f.ModelCalled)] == list(range(1, attempts + 1))
    failed = world.read.of(thread, f.ModelFailed)
    assert [failure.retry for failure in failed] == [True] * (attempts - 1) + [False] * (end != "run.completed")
    total = Usage()
    for body in (*failed, *world.read.of(thread, f.ModelReturned)):
        total = total + body.usage
    assert ended.usage == total


async def test_attempts_wait_twice_as_long_each_time(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher(model_backoff_ms=20):
        await world.ask(thread, post("/error 500 3\n/text done"))
        await world.read.ended(thread)
    assert [failure.retry_after_ms for failure in world.read.of(thread, f.ModelFailed)] == [20, 40, 80]
    times = {fact.seq: fact.time_ms for fact in world.read.facts if fact.stream == thread}
    waits = [times[seq + 1] - times[seq] for seq in (3, 5, 7)]
    assert all(wait >= due - 1 for wait, due in zip(waits, (20, 40, 80), strict=True))


async def test_a_provider_that_breaks_fails_its_run_alone(world: World) -> None:
    thread = new_thread()
    broken = Plays(Said(0, "text", "a"), RuntimeError("secret detail"))
    async with world.dispatcher(providers={"scripted": broken}):
        await world.ask(thread, post("x"))
        end = await world.read.ended(thread)
        assert (end.type, end.code) == ("run.failed", "internal")
        assert "secret" not in end.message
        assert (await world.ask(thread, post("y"))).type == "message.posted"
        await world.read.ended(thread, 2)


async def test_a_stream_that_ends_without_saying_why_was_cut(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher(providers={"scripted": Plays(Said(0, "text", "a"))}, model_attempts=2):
        await world.ask(thread, post("x"))
        assert (await world.read.ended(thread)).code == "model_cut"


async def test_a_run_stops_at_its_agents_limit_of_steps(world: World) -> None:
    async with make_world(world.folder, agent(limits=Limits(steps=3))) as limited, limited.dispatcher():
        thread = new_thread()
        await limited.ask(thread, post("/tool clock\n" + "/wait 0\n/tool clock\n" * 8))
        end = await limited.read.ended(thread)
        assert (end.type, end.code) == ("run.failed", "step_limit")
        assert len(limited.read.of(thread, f.ModelReturned)) == 3


async def test_runs_of_one_thread_never_overlap_and_those_of_many_do(world: World) -> None:
    model, threads = HeldModel(), [new_thread() for _ in range(5)]
    async with world.dispatcher(providers={"scripted": model}):
        for thread in threads:
            for word in ("one", "two"):
                await world.ask(thread, post(f"/text HOLD {word}"))
        for thread in threads:
            await world.read.wait_for(thread, f.ModelCalled)
        assert all(len(world.read.of(thread, f.ModelCalled)) == 1 for thread in threads)
        model.gate.open()
        for thread in threads:
            await world.read.ended(thread, 2)
    for thread in threads:
        kinds = [kind for kind in world.read.types(thread) if kind != "message.posted"]
        assert kinds == ["model.called", "model.returned", "run.completed"] * 2


async def test_no_more_model_calls_are_under_way_than_there_are_slots(world: World) -> None:
    model, threads = HeldModel(), [new_thread() for _ in range(4)]
    async with world.dispatcher(providers={"scripted": model}, run_slots=2):
        for thread in threads:
            await world.ask(thread, post("/text HOLD"))
        await world.read.until(lambda: sum(bool(world.read.of(t, f.ModelCalled)) for t in threads) == 2)
        await world.ask(new_thread(), post("/text decided all the same"))
        assert sum(bool(world.read.of(thread, f.ModelCalled)) for thread in threads) == 2
        model.gate.open()
        for thread in threads:
            await world.read.ended(thread)


# ---- tools


async def test_a_tool_with_effects_is_not_called_before_its_intent_was_read_back(world: World, held: Held) -> None:
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        dispatcher.log.own_tail.close()
        held.gate.open()
        await world.ask(thread, post("/tool held\n/tool clock"))
        called = await world.read.wait_for(thread, f.ToolCalled)
        # The tool that only reads is not held up, so all that could run has run.
        await world.read.wait_for(thread, f.ToolReturned)
        assert (held.calls, [body.name for body in world.read.of(thread, f.ToolReturned)]) == (0, ["clock"])
        dispatcher.log.own_tail.open()
        await world.read.ended(thread)
    assert held.calls == 1
    assert called.effect == "unsafe"


async def test_the_effect_key_is_of_the_run_the_turn_and_the_place(world: World) -> None:
    thread = new_thread()
    line = '/tool append_line {"file": "f", "line": "x"}'
    async with world.dispatcher():
        await world.ask(thread, post(f"{line}\n{line}\n/text and\n{line}"))
        await world.read.ended(thread)
    called = world.read.of(thread, f.ToolCalled)
    keys = [derived_uuid("effect", body.run_id, str(body.call), str(body.index)) for body in called]
    assert [body.effect_key for body in called] == keys
    assert len(set(keys)) == 3
    lines = (world.folder / "effects" / "f").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == sorted(keys)


async def test_what_a_tool_cannot_do_is_an_error_for_the_model_and_the_run_goes_on(world: World) -> None:
    thread = new_thread()
    lines = ["nothing", 'sleep {"ms": "soon"}', 'fail {"message": "no"}', 'read_skill {"slug": "x"}']
    script = "\n".join([f"/tool {line}" for line in lines] + ["/show messages"])
    async with world.dispatcher():
        await world.ask(thread, post(script))
        assert (await world.read.ended(thread)).type == "run.completed"
    returned = {body.name: body for body in world.read.of(thread, f.ToolReturned)}
    assert all(body.status == "error" for body in returned.values())
    assert returned["nothing"].result == "There is no tool 'nothing'."
    assert returned["sleep"].result.startswith("The arguments do not fit: ms:")
    assert returned["fail"].result == "no"
    assert "read_skill" in returned
    results = json.loads(said(world.read.of(thread, f.ModelReturned)[-1]))[-1]["content"]
    assert [result["is_error"] for result in results] == [True] * 4


async def test_a_tool_that_is_too_slow_is_an_error_if_it_only_reads_and_else_unknown(world: World, held: Held) -> None:
    thread = new_thread()
    async with world.dispatcher(tool_timeout_s=0.02):
        await world.ask(thread, post('/tool sleep {"ms": 600000}\n/tool held'))
        await world.read.ended(thread)
    status = {body.name: body.status for body in world.read.of(thread, f.ToolReturned)}
    assert (status, held.calls) == ({"sleep": "error", "held": "unknown"}, 1)


async def test_a_tool_that_breaks_says_so_without_details(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(call: Call, arguments: Arguments) -> Result:
        raise RuntimeError("secret detail")

    monkeypatch.setitem(TOOLS, "broken", Tool("broken", "", Arguments, broken, "read_only"))
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post("/tool broken"))
        assert (await world.read.ended(thread)).type == "run.completed"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, returned.result) == ("error", "The tool broke (RuntimeError).")


async def test_a_long_result_is_cut_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_RESULT_CHARS", 20)
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post('/tool echo {"a": "' + "x" * 100 + '"}'))
        await world.read.ended(thread)
    [returned] = world.read.of(thread, f.ToolReturned)
    assert returned.result == '{"a": "' + "x" * 13 + "\n[cut: the result had 109 characters]"


async def test_malformed_arguments_are_told_to_the_model(world: World) -> None:
    thread = new_thread()
    model = Plays(Used(0, "t1", "echo", {}, malformed="{not json"), Stopped("tool_use", Usage()))
    async with world.dispatcher(providers={"scripted": model}):
        await world.ask(thread, post("x"))
        returned = await world.read.wait_for(thread, f.ToolReturned)
    assert returned.status == "error"
    assert "{not json" in returned.result


async def test_a_message_that_is_no_script_is_answered_with_the_time(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post("hello"))
        await world.read.ended(thread)
    text = said(world.read.of(thread, f.ModelReturned)[-1])
    assert text.startswith('You said: "hello" at ')
    assert parse_rfc3339(text.removeprefix('You said: "hello" at ')) > 0


async def test_what_a_tool_puts_on_record_travels_in_its_own_fact(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post('/tool record_decision {"title": "Ship", "body": "Now."}'))
        await world.read.ended(thread)
    [called], [returned] = world.read.of(thread, f.ToolCalled), world.read.of(thread, f.ToolReturned)
    assert returned.note is not None
    assert returned.note.id == derived_uuid("note", called.effect_key)
    assert (returned.note.kind, returned.note.title, returned.note.body) == ("decision", "Ship", "Now.")


# ---- agents that ask agents


async def test_an_agent_asks_another_inside_the_thread(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        script = '/tool ask_agent {"agent_id": "assistant", "message": "/text forty-two"}\n/text thanks'
        posted = await world.ask(thread, post(script))
        await world.read.ended(thread, 2)
    [child] = world.read.of(thread, f.ChildStarted)
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (child.agent_id, child.parent_run_id, child.text) == ("assistant", posted.run_id, "/text forty-two")
    assert (returned.status, returned.result) == ("ok", "forty-two")
    assert [end.run_id for end in world.read.of(thread, f.RunCompleted)] == [child.run_id, posted.run_id]


async def test_asking_nobody_or_too_deep_is_an_error_for_the_model(world: World) -> None:
    thread = new_thread()
    question = "/text bottom"
    for _ in range(4):
        question = "/tool ask_agent " + json.dumps({"agent_id": "assistant", "message": question})
    async with world.dispatcher():
        await world.ask(thread, post('/tool ask_agent {"agent_id": "ghost", "message": "x"}'))
        await world.read.ended(thread)
        await world.ask(thread, post(question))
        await world.read.until(lambda: len(world.read.of(thread, f.RunCompleted)) == 5)
    results = [body.result for body in world.read.of(thread, f.ToolReturned)]
    assert results[:2] == ["There is no agent 'ghost'.", "agents may ask agents at most 3 deep"]


# ---- stopping


async def cancel(world: World, thread: str, run_id: str) -> Any:
    return await world.ask(thread, c.CancelRun(principal=ANN, run_id=run_id, reason="enough"))


async def test_cancelling_in_mid_stream_keeps_the_text_so_far(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}):
        posted = await world.ask(thread, post("/think hm\n/text one two HOLD three"))
        await within(model.holding.wait())
        assert (await cancel(world, thread, posted.run_id)).type == "run.cancelling"
        end = await world.read.ended(thread)
        assert (end.type, end.by, end.reason, end.message_id) == ("run.cancelled", "ann", "enough", posted.answer_id)
        assert [(block.kind, block.text) for block in end.blocks] == [("thought", "hm"), ("text", "one two ")]
        model.gate.open()
        await world.ask(thread, post("/show messages"))
        await world.read.ended(thread, 2)
    shown = said(world.read.of(thread, f.ModelReturned)[-1])
    assert '"one two "' in shown
    called = world.read.of(thread, f.ModelCalled)[0]
    assert (end.call, world.read.types(thread)[end.call - 1], called.attempt) == (2, "model.called", 1)


async def test_cancelling_before_the_run_has_begun_ends_it(world: World) -> None:
    """Both commands are read at once, so the run's task is cancelled before its first step."""
    thread, posting = new_thread(), "posting"
    async with world.dispatcher():
        await world.ask(new_thread(), post("/text it is ours"))
        _, asked = await asyncio.gather(
            world.put(thread, post("/text never"), posting),
            world.put(thread, c.CancelRun(principal=ANN, run_id=run_id(thread, posting))),
        )
        assert (await world.read.ended(thread)).type == "run.cancelled"
        assert (await world.read.outcome(asked)).type == "run.cancelling"
        await world.ask(thread, post("/text next"))
        await world.read.ended(thread, 2)


async def test_cancelling_a_queued_run_ends_it_at_once_and_the_others_go_on(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}):
        await world.ask(thread, post("/text HOLD"))
        second = await world.ask(thread, post("/text never"))
        third = await world.ask(thread, post("/text third"))
        assert (await cancel(world, thread, second.run_id)).type == "run.cancelled"
        model.gate.open()
        await world.read.ended(thread, 3)
    assert [said(body) for body in world.read.of(thread, f.ModelReturned)] == ["HOLD", "third"]
    assert world.read.of(thread, f.RunCompleted)[-1].run_id == third.run_id


async def test_no_effect_starts_after_the_run_is_being_cancelled(world: World, held: Held) -> None:
    """The intent is on the log and not read back yet when the cancel is decided."""
    thread = new_thread()
    async with world.dispatcher() as dispatcher:
        dispatcher.log.own_tail.close()
        held.gate.open()
        posted = await world.ask(thread, post("/tool held"))
        await world.read.wait_for(thread, f.ToolCalled)
        await cancel(world, thread, posted.run_id)
        dispatcher.log.own_tail.open()
        assert (await world.read.ended(thread)).type == "run.cancelled"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (held.calls, returned.status) == (0, "cancelled")


async def test_a_call_under_way_gets_a_grace_that_other_commands_do_not_end(world: World, held: Held) -> None:
    thread = new_thread()
    async with world.dispatcher():
        posted = await world.ask(thread, post("/tool held\n/text never"))
        await within(held.begun.wait())
        await cancel(world, thread, posted.run_id)
        await world.ask(thread, post("/text next"))
        await cancel(world, thread, posted.run_id)
        held.gate.open()
        await world.read.ended(thread, 2)
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, returned.result) == ("ok", "it is done")
    assert [end.type for end in world.read.of(thread, f.RunCancelled, f.RunCompleted)] == [
        "run.cancelled",
        "run.completed",
    ]


async def test_a_call_that_outlasts_the_grace_is_unknown(
    world: World, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "CANCEL_GRACE_S", 0.02)
    thread = new_thread()
    async with world.dispatcher():
        posted = await world.ask(thread, post("/tool held"))
        await within(held.begun.wait())
        await cancel(world, thread, posted.run_id)
        assert (await world.read.ended(thread)).type == "run.cancelled"
    kinds = world.read.types(thread)
    assert kinds[-3:] == ["run.cancelling", "tool.returned", "run.cancelled"]
    assert world.read.of(thread, f.ToolReturned)[0].status == "unknown"


async def test_cancelling_stops_the_agents_that_were_asked_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "CANCEL_GRACE_S", 600.0)
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}):
        script = '/tool ask_agent {"agent_id": "assistant", "message": "/text so far HOLD"}'
        posted = await world.ask(thread, post(script))
        await within(model.holding.wait())
        await cancel(world, thread, posted.run_id)
        await world.read.ended(thread, 2)
    child, parent = world.read.of(thread, f.RunCancelled)
    assert child.run_id == world.read.of(thread, f.ChildStarted)[0].run_id
    assert [block.text for block in child.blocks] == ["so far "]
    assert parent.run_id == posted.run_id


@pytest.mark.parametrize("body", [c.DeleteThread(principal=ANN), c.ClearThread(principal=ANN)])
async def test_deleting_or_clearing_cancels_what_runs_and_what_waits(world: World, body: c.CommandBody) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model}) as dispatcher:
        await world.ask(thread, post("/text one HOLD"))
        await world.ask(thread, post("/text two"))
        await within(model.holding.wait())
        assert (await world.ask(thread, body)).type in ("thread.deleted", "thread.cleared")
        await world.read.ended(thread, 2)
        await eventually(lambda: not dispatcher.owner(thread).running)
    assert [cancelled.by for cancelled in world.read.of(thread, f.RunCancelled)] == [ANN.user_id] * 2
    assert len(world.read.of(thread, f.ModelCalled)) == 1


async def test_what_is_open_inside_a_run_that_breaks_is_ended_with_it(
    world: World, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling call breaks inside Parley while an effect and a child are under way."""
    thread, model = new_thread(), HeldModel()
    outcome = tool_calls.ToolCalls._outcome

    async def breaking(self: Any, owner: Any, state: Any, run: Any, use: Any, *rest: Any) -> Any:
        if use.name == "clock":
            await held.begun.wait()
            await model.holding.wait()
            raise RuntimeError("a mistake")
        return await outcome(self, owner, state, run, use, *rest)

    monkeypatch.setattr(tool_calls.ToolCalls, "_outcome", breaking)
    async with world.dispatcher(providers={"scripted": model}):
        ask = '/tool ask_agent {"agent_id": "assistant", "message": "/text HOLD"}'
        await world.ask(thread, post(f"/tool held\n{ask}\n/tool clock"))
        await world.read.ended(thread, 2)
    assert [end.type for end in world.read.of(thread, f.RunCancelled, f.RunFailed)] == ["run.cancelled", "run.failed"]
    status = {body.name: body.status for body in world.read.of(thread, f.ToolReturned)}
    assert status == {"held": "unknown", "ask_agent": "unknown", "clock": "unknown"}

"""Teams on a real log: who speaks when, what each is shown, and what becomes of the others when one fails or waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers.base import Event, Request, Said, Stopped
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Limits, TeamMode, TeamPlay, ThreadSeed, Usage
from parley_events.ids import member_run_id
from tests.unit.dispatcher.test_parked import approve, parked, published, result
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

NAMES = ("ada", "bob", "cyd")
LEAD = "lead"


class Cast:
    """The models of a team: each says `says(who, nth)` (an error is raised), `who` by its prompt. `at[who]`: a gate
    before its last word; `here[who]` is set in front of it. `asked` are the requests, in order."""

    def __init__(self, says: Callable[[str, int], str | Exception] | None = None) -> None:
        self._says = says or (lambda who, nth: f"{who} says {nth}")
        self.at: dict[str, Gate] = {}
        self.here: dict[str, asyncio.Event] = {who: asyncio.Event() for who in (*NAMES, LEAD)}
        self.asked: list[tuple[str, Request]] = []

    def hold(self, *names: str) -> None:
        for who in names:
            self.at[who] = Gate()
            self.at[who].close()

    def of(self, who: str) -> list[Request]:
        return [request for name, request in self.asked if name == who]

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        who = request.system.split()[0]
        self.asked.append((who, request))
        said = self._says(who, len(self.of(who)))
        yield Said(0, "text", f"{who}: ")
        self.here[who].set()
        if who in self.at:
            await self.at[who].passed()
        if isinstance(said, Exception):
            raise said
        yield Said(0, "text", said)
        yield Stopped("end_turn", Usage(input_tokens=1, output_tokens=1))


def play(mode: TeamMode = "brainstorm", members: tuple[str, ...] = NAMES, **more: Any) -> TeamPlay:
    return TeamPlay(team_id="founders", name="Founders", members=members, mode=mode, **more)


def to_team(text: str = "hello", mode: TeamMode = "brainstorm", **more: Any) -> c.PostMessage:
    return post(text, agent_id=LEAD, play=more.pop("play", play(mode)), **more)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    cast = [agent(who, system_prompt=who, model="model") for who in (*NAMES, LEAD)]
    async with make_world(tmp_path, *cast, agent()) as made:
        yield made


def speaking(world: World, thread: str) -> list[tuple[int, int | None]]:
    return [(body.round, body.member) for body in world.read.of(thread, f.ChildStarted)]


def heard(request: Request) -> list[dict[str, str]] | None:
    """The members' answers that a model was shown with the question."""
    for block in request.messages[-1]["content"]:
        if block["text"].startswith("<answers>"):
            found: list[dict[str, str]] = json.loads(block["text"].removeprefix("<answers>").removesuffix("</answers>"))
            return found
    return None


async def test_all_brainstorm_at_once_and_the_lead_sums_up(world: World) -> None:
    thread, cast = new_thread(), Cast()
    cast.hold(*NAMES)
    async with world.dispatcher(providers={"claude": cast}):
        posted = await world.ask(thread, to_team("what now?"))
        for who in NAMES:
            await within(cast.here[who].wait())
        assert cast.of(LEAD) == []
        for who in ("cyd", "ada", "bob"):
            cast.at[who].open()
        end = await world.read.ended(thread, 4)
    started = world.read.of(thread, f.ChildStarted)
    assert [(body.agent_id, body.round, body.member) for body in started] == [
        ("ada", 0, 0),
        ("bob", 0, 1),
        ("cyd", 0, 2),
    ]
    assert [body.run_id for body in started] == [member_run_id(posted.run_id, 0, at) for at in range(3)]
    assert {body.parent_run_id for body in started} == {posted.run_id} and posted.play == play()
    assert (end.type, end.run_id, end.message_id) == ("run.completed", posted.run_id, posted.answer_id)
    assert world.read.types(thread)[-3:] == ["model.called", "model.returned", "run.completed"]
    # In the team's order, whoever was first; and none was shown what another said.
    [summing] = cast.of(LEAD)
    assert heard(summing) == [{"agent": who, "text": f"{who}: {who} says 1"} for who in NAMES]
    assert all(heard(request) is None for who in NAMES for request in cast.of(who))
    assert "member of the team 'Founders' (ada, bob, cyd)" in cast.of("ada")[0].system
    assert "Sum it up" in summing.system


async def test_in_sequence_each_is_shown_what_those_before_it_said(world: World) -> None:
    thread, cast = new_thread(), Cast()
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team(mode="sequential"))
        await world.read.ended(thread, 4)
    assert [who for who, _ in cast.asked] == ["ada", "bob", "cyd", LEAD]
    for at, (_, request) in enumerate(cast.asked):
        assert (heard(request) or []) == [{"agent": who, "text": f"{who}: {who} says 1"} for who in NAMES[:at]]
        assert request.messages[-1]["content"][-1] == {"type": "text", "text": "hello"}


async def test_a_debate_has_a_second_round_with_the_first_one_in_mind(world: World) -> None:
    thread, cast = new_thread(), Cast()
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team(mode="debate"))
        await world.read.ended(thread, 7)
    assert speaking(world, thread) == [(round, at) for round in range(2) for at in range(3)]
    for who in NAMES:
        first, second = cast.of(who)
        assert heard(first) is None
        assert heard(second) == [{"agent": one, "text": f"{one}: {one} says 1"} for one in NAMES]
    assert heard(cast.of(LEAD)[0]) == [{"agent": who, "text": f"{who}: {who} says 2"} for who in NAMES]


async def test_one_that_fails_is_left_out_and_the_others_go_on(world: World) -> None:
    thread = new_thread()
    cast = Cast(lambda who, nth: ModelError("refused", "no", retry=False) if who == "bob" else f"{who} says {nth}")
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team(mode="sequential"))
        end = await world.read.ended(thread, 4)
    assert end.type == "run.completed"
    [failed] = world.read.of(thread, f.RunFailed)
    assert failed.code == "model_refused"
    assert [one["agent"] for one in heard(cast.of(LEAD)[0]) or []] == ["ada", "cyd"]


async def test_where_nobody_answers_nothing_is_summed_up(world: World) -> None:
    thread, cast = new_thread(), Cast(lambda who, nth: ModelError("refused", "no", retry=False))
    async with world.dispatcher(providers={"claude": cast}):
        posted = await world.ask(thread, to_team(play=play(members=("ada", "ghost"))))
        await world.read.ended(thread, 3)
    ends = {body.run_id: body.code for body in world.read.of(thread, f.RunFailed)}
    assert ends == {
        member_run_id(posted.run_id, 0, 0): "model_refused",
        member_run_id(posted.run_id, 0, 1): "unknown_agent",
        posted.run_id: "team_failed",
    }
    assert cast.of(LEAD) == []


async def test_one_that_breaks_inside_parley_ends_alone(world: World) -> None:
    thread = new_thread()
    cast = Cast(lambda who, nth: RuntimeError("a mistake") if who == "ada" else "fine")
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team())
        assert (await world.read.ended(thread, 4)).type == "run.completed"
    assert [body.code for body in world.read.of(thread, f.RunFailed)] == ["internal"]


async def test_a_member_may_stand_in_a_team_twice(world: World) -> None:
    thread, cast = new_thread(), Cast()
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team(play=play("sequential", ("ada", "ada"))))
        await world.read.ended(thread, 3)
    assert [one["text"] for one in heard(cast.of(LEAD)[0]) or []] == ["ada: ada says 1", "ada: ada says 2"]


async def test_a_failed_summary_fails_the_run_and_the_answers_stay(world: World) -> None:
    thread = new_thread()
    cast = Cast(lambda who, nth: ModelError("refused", "no", retry=False) if who == LEAD else "fine")
    async with world.dispatcher(providers={"claude": cast}):
        posted = await world.ask(thread, to_team())
        end = await world.read.ended(thread, 4)
    assert (end.run_id, end.code) == (posted.run_id, "model_refused")
    assert len(world.read.of(thread, f.RunCompleted)) == 3


async def test_a_new_owner_lets_speak_only_who_has_not_spoken(world: World) -> None:
    thread, cast = new_thread(), Cast()
    cast.hold("bob")
    async with world.dispatcher(providers={"claude": cast}, drain_s=0.1):
        await world.ask(thread, to_team("hello", "sequential"))
        await within(cast.here["bob"].wait())
    again = Cast()
    async with world.dispatcher(providers={"claude": again}):
        await world.read.ended(thread, 4)
    assert [who for who, _ in again.asked] == ["bob", "cyd", LEAD]
    assert (heard(again.asked[1][1]) or [])[0] == {"agent": "ada", "text": "ada: ada says 1"}
    assert speaking(world, thread) == [(0, 0), (0, 1), (0, 2)]
    assert [body.attempt for body in world.read.of(thread, f.ModelCalled)] == [1, 1, 2, 1, 1]


async def test_who_drains_lets_nobody_else_begin(world: World) -> None:
    thread, cast = new_thread(), Cast()
    cast.hold("ada")
    async with world.dispatcher(providers={"claude": cast}) as dispatcher:
        await world.ask(thread, to_team(mode="sequential"))
        await within(cast.here["ada"].wait())
        dispatcher.runner.draining = True
        cast.at["ada"].open()
        await world.read.ended(thread, 1)
        await eventually(lambda: not dispatcher.owner(thread).running)
    assert [who for who, _ in cast.asked] == ["ada"]
    async with world.dispatcher(providers={"claude": cast}):
        assert (await world.read.ended(thread, 4)).type == "run.completed"


async def test_who_drains_lets_a_member_leave_between_two_steps(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    pair = play(members=("scripted", "scripted"))
    async with world.dispatcher(providers={"scripted": model, "claude": Cast()}) as dispatcher:
        await world.ask(thread, to_team("/text one HOLD\n/tool clock\n/text two", play=pair))
        await within(model.holding.wait())
        dispatcher.runner.draining = True
        model.gate.open()
        await world.read.wait_for(thread, f.ModelReturned, count=2)
        await eventually(lambda: not dispatcher.owner(thread).running)
    assert world.read.of(thread, f.ToolCalled) == []
    async with world.dispatcher(providers={"scripted": model, "claude": Cast()}):
        assert (await world.read.ended(thread, 3)).type == "run.completed"


async def test_a_members_own_words_are_not_among_the_answers_that_it_is_shown(world: World) -> None:
    thread, model = new_thread(), HeldModel()
    async with world.dispatcher(providers={"scripted": model, "claude": Cast()}):
        alone = play("sequential", ("scripted",))
        await world.ask(thread, to_team("/text mine\n/tool clock\n/show messages", play=alone))
        await world.read.ended(thread, 2)
    shown = "".join(block.text for block in world.read.of(thread, f.ModelReturned)[1].blocks)
    assert "mine" in shown and "<answers>" not in shown


async def test_cancelling_ends_everyone_and_the_run_last(world: World) -> None:
    thread, cast = new_thread(), Cast()
    cast.hold(*NAMES)
    async with world.dispatcher(providers={"claude": cast}) as dispatcher:
        posted = await world.ask(thread, to_team())
        for who in NAMES:
            await within(cast.here[who].wait())
        cancel = c.CancelRun(principal=ANN, run_id=posted.run_id)
        assert (await world.ask(thread, cancel)).type == "run.cancelling"
        await world.read.ended(thread, 4)
        await eventually(lambda: not dispatcher.owner(thread).running)
    ends = world.read.of(thread, f.RunCancelled)
    assert ends[-1].run_id == posted.run_id
    assert sorted("".join(block.text for block in end.blocks) for end in ends[:3]) == ["ada: ", "bob: ", "cyd: "]
    assert cast.of(LEAD) == []


async def test_one_whose_time_is_up_fails_alone(tmp_path: Path) -> None:
    short = Limits(seconds=1)
    cast = Cast()
    cast.hold("ada")
    team = [agent(who, system_prompt=who, model="model", limits=short if who == "ada" else Limits()) for who in NAMES]
    async with make_world(tmp_path, *team, agent(LEAD, system_prompt=LEAD, model="model")) as world:
        thread = new_thread()
        async with world.dispatcher(providers={"claude": cast}):
            await world.ask(thread, to_team())
            assert (await world.read.ended(thread, 4)).type == "run.completed"
    assert [body.code for body in world.read.of(thread, f.RunFailed)] == ["time_limit"]


async def test_what_comes_next_is_shown_the_question_the_answers_and_the_summary(world: World) -> None:
    thread, cast = new_thread(), Cast()
    async with world.dispatcher(providers={"claude": cast}):
        await world.ask(thread, to_team("first"))
        await world.read.ended(thread, 4)
        await world.ask(thread, to_team("second", open_thread=False))
        await world.read.ended(thread, 8)
    later = cast.of("bob")[1].messages
    assert [message["role"] for message in later] == ["user", "assistant", "user"]
    assert "cyd says 1" in later[0]["content"][0]["text"] and later[0]["content"][1]["text"] == "first"
    assert later[1]["content"][0]["text"] == "lead: lead says 1"
    assert [block["text"] for block in later[2]["content"]] == ["second"]


async def test_what_came_with_the_message_is_shown_to_each_member(world: World) -> None:
    thread, cast = new_thread(), Cast()
    seed = ThreadSeed(user_id="ann", team_id="founders", system_prompt="Of the thread.", context={"t": 1})
    async with world.dispatcher(providers={"claude": cast}):
        asked = to_team(context={"m": 1}, lead_context={"l": 1}, system_append="And briefly.")
        await world.ask(thread, asked.model_copy(update={"open": seed}))
        await world.read.ended(thread, 4)
    for who in (*NAMES, LEAD):
        [request] = cast.of(who)
        assert all(part in request.system for part in ("Of the thread.", '{"t": 1}', "And briefly."))
        assert [block["text"] for block in request.messages[0]["content"]][:2] == [
            '<context>{"m": 1}</context>',
            '<lead_context>{"l": 1}</lead_context>',
        ]


async def test_a_thread_belongs_to_one_team(world: World) -> None:
    thread = new_thread()
    seed = ThreadSeed(user_id="ann", team_id="others")
    async with world.dispatcher():
        refused = await world.ask(thread, to_team().model_copy(update={"open": seed}))
        assert (refused.type, refused.code) == ("command.rejected", "invalid")
        await world.ask(thread, c.CreateThread(principal=ANN, seed=seed))
        refused = await world.ask(thread, to_team(open_thread=False))
        assert (refused.type, refused.code) == ("command.rejected", "invalid")
        others = play().model_copy(update={"team_id": "others"})
        assert (await world.ask(thread, to_team(play=others, open_thread=False))).type == "message.posted"


# ---- waiting


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose `ada` needs approvals, and whose `bob` has a client."""
    from tests.unit.dispatcher.test_parked import TERMS

    ada = agent("ada", approvals=TERMS["approvals"])
    bob = agent("bob", client_tools=TERMS["client_tools"])
    async with make_world(tmp_path, ada, bob, agent(LEAD)) as made:
        yield made


PUBLISHING = '/tool publish {"text": "out"}\n/text done'


async def test_a_member_that_waits_parks_the_run_once_the_others_are_done(asking: World) -> None:
    thread = new_thread(0)
    pair = play(members=("ada", LEAD))
    async with asking.dispatcher() as dispatcher:
        posted = await asking.ask(thread, to_team(PUBLISHING, play=pair))
        waiting = await parked(asking, thread, 2)
        [request] = asking.read.of(thread, f.ApprovalRequested)
        assert (waiting.run_id, waiting.waits_for) == (posted.run_id, "approval")
        assert waiting.tool_call_ids == (request.tool_call_id,) and waiting.due_at_ms == request.due_at_ms
        await eventually(lambda: thread not in dispatcher.owner(thread).states.held)
    async with asking.dispatcher():
        await asking.ask(thread, approve(request.approval_id))
        end = await asking.read.ended(thread, 3)
    assert (end.run_id, end.type) == (posted.run_id, "run.completed")
    assert published(asking).count("out") == 3  # the member, the other member, and the lead: each plays the script


async def test_in_sequence_one_that_waits_holds_up_those_after_it(asking: World) -> None:
    thread = new_thread()
    async with asking.dispatcher():
        await asking.ask(thread, to_team(PUBLISHING, play=play("sequential", ("ada", "bob"))))
        await parked(asking, thread, 2)
        assert speaking(asking, thread) == [(0, 0)]
        [request] = asking.read.of(thread, f.ApprovalRequested)
        await asking.ask(thread, approve(request.approval_id))
        await asking.read.ended(thread, 3)
    assert speaking(asking, thread) == [(0, 0), (0, 1)]


async def test_a_members_client_tool_is_answered_and_the_next_message_goes_on_without_it(asking: World) -> None:
    script = '/tool get_weather {"location": "Tokyo"}\n/text done'
    for answered in (True, False):
        thread = new_thread()
        async with asking.dispatcher():
            await asking.ask(thread, to_team(script, play=play(members=("bob",))))
            await parked(asking, thread, 2)
            if answered:
                [called] = [body for body in asking.read.of(thread, f.ToolCalled) if body.effect == "client"]
                await asking.ask(thread, result(called.tool_call_id))
                await asking.read.ended(thread, 2)
            else:
                await asking.ask(thread, to_team("/text next", play=play(members=("bob",)), open_thread=False))
                await asking.read.ended(thread, 4)
        assert {end.type for end in asking.read.of(thread, f.RunCompleted, f.RunFailed)} == {"run.completed"}


async def test_cancelling_a_team_that_waits_ends_it_at_once(asking: World) -> None:
    thread = new_thread()
    async with asking.dispatcher():
        posted = await asking.ask(thread, to_team(PUBLISHING, play=play(members=("ada",))))
        await parked(asking, thread, 2)
        await asking.ask(thread, c.CancelRun(principal=ANN, run_id=posted.run_id))
        await asking.read.ended(thread, 2)
    assert [end.run_id for end in asking.read.of(thread, f.RunCancelled)][-1] == posted.run_id
    assert asking.read.of(thread, f.ToolReturned)[0].status == "cancelled"

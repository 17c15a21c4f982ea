"""Timers on a real log: what is due fires by the owner's clock, once, whoever owns and however late history is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher.errors import HistoryUnavailable, NotOwner
from parley_dispatcher.timers import Fire, Timers, look, watch
from parley_dispatcher.tools import TOOLS
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import ClientTool, Limits, Principal, ThreadSeed
from parley_events.clock import system_clock
from parley_events.reads import Due
from tests.unit.dispatcher.test_parked import ASK_CHILD, ASK_WEATHER, PUBLISH, approve, calls, parked, published, result
from tests.unit.dispatcher.test_runner import Held
from tests.unit.dispatcher.world import (
    ANN,
    PARTITIONS,
    HeldModel,
    World,
    agent,
    eventually,
    make_world,
    new_thread,
    post,
    within,
)

DAY_MS = 86_400_000
TERMS: dict[str, Any] = {
    "approvals": ("publish",),
    "client_tools": (ClientTool(name="get_weather", expires_s=2 * 86_400),),
    "limits": Limits(seconds=3600),
}


STREAMS = [new_thread(partition) for partition in range(PARTITIONS)]


class Moved:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.by_ms = 0

    def __call__(self) -> int:
        return system_clock() + self.by_ms


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path, agent(**TERMS), agent("assistant", **TERMS)) as made:
        yield made


def post_idle(text: str, idle_s: int) -> c.PostMessage:
    return post(text).model_copy(update={"open": ThreadSeed(user_id="ann", idle_s=idle_s)})


async def listed_anew(world: World, count: int = 3) -> None:
    """Until history was asked for what is due some more times."""
    seen = world.history.asked.count("due")
    await eventually(lambda: world.history.asked.count("due") >= seen + count)


async def test_an_approval_that_nobody_answers_expires_and_the_run_goes_on(world: World) -> None:
    thread, clock = new_thread(0), Moved()
    async with world.dispatcher(clock=clock):
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        clock.by_ms = DAY_MS - 60_000
        await listed_anew(world)
        assert not world.read.of(thread, f.ApprovalExpired)
        clock.by_ms = DAY_MS + 1000
        end = await world.read.ended(thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        assert (await world.ask(thread, approve(request.approval_id))).code == "not_open"
    assert end.type == "run.completed" and published(world) == []
    assert [body.approval_id for body in world.read.of(thread, f.ApprovalExpired)] == [request.approval_id]
    [returned] = world.read.of(thread, f.ToolReturned)
    assert returned.status == "denied" and "in time" in returned.result


async def test_a_client_that_gives_no_result_in_time_is_waited_for_no_more(world: World) -> None:
    thread, clock = new_thread(), Moved()
    async with world.dispatcher(clock=clock):
        await world.put(thread, post(f"{ASK_WEATHER % 'Tokyo'}\n{PUBLISH % 'x'}"))
        await parked(world, thread)
        clock.by_ms = DAY_MS + 1000
        await world.read.wait_for(thread, f.ApprovalExpired)
        waiting = await parked(world, thread, 2)
        assert waiting.waits_for == "client_tool"
        clock.by_ms = 2 * DAY_MS + 1000
        await world.read.ended(thread)
        weather, _ = calls(world, thread)
        assert (await world.ask(thread, result(weather))).code == "not_open"
    [expired] = world.read.of(thread, f.ToolExpired)
    assert (expired.tool_call_id, world.read.of(thread, f.ToolReturned)[-1].status) == (weather, "error")
    assert len(world.read.of(thread, f.ApprovalExpired)) == 1


async def test_each_fires_once_though_history_stands_still_and_owners_come_and_go(world: World) -> None:
    thread, clock = new_thread(0), Moved()
    async with world.dispatcher(clock=clock):
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        await world.history.reaches(await world.log.ends("parley.events"))
        world.history.taking.close()  # from here on it lists what it knows, again and again
        clock.by_ms = DAY_MS + 1000
        await world.read.ended(thread)
        await listed_anew(world)
    for _ in range(2):
        async with world.dispatcher(clock=clock):
            await listed_anew(world)
    world.history.taking.open()
    assert len(world.read.of(thread, f.ApprovalExpired)) == 1
    assert len(world.read.of(thread, f.RunCompleted)) == 1


async def test_an_answer_that_is_first_in_the_log_wins_over_the_timer(world: World) -> None:
    thread, clock = new_thread(0), Moved()
    async with world.dispatcher(clock=clock):
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        await world.history.reaches(await world.log.ends("parley.events"))
        world.history.taking.close()
        [request] = world.read.of(thread, f.ApprovalRequested)
        await world.ask(thread, approve(request.approval_id))
        clock.by_ms = DAY_MS + 1000
        await listed_anew(world)
        await world.read.ended(thread)
        world.history.taking.open()
    assert published(world) == ["x"] and not world.read.of(thread, f.ApprovalExpired)


async def test_a_run_that_takes_too_long_is_stopped_in_the_middle_of_a_turn_and_fails(world: World) -> None:
    thread, clock, model = new_thread(), Moved(), HeldModel()
    async with world.dispatcher(clock=clock, providers={"scripted": model}):
        asked = await world.ask(thread, post("/text one HOLD"))
        await within(model.holding.wait())
        [called] = world.read.of(thread, f.ModelCalled)
        assert abs(called.due_at_ms - system_clock() - 3_600_000) < 10_000
        clock.by_ms = 3_601_000
        end = await world.read.ended(thread)
        assert (end.type, end.code, end.run_id) == ("run.failed", "time_limit", asked.run_id)
        assert end.message == "the run took 3600 s, which is its limit"
        model.gate.open()
        await world.ask(thread, post("/text more"))
        assert (await world.read.ended(thread, 2)).type == "run.completed"
    [cancelling] = world.read.of(thread, f.RunCancelling)
    assert cancelling.code == "time_limit"


async def test_the_deadline_of_a_parked_run_stands_still(world: World) -> None:
    thread, clock, model = new_thread(0), Moved(), HeldModel()
    async with world.dispatcher(clock=clock, providers={"scripted": model}):
        await world.put(thread, post(f"{ASK_WEATHER % 'Tokyo'}\n/text HOLD"))
        await parked(world, thread)
        [first] = world.read.of(thread, f.ModelCalled)
        clock.by_ms = DAY_MS
        await listed_anew(world)
        assert not world.read.of(thread, f.RunCancelling)
        [call] = calls(world, thread)
        await world.ask(thread, result(call))
        await within(model.holding.wait())
        second = await world.read.wait_for(thread, f.ModelCalled, count=2)
        assert abs(second.due_at_ms - first.due_at_ms - DAY_MS) < 10_000
        clock.by_ms = DAY_MS + 3_500_000
        await listed_anew(world)
        assert not world.read.of(thread, f.RunCancelling)
        clock.by_ms = DAY_MS + 3_601_000
        assert (await world.read.ended(thread)).code == "time_limit"


async def test_a_child_that_takes_too_long_fails_alone(tmp_path: Path) -> None:
    inner = agent("assistant", limits=Limits(seconds=60))
    async with make_world(tmp_path, agent(limits=Limits(seconds=7200)), inner) as world:
        thread, clock = new_thread(), Moved()
        async with world.dispatcher(clock=clock):
            await world.put(thread, post(f"{ASK_CHILD % json.dumps('/wait 600000')}\n/text done"))
            await world.read.wait_for(thread, f.ModelCalled, count=2)
            clock.by_ms = 61_000
            child = await world.read.ended(thread)
            assert (child.type, child.code) == ("run.failed", "time_limit")
            assert (await world.read.ended(thread, 2)).type == "run.completed"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert returned.status == "error"


async def test_a_tool_under_way_at_the_deadline_gets_its_grace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held, thread, clock = Held(), new_thread(), Moved()
    monkeypatch.setitem(TOOLS, "held", held.tool)
    async with world.dispatcher(clock=clock):
        await world.put(thread, post("/tool held"))
        await within(held.begun.wait())
        clock.by_ms = 3_601_000
        await world.read.wait_for(thread, f.RunCancelling)
        held.gate.open()
        assert (await world.read.ended(thread)).code == "time_limit"
    assert [body.status for body in world.read.of(thread, f.ToolReturned)] == ["ok"]


async def test_a_session_expires_once_nothing_happened_for_its_time_and_not_while_a_run_is_open(world: World) -> None:
    thread, clock, model = new_thread(0), Moved(), HeldModel()
    async with world.dispatcher(clock=clock, providers={"scripted": model}):
        await world.ask(thread, post_idle("/text HOLD", 600))
        await within(model.holding.wait())
        clock.by_ms = 700_000
        await listed_anew(world)
        model.gate.open()
        await world.read.ended(thread)
        await listed_anew(world)
        assert not world.read.of(thread, f.ThreadExpired)
        clock.by_ms = 1_350_000
        expired = await world.read.wait_for(thread, f.ThreadExpired)
        last = [fact.time_ms for fact in world.read.facts if fact.stream == thread][-2]
        assert expired.idle_since_ms == last
        assert (await world.ask(thread, post("/text late"))).code == "session_expired"
        await listed_anew(world)
    assert len(world.read.of(thread, f.ThreadExpired)) == 1


async def test_while_history_is_away_nothing_fires_and_nothing_is_lost(world: World) -> None:
    thread, clock = new_thread(0), Moved()
    async with world.dispatcher(clock=clock):
        await world.put(thread, post(f"{PUBLISH % 'x'}\n/text done"))
        await parked(world, thread)
        world.history.away = True
        clock.by_ms = DAY_MS + 1000
        await listed_anew(world)
        assert not world.read.of(thread, f.ApprovalExpired)
        world.history.away = False
        await world.read.ended(thread)


async def test_nobody_else_may_fire_a_timer(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.put(thread, post(PUBLISH % "x"))
        await parked(world, thread)
        [request] = world.read.of(thread, f.ApprovalRequested)
        fire = c.FireTimer(
            principal=Principal(user_id="root", admin=True), due_key=request.approval_id, due_at_ms=request.due_at_ms
        )
        assert (await world.ask(thread, fire)).code == "forbidden"
        assert not world.read.of(thread, f.ApprovalExpired)
        await world.ask(thread, c.CancelThread(principal=ANN))
        await world.read.ended(thread)


# ---- the loop


class Lists:
    """A history that lists these dues, or is away."""

    def __init__(self, *dues: Due) -> None:
        self.dues, self.away, self.asked = dues, False, []  # type: ignore[var-annotated]

    async def due(self, partitions: Iterable[int], until_ms: int) -> tuple[Due, ...]:
        self.asked.append((sorted(partitions), until_ms))
        if self.away:
            raise HistoryUnavailable("away")
        return self.dues


def due(key: str, stream: str = STREAMS[0]) -> Due:
    return Due(stream=stream, workspace_id="w", due_key=key, due_at_ms=1)


async def test_history_is_asked_once_for_all_partitions_and_each_gets_its_own() -> None:
    lists = Lists(due("a"), due("b", STREAMS[1]), due("c"))
    given: list[tuple[int, list[str], int]] = []

    def of(partition: int) -> Fire:
        return lambda dues, now_ms: given.append((partition, [one.due_key for one in dues], now_ms))

    history: Any = lists
    await look(history, 42, PARTITIONS, {0: of(0), 1: of(1)})
    assert lists.asked == [([0, 1], 42)]
    assert given == [(0, ["a", "c"], 42), (1, ["b"], 42)]
    await look(history, 43, PARTITIONS, {1: of(1)})
    assert given[2:] == [(1, ["b"], 43)], "what is listed of another's partition is another's"
    lists.away = True
    await look(history, 44, PARTITIONS, {0: of(0)})
    await look(history, 45, PARTITIONS, {})
    assert len(given) == 3 and len(lists.asked) == 3, "with no partition nobody is asked"


async def test_a_due_is_judged_once_and_one_that_breaks_holds_up_no_other() -> None:
    fired: list[str] = []

    async def fire(one: Due, now_ms: int) -> None:
        assert timers.firing and now_ms == 42
        fired.append(one.due_key)
        if one.due_key == "broken":
            raise ValueError("broken")

    timers = Timers(fire)
    await timers.take((due("broken"), due("a")), 42)
    await timers.take((due("broken"), due("a"), due("b"), due("a").model_copy(update={"due_at_ms": 2})), 42)
    assert fired == ["broken", "a", "b", "a"] and not timers.firing


async def test_an_answer_that_cannot_be_read_stops_no_timers() -> None:
    fired = asyncio.Event()

    class Garbled(Lists):
        async def due(self, partitions: Iterable[int], until_ms: int) -> tuple[Due, ...]:
            found = await super().due(partitions, until_ms)
            if len(self.asked) == 1:
                raise ValueError("not what was agreed")
            return found

    history: Any = Garbled(due("a"))
    ready: dict[int, Fire] = {0: lambda dues, now_ms: fired.set()}
    watching = asyncio.create_task(watch(history, lambda: 42, 10, PARTITIONS, lambda: ready))
    await within(fired.wait())
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_partition_that_is_lost_stops_its_timers() -> None:
    async def fire(one: Due, now_ms: int) -> None:
        raise NotOwner("gone")

    timers = Timers(fire)
    with pytest.raises(NotOwner):
        await timers.take((due("a"),), 42)
    assert not timers.firing

"""What becomes of a call that nobody knows the end of: by its effect, after a time-out, a break, or a takeover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from parley_dispatcher.errors import ToolDoubt, ToolError
from parley_dispatcher.prompt import UNKNOWN_OUTCOME
from parley_dispatcher.state import ToolUse
from parley_dispatcher.tool_calls import effect_of
from parley_dispatcher.tools import TOOLS
from parley_dispatcher.tools.base import Arguments, Call, Effect, Result, Tool, Verdict
from parley_events import commands as c
from parley_events import facts as f
from parley_events.clock import system_clock
from parley_events.ids import run_id
from parley_events.partition import partition_of
from tests.unit.dispatcher.world import ANN, PARTITIONS, Gate, World, eventually, make_world, new_thread, post, within

SESSION_MS = 60
LIMIT_S = 0.05
Happens = Literal["hangs", "breaks", "doubts", "works"]


class Till:
    """A tool that keeps a book of what it was called with, and does what it is told: in order, the last for ever.
    `says`: what its check says, likewise; an exception is raised."""

    def __init__(self, effect: Effect, *does: Happens, says: tuple[Verdict | Exception, ...] = ()) -> None:
        self.does, self.says = list(does), list(says)
        self.keys: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.begun = asyncio.Event()
        self.asking, self.answering = Gate(), Gate()
        self._effect: Effect = effect

    def tool(self, limit_s: float) -> Tool:
        return Tool("till", "Pays.", Arguments, self._run, self._effect, timeout_s=limit_s, check=self._check)

    async def _run(self, call: Call, arguments: Arguments) -> Result:
        self.keys.append(call.effect_key)
        self.begun.set()
        match self.does.pop(0) if len(self.does) > 1 else self.does[0]:
            case "hangs":
                await asyncio.sleep(3600)
            case "breaks":
                raise RuntimeError("secret detail")
            case "doubts":
                raise ToolDoubt("the connection broke")
        await self.answering.passed()
        return Result("paid")

    async def _check(self, call: Call, arguments: Arguments) -> Verdict:
        self.asked.append((call.effect_key, system_clock()))
        await self.asking.passed()
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path) as made:
        yield made


@pytest.fixture
def sell(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the agents have a till."""

    def made(till: Till, limit_s: float = LIMIT_S) -> Till:
        monkeypatch.setitem(TOOLS, "till", till.tool(limit_s))
        return till

    return made


HAPPENED = Verdict(True, Result("paid already"))
NOT_YET = Verdict(False, Result(""))


async def outcome(world: World, **settings: Any) -> f.ToolReturned:
    """What a run's one call of the till came to; the run ends well."""
    thread = new_thread()
    async with world.dispatcher(session_ms=SESSION_MS, **settings):
        await world.ask(thread, post("/tool till\n/text Done."))
        assert (await world.read.ended(thread)).type == "run.completed"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert len(world.read.of(thread, f.ToolCalled)) == 1
    result: f.ToolReturned = returned
    return result


@pytest.mark.parametrize("happens", ["hangs", "breaks", "doubts"])
async def test_an_unsafe_call_without_an_answer_is_unknown_and_made_once(
    world: World, sell: Any, happens: Happens
) -> None:
    till = sell(Till("unsafe", happens, "works"))
    returned = await outcome(world)
    assert (returned.status, returned.result, len(till.keys)) == ("unknown", UNKNOWN_OUTCOME, 1)
    assert till.asked == []


@pytest.mark.parametrize("happens", ["hangs", "breaks", "doubts"])
async def test_an_idempotent_call_without_an_answer_is_made_again_with_the_same_key(
    world: World, sell: Any, happens: Happens
) -> None:
    till = sell(Till("idempotent", happens, "works"))
    assert (await outcome(world)).status == "ok"
    assert len(till.keys) == 2 and len(set(till.keys)) == 1


async def test_an_idempotent_call_that_is_never_answered_is_unknown_after_three_tries(
    world: World, sell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.tool_calls._TRIES_S", (0.0, 0.001, 0.001))
    till = sell(Till("idempotent", "doubts"))
    assert (await outcome(world)).status == "unknown"
    assert len(till.keys) == 3


async def test_a_checkable_call_that_took_place_is_not_made_again(world: World, sell: Any) -> None:
    till = sell(Till("checkable", "hangs", says=(HAPPENED,)))
    returned = await outcome(world)
    assert (returned.status, returned.result) == ("ok", "paid already")
    assert [key for key, _ in till.asked] == till.keys and len(till.keys) == 1


async def test_a_check_is_asked_only_when_the_call_can_be_under_way_no_more(world: World, sell: Any) -> None:
    till = sell(Till("checkable", "breaks", says=(HAPPENED,)))
    thread = new_thread()
    async with world.dispatcher(session_ms=SESSION_MS):
        await world.ask(thread, post("/tool till\n/text Done."))
        await world.read.ended(thread)
    [called] = [fact for fact in world.read.facts if isinstance(fact.body, f.ToolCalled)]
    [(_, asked_ms)] = till.asked
    assert asked_ms >= called.time_ms + 1000 * LIMIT_S + SESSION_MS


async def test_a_checkable_call_that_did_not_take_place_is_made_with_the_same_key(world: World, sell: Any) -> None:
    till = sell(Till("checkable", "doubts", "works", says=(NOT_YET,)))
    returned = await outcome(world)
    assert (returned.status, returned.result) == ("ok", "paid")
    assert len(till.keys) == 2 and len(set(till.keys)) == 1


@pytest.mark.parametrize("says", [ToolError("who knows"), RuntimeError("it broke")])
async def test_where_the_check_cannot_tell_the_outcome_is_unknown(world: World, sell: Any, says: Exception) -> None:
    till = sell(Till("checkable", "doubts", "works", says=(says,)))
    assert (await outcome(world)).status == "unknown"
    assert len(till.keys) == 1 and len(till.asked) == 1


async def test_a_check_that_gives_no_answer_is_asked_again(world: World, sell: Any) -> None:
    till = sell(Till("checkable", "doubts", says=(ToolDoubt("it broke off"), HAPPENED)))
    assert (await outcome(world)).status == "ok"
    assert (len(till.keys), len(till.asked)) == (1, 2)


@pytest.mark.parametrize(
    ("effect", "calls", "status"),
    [("read_only", 2, "ok"), ("idempotent", 2, "ok"), ("checkable", 1, "ok"), ("unsafe", 1, "unknown")],
)
async def test_after_a_takeover_a_call_that_was_begun_is_settled_by_its_effect(
    world: World, sell: Any, effect: Effect, calls: int, status: str
) -> None:
    till = sell(Till(effect, "works", says=(HAPPENED,)), 60.0)
    till.answering.close()
    thread = new_thread()
    async with world.dispatcher(session_ms=SESSION_MS):
        await world.ask(thread, post("/tool till\n/text Done."))
        await within(till.begun.wait())
    assert world.read.of(thread, f.ToolReturned) == []
    till.answering.open()
    sell(till)
    async with world.dispatcher(session_ms=SESSION_MS):
        assert (await world.read.ended(thread)).type == "run.completed"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, len(till.keys), len(set(till.keys))) == (status, calls, 1)
    assert len(world.read.of(thread, f.ToolCalled)) == 1, "the intent stands on record once"


async def test_no_call_is_made_again_once_the_run_is_being_cancelled(world: World, sell: Any) -> None:
    till = sell(Till("checkable", "doubts", "works", says=(NOT_YET,)))
    till.asking.close()
    thread = new_thread()
    async with world.dispatcher(session_ms=SESSION_MS):
        posted = await world.put(thread, post("/tool till\n/text Done."))
        await eventually(lambda: bool(till.asked))
        await world.ask(thread, c.CancelRun(principal=ANN, run_id=run_id(thread, posted)))
        till.asking.open()
        assert (await world.read.ended(thread)).type == "run.cancelled"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, len(till.keys)) == ("unknown", 1)


async def test_a_dispatcher_that_lost_the_partition_makes_no_call_again(world: World, sell: Any) -> None:
    """It was stalled while it waited; its own tail has not told it yet."""
    till = sell(Till("checkable", "doubts", "works", says=(NOT_YET,)))
    till.asking.close()
    thread = new_thread()
    partition = partition_of(thread.encode(), PARTITIONS)
    async with world.dispatcher(session_ms=SESSION_MS) as dispatcher:
        await world.put(thread, post("/tool till\n/text Done."))
        await eventually(lambda: bool(till.asked))
        dispatcher.log.own_tail.close()
        await world.claim(partition)
        owner = dispatcher.owner(thread)
        till.asking.open()
        dispatcher.log.own_tail.open()
        await eventually(lambda: owner.closed)
    assert len(till.keys) == 1
    assert world.read.of(thread, f.ToolReturned) == []


@pytest.mark.parametrize(
    ("recorded", "now", "worst"),
    [
        ("read_only", "read_only", "read_only"),
        ("read_only", "unsafe", "unsafe"),
        ("unsafe", "read_only", "unsafe"),
        ("checkable", "idempotent", "checkable"),
        ("idempotent", "checkable", "checkable"),
        ("idempotent", None, "unsafe"),
        ("read_only", None, "read_only"),
        ("", "idempotent", "idempotent"),
        ("", None, "read_only"),
    ],
)
def test_a_begun_call_is_judged_by_the_worse_of_what_was_and_what_is_said(
    recorded: str, now: Effect | None, worst: str
) -> None:
    till = Till(now, "works").tool(LIMIT_S) if now is not None else None
    assert effect_of(ToolUse("t", "till", {}, 0, effect=recorded), till) == worst

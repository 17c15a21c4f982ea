"""A run on the screen: what stands there in the end, and what stands there meanwhile."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_standalone.terminal import watch as watch_
from parley_standalone.terminal.native import Frame
from parley_standalone.terminal.screen import Screen
from parley_standalone.terminal.watch import Watch
from tests.support.terminal import Emulator

Step = dict[str, Any] | str


class Show:
    """A watch on a screen of 80 by 25. A string among the steps waits until it is to be seen."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self._read = 0
        self.emulator = Emulator(80, 25)
        self.watch = Watch(Screen(self._file), asyncio.get_running_loop().time, "a hint")

    def seen(self) -> str:
        written = self._file.getvalue()
        self.emulator.feed(written[self._read :].replace("\n", "\r\n").replace("\r\r\n", "\r\n"))
        self._read = len(written)
        return self.emulator.text()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.seen():
                await asyncio.sleep(0.005)

    async def run(self, *steps: Step) -> str:
        async def frames() -> AsyncIterator[Frame]:
            for step in steps:
                if isinstance(step, str):
                    await self.until(step)
                else:
                    yield Frame(None, step, "")

        await self.watch.run(frames())
        return self.seen()


@pytest.fixture
async def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setattr(watch_, "SPIN_S", 0.01)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")
    return Show()


def text(delta: str, kind: str = "text") -> dict[str, Any]:
    return {"type": f"{kind}.delta", "delta": delta}


def tool(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"tool.{kind}", "tool_call": {"id": "c", "name": "echo", "arguments": {"a": 1}, **more}}


RETURNED = {"type": "model.returned", "content": ""}
COMPLETED = {"type": "run.completed", "stop_reason": "end_turn"}


async def test_a_run_stands_there_in_order(show: Show) -> None:
    seen = await show.run(
        text("Hm.", "thought"),
        text("Look"),
        text("ing."),
        RETURNED,
        tool("called"),
        tool("returned", result="1", status="ok"),
        text("Done."),
        RETURNED,
        COMPLETED,
    )
    assert seen.split("\n") == ["│ Hm.", "", "Looking.", "", '  ✓ echo {"a": 1} → 1', "", "Done."]
    assert show.watch.ended is not None and show.watch.ended.status == "completed"


async def test_meanwhile_there_is_what_is_under_way_and_it_leaves_no_trace(show: Show) -> None:
    seen = await show.run(
        "a hint",
        text("Half a sen"),
        "Half a sen",
        RETURNED,
        tool("called"),
        'echo {"a": 1}',
        tool("returned", result="no", status="error"),
        COMPLETED,
    )
    assert seen.split("\n") == ["Half a sen", "", '  ✗ echo {"a": 1} error → no']


async def test_what_came_of_a_broken_attempt_and_was_not_final_goes(show: Show) -> None:
    again = {"type": "run.restarted", "attempt": 2}
    seen = await show.run(text("void"), "void", again, text("true"), RETURNED, COMPLETED)
    assert "void" not in seen
    assert seen.split("\n")[-1] == "true"
    assert "attempt 2" in seen


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ({"type": "run.failed", "error": {"code": "model_400", "message": "no"}}, "  ✗ failed: model_400: no"),
        ({"type": "run.cancelled", "reason": "enough"}, "  – cancelled: enough"),
        ({"type": "run.completed", "stop_reason": "max_tokens"}, "  the model stopped: max_tokens"),
    ],
)
async def test_an_end_that_is_none_of_the_good_ones_is_told(show: Show, end: dict[str, Any], line: str) -> None:
    assert (await show.run(text("so far"), end)).split("\n")[-1] == line


async def test_a_large_message_has_a_bar_and_trouble_is_told_until_it_is_over(show: Show) -> None:
    show.watch.sending(2**20, 2**21)
    running = asyncio.ensure_future(show.run("never", COMPLETED))
    await show.until("sending 1.0 of 2.0 MiB ━")
    show.watch.trouble("nobody there")
    await show.until("trying again: nobody there")
    show.watch.trouble(None)
    show.watch.sending(2**21, 2**21)
    await show.until("a hint")
    assert "nobody" not in show.seen()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert show.seen() == "", "whatever ends it, the screen is left in order"


CALL = {"id": "c1", "name": "publish", "arguments": {"text": "Rain."}}
ASKED = {"type": "approval.requested", "approval_id": "p1", "tool_call": CALL, "question": "Shall it go out?"}
HANDED = {"type": "tool.called", "run_id": "r", "tool_call": {"id": "c2", "name": "get_weather", "status": "waiting"}}
WAITS = {"type": "run.waiting", "waits_for": "approval"}


async def test_what_a_run_waits_for_stands_there_whole_and_is_let_go_of_when_it_is_answered(show: Show) -> None:
    long = {**CALL, "arguments": {"text": "x" * 200}}
    seen = await show.run({**ASKED, "tool_call": long}, HANDED, WAITS)
    assert "◇ approval publish" in seen and "Shall it go out?" in seen and "◇ client get_weather" in seen
    assert seen.count("x") > 200 - 5, "nobody says yes to what they have not read"
    assert (list(show.watch.parked), show.watch.waits) == (["p1", "c2"], True)
    answered = {"type": "approval.answered", "approval_id": "p1", "decision": "deny", "by": "bob", "comment": "no"}
    seen = await show.run(answered)
    assert "denied by bob: no" in seen
    assert (list(show.watch.parked), show.watch.waits) == (["c2"], False)
    result = {"id": "c2", "result": "21 °C", "status": "ok"}
    seen = await show.run({"type": "tool.answered", "tool_call": result})
    assert "✓ get_weather → 21 °C" in seen, "named by what was handed over"
    assert show.watch.parked == {}


async def test_one_who_can_answer_is_let_go_when_the_run_waits(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at a wait that is over: what is stored goes on with the answer."""
    monkeypatch.setattr(watch_, "SETTLE_S", 0.05)
    answered = {"type": "approval.answered", "approval_id": "p1", "decision": "approve", "by": "bob"}
    steps: list[dict[str, Any]] = [ASKED, WAITS, answered, HANDED, WAITS]
    closed = asyncio.Event()

    async def frames() -> AsyncIterator[Frame]:
        try:
            for number, step in enumerate(steps):
                yield Frame(str(number), step, "")
            await asyncio.Event().wait()
        finally:
            closed.set()

    assert await show.watch.run(frames(), leaves=True) is None
    assert (show.watch.last, list(show.watch.parked)) == ("4", ["c2"]), "it goes on from there"
    assert closed.is_set(), "nobody listens any more"


async def test_one_whose_message_is_queued_behind_a_wait_is_let_go(show: Show) -> None:
    async def frames() -> AsyncIterator[Frame]:
        yield Frame("1", {"type": "message.posted", "content": "hi", "status": "queued"}, "")
        raise AssertionError("nobody waits for more")

    await show.watch.run(frames(), leaves=True, behind=True)
    assert show.watch.queued


async def test_an_end_without_what_was_begun_says_so(show: Show) -> None:
    piece = {"type": "text.delta", "delta": "Half a "}
    seen = await show.run(piece, {"type": "run.restarted", "attempt": None}, {"type": "run.cancelled", "reason": None})
    assert "what it had begun to say is void" in seen and "cancelled" in seen

"""Read marks that the gateway sends by itself: how many there may be, for whom they are waited, how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parley_gateway import marks as marking
from parley_gateway.auth import Principal
from parley_gateway.errors import Unavailable
from parley_gateway.marks import Marks

ANN = Principal("w", "ann", "ann's key", frozenset({"*"}))
BOB = Principal("w", "bob", "bob's key", frozenset({"*"}))


class Log:
    """Stands for the sender: takes marks when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.error: Exception | None = None
        self.asked: list[tuple[str, str, int]] = []

    def command(self, who: Principal, command_id: str, stream: str, body: Any) -> Any:
        return command_id, stream, body.up_to

    async def ask(self, who: Principal, command: Any) -> None:
        self.asked.append(command)
        await self.open.wait()
        if self.error is not None:
            raise self.error


async def made() -> tuple[Marks, Log]:
    log = Log()
    return Marks(log), log  # type: ignore[arg-type]


async def test_a_key_waits_for_its_own_marks_alone() -> None:
    marks, log = await made()
    marks.read(ANN, "t", 4)
    await marks.settle(BOB.key_id)
    waiting = asyncio.create_task(marks.settle(ANN.key_id))
    while not log.asked:
        await asyncio.sleep(0)
    assert not waiting.done()
    log.open.set()
    await waiting
    await marks.settle(ANN.key_id)


async def test_what_was_marked_is_not_marked_again_unless_it_failed() -> None:
    marks, log = await made()
    log.open.set()
    log.error = Unavailable("away")
    for up_to, error in ((4, log.error), (4, None), (4, None), (3, None), (None, None), (9, None)):
        log.error = error
        marks.read(ANN, "t", up_to)
        await marks.settle(ANN.key_id)
    marks.read(BOB, "t", 4)
    await marks.settle(BOB.key_id)
    assert [up_to for _, _, up_to in log.asked] == [4, 4, 9, 4]
    assert log.asked[0] == log.asked[1], "tried again it is the same command"
    assert log.asked[1] != log.asked[3]


async def test_little_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "MOST_KNOWN", 2)
    marks, log = await made()
    log.open.set()
    for thread in ("a", "b", "a", "c", "a", "b"):
        marks.read(ANN, thread, 1)
        await marks.settle(ANN.key_id)
    assert [stream for _, stream, _ in log.asked] == ["a", "b", "c", "a", "b"]


async def test_a_mark_that_fails_in_some_other_way_is_logged_and_let_go(caplog: pytest.LogCaptureFixture) -> None:
    marks, log = await made()
    log.open.set()
    log.error = RuntimeError("broken")
    marks.read(ANN, "t", 4)
    await marks.settle(ANN.key_id)
    await asyncio.sleep(0)
    assert "a read mark failed" in caplog.text and not marks._sending and marks._count == 0


async def test_a_stopping_gateway_waits_a_moment_and_leaves_nothing_behind() -> None:
    marks, _ = await made()
    marks.read(ANN, "t", 4)
    marks.read(BOB, "t", 4)
    async with asyncio.timeout(5):
        await marks.close()
    assert not marks._sending and marks._count == 0
    await marks.close()

"""Runs that wait for people and clients, while owners die and stall: asking, parking, answering, expiring, stopping."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.faults.boundaries import Action, Placed
from tests.faults.stage import Round
from tests.faults.workload import Talk, tool

BASE = "/api/v1/chat"
SEEN_S = 90.0


def asking(note: str) -> str:
    """A message whose turn asks for two approvals and for the client, beside a tool that is called at once."""
    return "\n".join(
        (
            "/text Before that. ",
            tool("publish", text=f"{note} first"),
            tool("publish", text=f"{note} second"),
            tool("get_weather", location=note),
            tool("ledger__pay", note=f"{note} pay"),
            "/text All of it came.",
            tool("ledger__book", note=f"{note} book"),
            "/text Done.",
        )
    )


async def answered(going: Round) -> None:
    """Owners die and stall at each step of a run that waits; all dispatchers die while it does."""
    await going.begin(crowd=2, bystanders=1)
    talks = [await _asked(going, action, kind) for action, kind in _ASKING]
    for talk in talks:
        await _seen(talk, "run.waiting", 1)
    await _kill_all(going)
    for (action, kind), talk in zip(_ANSWERING, talks, strict=True):
        await _place(going, talk, action, kind)
        await _answer(going, talk)
    for talk in talks:
        await _end_of(talk)


_ASKING: tuple[tuple[Action, str], ...] = (
    ("kill", "approval.requested"),
    ("stop", "run.waiting"),
    ("kill", "run.waiting"),
)
_ANSWERING: tuple[tuple[Action, str], ...] = (
    ("kill", "approval.answered"),
    ("stop", "tool.answered"),
    ("kill", "tool.called"),
)


async def expired(going: Round) -> None:
    """Nobody answers: approvals and calls of the client expire, once, though the owner dies as they do."""
    await going.begin(crowd=2, bystanders=1)
    calls = {"tool.expired": tool("get_mood"), "approval.expired": tool("repeat", text="again", times=2)}
    for kind, call in calls.items():
        talk = await going.work.open()
        await _place(going, talk, "kill", kind)
        going.work.saying(talk, f"/text Waiting.\n{call}\n/text Nobody came.", "/text And on.")
        await _end_of(talk)


async def stopped(going: Round) -> None:
    """Parked runs are cancelled, and thread by thread; a message goes on past the client's tools."""
    await going.begin(crowd=2, bystanders=1)
    talks = [await going.work.open() for _ in range(3)]
    for talk in talks:
        going.work.saying(talk, f"/text Waiting.\n{tool('get_weather', location='here')}\n/text It came.")
        await _seen(talk, "run.waiting", 1)
    await _place(going, talks[0], "kill", "run.cancelling")
    client = going.work.client()
    await client.ask("POST", f"{BASE}/runs/{talks[0].runs[-1]}/cancel", {}, going.work.number())
    await _place(going, talks[1], "kill", "thread.cancelling")
    await client.ask("POST", f"{BASE}/threads/{talks[1].thread_id}/cancel", {}, going.work.number())
    await _place(going, talks[2], "kill", "message.posted")
    going.work.saying(talks[2], "/text Never mind the weather.")
    for talk in talks:
        await _end_of(talk)


async def _asked(going: Round, action: Action, kind: str) -> Talk:
    talk = await going.work.open()
    await _place(going, talk, action, kind)
    going.work.saying(talk, asking(f"{going.name} {going.work.number()}"))
    return talk


async def _place(going: Round, talk: Talk, action: Action, kind: str) -> None:
    """Place a fault for the thread's next fact of a kind; it heals by itself once it has struck."""
    fault = Placed(
        id=going.work.number(), boundary="append.acknowledged", action=action, kind=kind, stream=talk.thread_id
    )
    await going.cluster.control.place(fault, "dispatcher")
    going.striking(fault, f"{action} at append.acknowledged of {kind}", talk)


async def _answer(going: Round, talk: Talk) -> None:
    """Approve one, deny the other, give the client's result: in whatever order chance has it, each tried until it is
    answered."""
    client, run_id = going.work.client(), talk.runs[-1]
    frames = [frame.data for frame in talk.seen() if isinstance(frame.data, dict)]
    approvals = [str(data["approval_id"]) for data in frames if data.get("type") == "approval.requested"]
    calls = [
        str(data["tool_call"]["id"])
        for data in frames
        if data.get("type") == "tool.called" and data["tool_call"]["name"] == "get_weather"
    ]
    asked: list[tuple[str, dict[str, Any]]] = [
        *(
            (f"{BASE}/approvals/{approval}", {"decision": decision, "comment": "as you like"})
            for approval, decision in zip(approvals, ("approve", "deny"), strict=True)
        ),
        *((f"{BASE}/runs/{run_id}/tools/{call}", {"content": "Rain."}) for call in calls[:1]),
    ]
    going.work.chance.shuffle(asked)
    for path, body in asked:
        status, answer = await client.ask("POST", path, body, going.work.number())
        assert status in (200, 202), f"{path}: {status} {answer}"


async def _kill_all(going: Round) -> None:
    async def all_at_once() -> None:
        for process in going.cluster.of("dispatcher"):
            process.kill()
        for process in going.cluster.of("dispatcher"):
            await going.cluster.restart(process)
        await going.cluster.ready([process.name for process in going.cluster.of("dispatcher")])

    await going.during("SIGKILL of all dispatchers while runs wait", "dispatcher", all_at_once())


async def _seen(talk: Talk, kind: str, count: int) -> None:
    """Wait until a follower of the newest run has seen so many frames of a type."""
    async with asyncio.timeout(SEEN_S):
        while sum(isinstance(f.data, dict) and f.data.get("type") == kind for f in talk.seen()) < count:
            await asyncio.sleep(0.05)


async def _end_of(talk: Talk) -> None:
    async with asyncio.timeout(SEEN_S):
        while not talk.watchers or not talk.watchers[0].over:
            await asyncio.sleep(0.05)

"""The work that goes on while things break: threads of both contracts, scripts for the scripted model, followers.

scripts     what a message asks the model to do; drawn by chance from a seed, or fixed
Workload    opens threads, says things in them, follows every run at both gateways until its end
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from parley_events.ids import derived_uuid
from tests.faults.clients import Client, Record, Watcher, until
from tests.faults.cluster import STRUCTURES, Cluster
from tests.faults.evidence import Contract, Frame

AGENT = "scripted"


def tool(name: str, **arguments: Any) -> str:
    """A line that calls a tool."""
    return f"/tool {name} {json.dumps(arguments)}"


def whole(note: str) -> str:
    """A message that passes every boundary: text, a tool of each effect in one turn, text, one more tool, an end."""
    return "\n".join(
        (
            "/text First of all. ",
            "/stream 10 20",
            tool("clock"),
            tool("ledger__pay", note=f"{note} pay"),
            tool("ledger__book", note=f"{note} book"),
            tool("ledger__reserve", note=f"{note} reserve"),
            tool("ledger__look", note=f"{note} look"),
            "/text And then. ",
            "/stream 15 20 10",
            tool("append_line", file="effects.txt", line=note),
            "/text That is all.",
        )
    )


def steady(pieces: int = 120, pause_ms: int = 100) -> str:
    """A message that keeps a run at work for a while: a long text."""
    return f"/text On and on: \n/stream {pieces} {pause_ms}\n/text the end"


def unsteady_tools(note: str) -> str:
    """A message whose tools fail in every way after their effect."""
    return "\n".join(
        (
            "/text Trying.",
            tool("ledger__pay", note=f"{note} hang", then="hang"),
            tool("ledger__book", note=f"{note} hang", then="hang"),
            tool("ledger__reserve", note=f"{note} hang", then="hang"),
            tool("ledger__look", note=f"{note} hang", then="hang"),
            tool("ledger__pay", note=f"{note} 500", then="500"),
            tool("ledger__book", note=f"{note} 500", then="500"),
            tool("ledger__pay", note=f"{note} error", then="error"),
            tool("ledger__pay", note=f"{note} late", then="late", ms=700),
            "/text Done trying.",
        )
    )


MODEL_ERRORS: dict[str, str] = {
    "429": "/text Half a sentence\n/error 429 2\n/text , whole.",
    "529": "/error 529\n/text Not at once.",
    "cut": "/text Half of \n/stream 8 10\n/error cut 2\n/text it was cut.",
    "stall": "/text It says \n/stream 5 10\n/error stall\n/text nothing for a while.",
    "500": "/think Hm.\n/text Broken \n/error 500\n/text once.",
    "for good": "/text Never \n/error cut always\n/text done.",
    "400": "/error 400\n/text Never said.",
    "same ids": "#same-ids\n/text Twins:\n"
    + "\n".join((tool("ledger__pay", note="twin one"), tool("ledger__pay", note="twin two"), tool("echo", n=3)))
    + "\n/text Both.",
}
"""Messages whose model calls fail, and what it is that fails."""


def by_chance(chance: random.Random, note: str) -> str:
    """A message of one to three turns, with what chance gives it."""
    lines: list[str] = []
    for turn in range(chance.randint(1, 3)):
        lines.append(f"/text {note}, turn {turn}: ")
        if chance.random() < 0.3:
            lines.append("/think Let me think about that.")
        lines.append(f"/stream {chance.randint(1, 25)} {chance.choice((0, 10, 40))}")
        if chance.random() < 0.2:
            lines.append(f"/error {chance.choice(('429', '529', 'cut'))}")
        for number in range(chance.randint(0, 3)):
            name = chance.choice(("ledger__pay", "ledger__book", "ledger__reserve", "ledger__look", "echo", "clock"))
            lines.append(tool(name) if name == "clock" else tool(name, note=f"{note} {turn}.{number}"))
    lines.append("/text The end.")
    return "\n".join(lines)


@dataclass(slots=True)
class Talk:
    """A thread at work: its runs, and who follows them."""

    contract: Contract
    thread_id: str
    structure: str | None = None
    runs: list[str] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)
    thread_watcher: Watcher | None = None

    def seen(self) -> list[Frame]:
        """What the first follower of the newest run has seen."""
        return self.watchers[-2].seen if len(self.watchers) > 1 else []


class Workload:
    """What is at work in one round of the suite. `chance` is seeded; `name` keeps the rounds' keys apart."""

    def __init__(self, name: str, cluster: Cluster, record: Record, chance: random.Random, structures: Any) -> None:
        self.name, self.cluster, self.record, self.chance = name, cluster, record, chance
        self._structures = structures
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._numbers = iter(range(10_000))
        self.talks: list[Talk] = []

    def number(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def client(self, name: str | None = None) -> Client:
        return Client(name or self.number(), self.cluster, self.record, self.chance)

    def go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on in the background; `end` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def open(self, contract: Contract = "threads", watched: bool = False) -> Talk:
        """A new thread. `watched`: somebody follows the whole of it, too."""
        if contract == "org_chat":
            structure = STRUCTURES[next(self._structures)]
            talk = Talk(contract, derived_uuid("org_chat", self.cluster.workspace_id, structure, AGENT), structure)
        else:
            key = f"open {self.number()}"
            status, answer = await self.client().ask("POST", "/api/v1/chat/threads", {"agent_id": AGENT}, key)
            assert status in (201, 202), f"a thread was not made: {status} {answer}"
            talk = Talk(contract, answer["id"])
        self.talks.append(talk)
        if watched and contract == "threads":
            talk.thread_watcher = self._watcher(talk, None, restless=True)
            self._watching.append(asyncio.create_task(talk.thread_watcher.run(600.0)))
        return talk

    async def post(self, talk: Talk, message: str, key: str | None = None) -> str:
        """Say something in a thread; the run's id, once it was accepted."""
        key = key or f"say {self.number()}"
        client = self.client()
        if talk.contract == "threads":
            path = f"/api/v1/chat/threads/{talk.thread_id}/messages"
            status, answer = await client.ask("POST", path, {"content": message}, key)
            assert status == 202, f"a message was not taken: {status} {answer}"
            run_id = str(answer["run_id"])
        else:
            body = {"structure_id": talk.structure, "role_id": AGENT, "message": message}
            given = await client.said("/api/org/chat/message", body, key)
            assert given is not None, "a message was not taken"
            run_id = given
        talk.runs.append(run_id)
        return run_id

    async def say(self, talk: Talk, message: str, *, limit_s: float = 150.0) -> None:
        """Say something, and follow its run to its end: one stays, one leaves and comes back at random frames."""
        run_id = await self.post(talk, message)
        watchers = [self._watcher(talk, run_id, restless=restless) for restless in (False, True)]
        talk.watchers += watchers
        await asyncio.gather(*(watcher.run(limit_s) for watcher in watchers))

    def saying(self, talk: Talk, *messages: str) -> asyncio.Task[None]:
        """One message after the other, in the background."""

        async def talking() -> None:
            for message in messages:
                await self.say(talk, message)

        return self.go(talking())

    def cancelling(self, talk: Talk, message: str, reached: Callable[[list[Frame]], bool]) -> asyncio.Task[None]:
        """A message whose run is cancelled as soon as its follower has seen enough, twice over."""

        async def talking() -> None:
            saying = asyncio.create_task(self.say(talk, message))
            try:
                while not talk.watchers:
                    if saying.done():
                        break
                    await asyncio.sleep(0.02)
                await until(talk.seen(), lambda seen: reached(seen) or saying.done(), 150.0)
                key = f"cancel {self.number()}"
                for _ in range(2):
                    status, _answer = await self.client().ask(
                        "POST", f"/api/v1/chat/runs/{talk.runs[-1]}/cancel", {}, key
                    )
                    assert status in (200, 202, 409), status
                await saying
            finally:
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)

        return self.go(talking())

    async def crowd(self, count: int) -> None:
        """Threads of both contracts with messages by chance, at work in the background; some are cancelled."""
        for number in range(count):
            contract: Contract = "org_chat" if number % 3 == 2 else "threads"
            talk = await self.open(contract, watched=number % 4 == 0)
            messages = [by_chance(self.chance, f"{self.name} {number}") for _ in range(self.chance.randint(1, 2))]
            if contract == "threads" and number % 4 == 1:
                patience = self.chance.randint(1, 20)
                self.cancelling(talk, steady(200, 50), lambda seen, patience=patience: len(seen) > patience)  # type: ignore[misc]
            else:
                self.saying(talk, *messages)

    async def end(self, limit_s: float) -> list[str]:
        """Wait until everything has come to its end; what did not, as lines."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        for talk in self.talks:
            if talk.thread_watcher is not None:
                await self._caught_up(talk)
                talk.thread_watcher.done.set()
        if self._watching:
            await asyncio.wait(self._watching, timeout=20.0)
        wrong = []
        for task in (*self._tasks, *self._watching):
            if not task.done():
                task.cancel()
                wrong.append(f"{self.name}: something did not come to its end within {limit_s:g} s")
            elif task.exception() is not None:
                wrong.append(f"{self.name}: {type(task.exception()).__name__}: {task.exception()}")
        await asyncio.gather(*self._tasks, *self._watching, return_exceptions=True)
        watchers = [w for talk in self.talks for w in (*talk.watchers, talk.thread_watcher) if w is not None]
        self.record.followers += [watcher.so_far() for watcher in watchers]
        return wrong

    async def _caught_up(self, talk: Talk) -> None:
        """Let who follows a whole thread see the ends of its runs."""
        watcher = talk.thread_watcher
        assert watcher is not None
        ends = set(talk.runs)

        def seen_all(seen: Sequence[Frame]) -> bool:
            said = {
                f.data.get("run_id")
                for f in seen
                if isinstance(f.data, dict) and f.data.get("type") in ("run.completed", "run.failed", "run.cancelled")
            }
            return ends <= said

        try:
            await until(watcher.seen, seen_all, 20.0)
        except TimeoutError:
            return  # the checker says what is missing

    def _watcher(self, talk: Talk, run_id: str | None, *, restless: bool) -> Watcher:
        name = f"{self.number()} {'restless' if restless else 'patient'}"
        return Watcher(name, talk.contract, talk.thread_id, run_id, self.cluster, self.chance, restless)

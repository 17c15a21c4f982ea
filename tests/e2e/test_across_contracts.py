"""One run in every contract at once: begun in one, streamed in the others while it runs, fetched in any of them later.

Real Kafka, real PostgreSQL, two gateways, and dispatchers that die. What every contract shows is told from the same
facts, so the texts must be equal byte for byte, whoever asked, wherever, and whenever.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from parley_events.ids import agent_uuid
from parley_events.partition import partition_of
from parley_gateway.dialects.org_chat.inbound import default_thread
from tests.contract.dialects.tongues import TONGUES, Tongue
from tests.e2e.test_restarts import whole_again
from tests.support.contracts import AGENT, IN, Row, follow, history, later, send, told, tongue_of
from tests.support.processes import kill
from tests.support.sse import Frame
from tests.support.system import System, collect, eventually, new_thread
from tests.support.topics import owner_pid, read_topic

NAMES = sorted(TONGUES)
BEGUN = 60
"""So much text shows that a follower is in the middle of it."""


@pytest.fixture
async def system(breakable: System) -> System:
    """A cluster with all its parts, whatever a test before this one has broken."""
    await whole_again(breakable)
    return breakable


@dataclass(frozen=True, slots=True)
class Script:
    """What is asked, and the texts of the turns that come of it; `pieces` say how long that takes (20 ms each)."""

    pieces: int

    @property
    def asked(self) -> str:
        return f'/text One moment. \n/tool echo {{"n": 1}}\n/stream {self.pieces} 20\n/text caf\\u00e9 \\ud83d\\ude00'

    @property
    def turns(self) -> tuple[str, str]:
        return "One moment. ", "".join(f"{n:04d} " for n in range(self.pieces)) + "caf\u00e9 \U0001f600"

    @property
    def text(self) -> str:
        return "".join(self.turns)


@dataclass(slots=True)
class Begun:
    """A run that one contract began, and what every contract shows of it."""

    by: Tongue
    script: Script
    run: str
    key: str
    seen: dict[str, list[Frame]] = field(default_factory=lambda: {name: [] for name in NAMES})

    @property
    def thread(self) -> str:
        return self.run[:36]


@asynccontextmanager
async def followed(
    system: System, tongues: dict[str, Tongue], begun: list[Begun]
) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Every contract follows every run, at the two gateways in turn; entered when all are in the middle of the text."""
    tasks = [
        asyncio.create_task(follow(system, tongues[name], one.run, one.seen[name], gateway % 2))
        for one in begun
        for gateway, name in enumerate(NAMES)
    ]

    async def in_the_middle() -> bool:
        for task in tasks:
            if task.done():
                task.result()
        return all(len(tongues[name].text(one.seen[name])) >= BEGUN for one in begun for name in NAMES)

    try:
        await eventually(in_the_middle)
        for one in begun:
            for name in NAMES:
                assert one.seen[name][-1].type not in tongues[name].ends.values(), f"{name} was not there in time"
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def begin(client: httpx2.AsyncClient, tongue: Tongue, pieces: int, thread: str | None = None) -> Begun:
    """A message that nobody waits for."""
    script = Script(pieces)
    deed, key = later(tongue, script.asked), uuid.uuid4().hex
    if thread is not None and tongue.name in IN:
        deed = IN[tongue.name](deed, thread)
    accepted = await send(client, deed, **{"Idempotency-Key": key})
    assert accepted.status_code == 202, accepted.text
    run, _ = tongue.accepted(accepted)  # type: ignore[arg-type]
    assert run == accepted.headers["parley-run-id"], "every contract calls a run by the same id"
    assert thread is None or run.startswith(thread)
    return Begun(tongue, script, run, key)


async def told_alike(system: System, tongues: dict[str, Tongue], one: Begun, thread: str | None = None) -> None:
    """What every contract showed of a run that has ended, and shows of it now, is the same."""
    script = one.script
    async with system.client() as client, system.client(1) as second:
        for name in NAMES:
            tongue, frames, where = tongues[name], one.seen[name], f"begun in {one.by.name}, shown in {name}"
            assert tongue.text(frames) == script.text, where
            assert [frame.type for frame in frames if frame.type in tongue.ends.values()] == [frames[-1].type], where
            assert frames[-1].type == tongue.ends["completed"], where
            for asked in (client, second):
                again = told(await collect(asked, "GET", tongue.events(one.run)))
                assert tongue.text(again) == script.text, where
                assert tongue.facts(again) == tongue.facts(frames), where
            polled = await second.get(tongue.run(one.run)) if tongue.run(one.run) != tongue.events(one.run) else None
            assert polled is None or polled.status_code == 200, where
            if name in ("org_chat", "org_agents"):
                assert tongue.said(polled) == tongue.answered(*script.turns), where  # type: ignore[arg-type]
            shown = await history(name, system, second, one.thread)
            if name != "org_chat" or one.by.name == "org_chat":
                assert shown[-2:] == [("user", script.asked), ("assistant", script.text)], where
        # The same request again, to be answered with the text, and as a stream: no other run.
        deeds = [one.by.waiting(script.asked), one.by.message(script.asked)]
        if thread is not None and one.by.name in IN:
            deeds = [IN[one.by.name](deed, thread) for deed in deeds]
        key = {"Idempotency-Key": one.key}
        waited = await send(second, deeds[0], **key)
        assert (waited.status_code, waited.headers["idempotency-replayed"]) == (200, "true"), waited.text
        assert waited.headers["parley-run-id"] == one.run
        assert one.by.said(waited) == one.by.answered(*script.turns)  # type: ignore[arg-type]
        streamed = await collect(
            client, "POST", deeds[1]["path"], json=deeds[1]["body"], headers={**deeds[1].get("headers", {}), **key}
        )
        assert one.by.text(streamed) == script.text


@pytest.mark.parametrize("name", NAMES)
async def test_a_run_begun_in_one_contract_is_streamed_and_fetched_in_every_other(system: System, name: str) -> None:
    async with system.client() as client:
        tongues = {one: await tongue_of(one, system, client) for one in NAMES}
        begun = await begin(client, tongues[name], 120)
        async with followed(system, tongues, [begun]) as tasks:
            await asyncio.gather(*tasks)
        await told_alike(system, tongues, begun)


async def test_a_takeover_in_mid_stream_is_seen_in_no_contract(system: System) -> None:
    """Runs under one dispatcher, each begun in another contract and followed in all of them, when it dies."""
    ready = system.ready()
    node = default_thread(ready["workspace_id"], ready["workspace_id"], AGENT)
    log = await read_topic(ready["kafka"], "parley.events")
    owners = {partition: owner_pid(log, partition) for partition in range(8)}
    victim = owners[partition_of(node.encode(), 8)]
    async with system.client() as client, system.client(1) as second:

        async def of_the_victim() -> str:
            while True:
                thread = await new_thread(client, AGENT)
                if owners[partition_of(thread.encode(), 8)] == victim:
                    return thread

        tongues = {name: await tongue_of(name, system, client) for name in NAMES}
        threads = {name: node if name == "org_chat" else await of_the_victim() for name in NAMES}
        begun = [await begin(second, tongues[name], 300, threads[name]) for name in NAMES]
        async with followed(system, tongues, begun) as tasks:
            kill(victim)
            await asyncio.gather(*tasks)
        for one in begun:
            await told_alike(system, tongues, one, one.thread)
            attempts = [frame.data["attempt"] for frame in one.seen["threads"] if frame.type == "model.called"]
            assert max(attempts) >= 2, "nothing was taken over"


async def test_a_conversation_goes_through_every_contract(system: System) -> None:
    """Begun in each of them, gone on with in the others at another gateway, read in all."""
    async with system.client() as client, system.client(1) as second:
        tongues = {name: await tongue_of(name, system, client) for name in NAMES}
        for first in NAMES:
            opened = await send(client, tongues[first].waiting(f"/text {first}"))
            assert opened.status_code == 200, opened.text
            thread = opened.headers["parley-run-id"][:36]
            said = [("user", f"/text {first}"), ("assistant", first)]
            for turn, name in enumerate(sorted(IN.keys() & set(NAMES))):
                text = f"after {first} {name}"
                deed = IN[name](tongues[name].waiting(f"/text {text}"), thread)
                answer = await send((second, client)[turn % 2], deed)
                assert answer.status_code == 200, (first, name, answer.text)
                assert tongues[name].said(answer) == text  # type: ignore[arg-type]
                assert answer.headers["parley-run-id"].startswith(thread)
                said += [("user", f"/text {text}"), ("assistant", text)]
            for name in NAMES:
                if name != "org_chat" or first == "org_chat":

                    async def whole(name: str = name, thread: str = thread, said: list[Row] = said) -> bool:
                        # The last word may have been the other gateway's, which this one has not heard of yet.
                        return (await history(name, system, second, thread))[-len(said) :] == said

                    assert await eventually(whole), (first, name)


async def test_a_cancel_in_one_contract_ends_the_run_in_every_other(system: System) -> None:
    async with system.client() as client, system.client(1) as second:
        tongues = {one: await tongue_of(one, system, client) for one in NAMES}
        begun = await begin(client, tongues["tool_chat"], 1000)
        async with followed(system, tongues, [begun]) as tasks:
            stopped = await second.post(f"/api/v1/chat/runs/{begun.run}/cancel", json={})
            assert stopped.status_code == 200, stopped.text
            await asyncio.gather(*tasks)
        texts = {tongues[name].text(begun.seen[name]) for name in NAMES}
        [said] = texts
        assert begun.script.text.startswith(said) and len(said) >= BEGUN
        for name in NAMES:
            ends = [frame.type for frame in begun.seen[name] if frame.type in tongues[name].ends.values()]
            assert ends == [tongues[name].ends["cancelled"]] == [begun.seen[name][-1].type], name
        for name in set(NAMES) - {"org_chat"}:
            assert (await history(name, system, second, begun.thread))[-1] == ("assistant", said), name


async def test_the_clients_tool_is_asked_for_in_one_contract_and_answered_in_another(system: System) -> None:
    """Both ways between the two contracts that have a word for it; the others see the result."""
    asked = '/text Let me look. \n/tool get_weather {"location": "Tokyo"}\n/text Clear.'
    async with system.client() as client, system.client(1) as second:
        tongues = {one: await tongue_of(one, system, client) for one in ("threads", "tool_chat")}
        native = (await send(client, {**tongues["threads"].waiting(asked), "params": {"wait": "20"}})).json()
        [call] = native["pending"]
        result = {"role": "tool", "tool_call_id": call, "content": "21 °C", "conversation_id": native["thread_id"]}
        answered = await second.post(f"/api/agents/{AGENT}/chat", json=result)
        assert (answered.status_code, answered.json()["content"]) == (200, "Clear."), answered.text
        frames = await collect(second, "GET", tongues["threads"].events(native["run_id"]))
        assert tongues["threads"].text(frames) == "Let me look. Clear."

        turn = await send(client, tongues["tool_chat"].waiting(asked))
        [call] = [one["id"] for one in turn.json()["tool_calls"]]
        run = turn.headers["parley-run-id"]
        given = await second.post(
            f"/api/v1/chat/runs/{run}/tools/{call}", json={"content": "21 °C"}, params={"wait": "20"}
        )
        assert given.json()["message"]["content"] == "Let me look. Clear.", given.text
        rows = await history("tool_chat", system, client, run[:36])
        assert rows[-1] == ("assistant", "Clear."), rows


async def test_an_agent_is_known_by_its_uuid_in_every_contract(system: System) -> None:
    named = agent_uuid(system.ready()["workspace_id"], AGENT)
    async with system.client() as client:
        for name in NAMES:
            tongue = await tongue_of(name, system, client)
            for attribute in ("chat", "node"):
                if hasattr(tongue, attribute):
                    value = getattr(tongue, attribute)
                    other = {**value, "role_id": named} if attribute == "node" else value.replace(AGENT, named)
                    setattr(tongue, attribute, other)
            if name == "threads":
                made = await client.post("/api/v1/chat/threads", json={"agent_id": named})
                assert made.json()["agent_id"] == named
                tongue = await tongue_of(name, system, client)
                tongue.thread = made.json()["id"]  # type: ignore[attr-defined]
            answer = await send(client, tongue.waiting("/text By its UUID."))
            assert (answer.status_code, tongue.said(answer)) == (200, "By its UUID."), (name, answer.text)  # type: ignore[arg-type]
            run = answer.headers["parley-run-id"]
            frames = await collect(client, "GET", tongue.events(run))
            assert tongue.text(frames) == "By its UUID.", name

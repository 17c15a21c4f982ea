"""A run as a stubborn client follows it, and what must be true of it once it has ended, whatever broke meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2

from tests.support.sse import Frame, text_of
from tests.support.system import System, eventually, stream
from tests.support.topics import Record, believed, read_topic

ENDS = ("run.completed", "run.failed", "run.cancelled")


async def follow(
    system: System, run_id: str, gateway: int = 0, seen: list[Frame] | None = None, *, limit_s: float = 90.0
) -> list[Frame]:
    """All frames of a run, from the last id of `seen` on: whenever the stream breaks off, or is refused for now, it
    is taken up at the next gateway by the last id. `seen` grows as frames come."""
    frames: list[Frame] = [] if seen is None else seen
    async with asyncio.timeout(limit_s):
        while not frames or frames[-1].type not in ENDS:
            last = next((frame.id for frame in reversed(frames) if frame.id), None)
            headers = {"Last-Event-ID": last} if last else {}
            try:
                async with (
                    system.client(gateway, timeout_s=20.0) as client,
                    stream(client, "GET", f"/api/v1/chat/runs/{run_id}/events", headers=headers) as (_, more),
                ):
                    async for frame in more:
                        frames.append(frame)  # noqa: PERF401 - it grows as frames come
            except httpx2.TransportError:
                pass
            except AssertionError as refused:
                if not str(refused).startswith("503"):
                    raise
            if not frames or frames[-1].type not in ENDS:
                gateway = (gateway + 1) % len(system.ready()["gateways"])
                await asyncio.sleep(0.1)
    return frames


async def until(seen: list[Frame], reached: Callable[[list[Frame]], bool], limit_s: float = 40.0) -> None:
    """Wait until what a follower has seen satisfies `reached`."""

    async def check() -> bool:
        return reached(seen)

    await eventually(check, limit_s)


async def post(
    system: System, thread: str, content: str, gateway: int = 0, *, key: str | None = None, limit_s: float = 60.0
) -> dict[str, Any]:
    """Post a message and say what was answered. With a key it is tried again until it is accepted."""
    headers = {} if key is None else {"Idempotency-Key": key}

    async def once() -> dict[str, Any]:
        async with system.client(gateway, timeout_s=20.0) as client:
            answer = await client.post(
                f"/api/v1/chat/threads/{thread}/messages", json={"content": content}, headers=headers
            )
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return await once() if key is None else dict(await eventually(once, limit_s))


async def facts_of(system: System, thread: str, gateway: int = 0, limit_s: float = 40.0) -> list[dict[str, Any]]:
    """All facts of a thread as PostgreSQL has them."""

    async def page() -> list[dict[str, Any]]:
        async with system.client(gateway, timeout_s=20.0) as client:
            answer = await client.get(
                f"/api/v1/chat/threads/{thread}/events",
                headers={"Accept": "application/json"},
                params={"limit": "200"},
            )
        assert answer.status_code == 200, answer.text
        assert answer.json()["next_cursor"] is None
        return list(answer.json()["items"])

    return list(await eventually(page, limit_s))


async def check_run(system: System, run_id: str, frames: list[Frame], text: str) -> list[dict[str, Any]]:
    """The run ended once and well: what was followed, what is stored and what is on the log say the same, each fact
    is there once, and every command has one outcome. Gives the thread's facts as stored."""
    thread = run_id[:36]
    assert text_of(frames) == text
    shown = [frame.data["seq"] for frame in frames if not frame.type.endswith((".delta", ".restarted"))]
    assert shown == sorted(set(shown)), "a fact was shown twice, or out of its order"
    assert [frame.type for frame in frames if frame.type in ENDS] == ["run.completed"] == [frames[-1].type]

    async def stored() -> list[dict[str, Any]]:
        facts = await facts_of(system, thread)
        assert facts[-1]["seq"] >= frames[-1].data["seq"], "the view has not come to the end yet"
        return facts

    facts: list[dict[str, Any]] = await eventually(stored, 40.0)
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1)), "the facts are not dense"
    own = [fact for fact in facts if fact["run_id"] == run_id]
    assert [fact["type"] for fact in own if fact["type"] in ENDS] == ["run.completed"]
    assert [fact["seq"] for fact in own] == shown
    for kind in ("tool.called", "tool.returned"):
        calls = [fact["tool_call"]["id"] for fact in own if fact["type"] == kind]
        assert len(calls) == len(set(calls)), f"a {kind} was repeated"
    async with system.client(timeout_s=20.0) as client:
        listed = await client.get(f"/api/v1/chat/threads/{thread}/messages", params={"limit": "200"})
    answers = [m for m in listed.json()["items"] if m["role"] == "assistant" and m["run_id"] == run_id]
    assert [message["content"] for message in answers] == [text]
    log = [record for record in believed(await read_topic(*_events(system))) if record.head("ce_subject") == thread]
    assert [(record.head("ce_seq"), record.type) for record in log if record.head("ce_seq")] == [
        (str(fact["seq"]), fact["type"]) for fact in facts
    ]
    check_outcomes(log)
    return facts


def check_outcomes(log: list[Record]) -> None:
    """No command has two outcomes (a `command.repeated` points to the first one, and is none)."""
    causes = [r.head("ce_causationid") for r in log if r.head("ce_causationid") and r.type != "command.repeated"]
    assert len(causes) == len(set(causes)), "a command has two outcomes"


def _events(system: System) -> tuple[str, str]:
    return str(system.ready()["kafka"]), "parley.events"

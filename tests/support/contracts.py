"""Every contract over HTTP to a running system: the tongues of `tests/contract/dialects`, and what only a whole system
has: saying something in a thread that another contract made, and the history of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from tests.contract.dialects.tongues import TONGUES, OrgChat, Threads, Tongue
from tests.support.sse import Frame
from tests.support.system import System, new_thread, stream

AGENT = "scripted"
Row = tuple[str, str]
Deed = dict[str, Any]


async def tongue_of(name: str, system: System, client: httpx2.AsyncClient) -> Tongue:
    """A contract, ready to say something to the agent `scripted`."""
    tongue = TONGUES[name]()
    if isinstance(tongue, Threads):
        tongue.thread = await new_thread(client, AGENT)
    elif isinstance(tongue, OrgChat):
        tongue.node = {"structure_id": system.ready()["workspace_id"], "role_id": AGENT}
    return tongue


async def send(client: httpx2.AsyncClient, deed: Deed, **headers: str) -> httpx2.Response:
    """Do it, and wait for the whole answer."""
    heads = {**deed.get("headers", {}), **headers}
    return await client.request(
        deed["method"], deed["path"], json=deed.get("body"), params=deed.get("params"), headers=heads
    )


def later(tongue: Tongue, text: str) -> Deed:
    """A message that is answered at once, with the run's id."""
    return {**tongue.waiting(text), "params": {"wait": "0"}}


def _named(field: str) -> Callable[[Deed, str], Deed]:
    return lambda deed, thread: {**deed, "body": {**deed["body"], field: thread}}


IN: dict[str, Callable[[Deed, str], Deed]] = {
    "threads": lambda deed, thread: {**deed, "path": f"/api/v1/chat/threads/{thread}/messages"},
    "org_agents": _named("sessionId"),
    "tool_chat": _named("conversation_id"),
    "team_chat": _named("conversation_id"),
}
"""How a message says which thread it belongs to. In `org_chat` it cannot: a node has one."""


async def _messages(client: httpx2.AsyncClient, path: str, field: str, **params: str) -> list[Any]:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()[field]
    return found


async def _of_the_node(client: httpx2.AsyncClient, thread: str, structure: str) -> list[Any]:
    answer = await client.get("/api/org/chat/history", params={"structure_id": structure, "role_id": AGENT})
    assert answer.status_code == 200, answer.text
    rows: list[Any] = answer.json()
    return [row for row in reversed(rows) if row["run_id"].startswith(thread)]


HISTORIES: dict[str, Callable[[httpx2.AsyncClient, str, str], Awaitable[list[Any]]]] = {
    "threads": lambda client, thread, _: _messages(
        client, f"/api/v1/chat/threads/{thread}/messages", "items", limit="200"
    ),
    "org_agents": lambda client, thread, _: _messages(
        client, f"/api/v3/organizations/default/ai/sessions/{thread}", "messages"
    ),
    "tool_chat": lambda client, thread, _: _messages(
        client, f"/api/agents/{AGENT}/chat", "messages", conversation_id=thread
    ),
    "team_chat": lambda client, thread, _: _messages(
        client, f"/agents/{AGENT}/history", "messages", conversation_id=thread
    ),
    "org_chat": _of_the_node,
}
"""How each contract reads what was said in a thread, oldest first: from the thread's id and the workspace's."""


async def history(name: str, system: System, client: httpx2.AsyncClient, thread: str) -> list[Row]:
    """Who said what in a thread, as a contract tells it; `org_chat` has nothing of a thread that is not its node's."""
    rows = await HISTORIES[name](client, thread, system.ready()["workspace_id"])
    return [(row["role"], row["content"]) for row in rows if row["role"] in ("user", "assistant")]


def told(frames: list[Frame]) -> list[Frame]:
    """Those that tell something of the run: without the word with which a contract closes its streams."""
    return [frame for frame in frames if isinstance(frame.data, dict)]


async def follow(
    system: System, tongue: Tongue, run: str, seen: list[Frame], gateway: int = 0, limit_s: float = 90.0
) -> list[Frame]:
    """All frames of a run in one contract; `seen` grows as they come. A stream that breaks off, or is refused for now,
    is taken up at the next gateway by the last id."""
    ends = set(tongue.ends.values())
    async with asyncio.timeout(limit_s):
        while not seen or seen[-1].type not in ends:
            last = next((frame.id for frame in reversed(seen) if frame.id), None)
            headers = {"Last-Event-ID": last} if last else {}
            try:
                async with (
                    system.client(gateway, timeout_s=20.0) as client,
                    stream(client, "GET", tongue.events(run), headers=headers) as (_, frames),
                ):
                    async for frame in frames:
                        seen += told([frame])
            except httpx2.TransportError:
                pass
            except AssertionError as refused:
                if not str(refused).startswith("503"):
                    raise
            if not seen or seen[-1].type not in ends:
                gateway = (gateway + 1) % len(system.ready()["gateways"])
                await asyncio.sleep(0.1)
    return seen

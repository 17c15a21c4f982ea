"""A whole Parley for a test: `parley up` or `parley cluster`, as users start it, in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support.processes import port_of
from tests.support.sse import Frame, frames_of

START_S = 120.0
PARLEY = Path(sys.executable).with_name("parley")


@dataclass(slots=True)
class System:
    """A running Parley; `ready()` reads its READY file anew (pids change when a part is started again)."""

    kind: str
    folder: Path
    process: subprocess.Popen[bytes]

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "ready.json").read_text())
        return found

    def pid(self, service: str, index: int = 0) -> int:
        return int(self.ready()["pids"][service][index])

    def url(self, service: str, index: int = 0) -> str:
        """Where a service's process listens."""
        return f"http://127.0.0.1:{port_of(self.pid(service, index))}"

    def client(self, gateway: int = 0, key: str | None = None, timeout_s: float = 60.0) -> httpx2.AsyncClient:
        """An HTTP client of one gateway, with the ready-made key."""
        ready = self.ready()
        return httpx2.AsyncClient(
            base_url=ready["gateways"][gateway],
            headers={"Authorization": f"Bearer {key or ready['api_key']}"},
            timeout=timeout_s,
            trust_env=False,
        )


def start(kind: str, folder: Path, prefix: Sequence[str] = (), **settings: str) -> System:
    """Start `parley <kind>` in `folder` (its DATA is kept between starts) and wait until it answers.

    `prefix`: the words of a program that becomes `parley`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    no_model = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "PARLEY_MODEL": ""}
    env = {**os.environ, **no_model, "PORT": "0", "DATA": str(folder / "data"), "READY": str(ready), **settings}
    with (folder / "screen.txt").open("ab") as screen:
        process = subprocess.Popen([*prefix, str(PARLEY), kind], env=env, stdout=screen, stderr=subprocess.STDOUT)
    until = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"parley {kind} did not come up:\n{(folder / 'screen.txt').read_text()[-4000:]}")
        time.sleep(0.05)
    return System(kind, folder, process)


def stop(system: System, limit_s: float = 30.0) -> int:
    """Ctrl-C; the exit status. A Parley that does not stop in time is killed, and the test fails."""
    system.process.send_signal(signal.SIGINT)
    try:
        return system.process.wait(limit_s)
    except subprocess.TimeoutExpired:
        system.process.kill()
        system.process.wait()
        raise AssertionError(f"parley {system.kind} did not stop within {limit_s:g} s") from None


@asynccontextmanager
async def stream(
    client: httpx2.AsyncClient, method: str, url: str, **options: Any
) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[Frame]]]:
    """An open stream: the response (its status checked) and its frames."""
    headers = {"Accept": "text/event-stream", **options.pop("headers", {})}
    async with client.stream(method, url, headers=headers, **options) as response:
        if response.status_code >= 400:
            await response.aread()
            raise AssertionError(f"{response.status_code}: {response.text}")
        yield response, frames_of(response)


async def collect(client: httpx2.AsyncClient, method: str, url: str, **options: Any) -> list[Frame]:
    """Every frame of a stream, until the server ends it."""
    async with stream(client, method, url, **options) as (_, frames):
        return [frame async for frame in frames]


async def new_thread(client: httpx2.AsyncClient, agent_id: str = "scripted") -> str:
    answer = await client.post("/api/v1/chat/threads", json={"agent_id": agent_id})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def eventually(check: Any, limit_s: float = 20.0) -> Any:
    """What `check` (an async function) gives as soon as that is true; fails after the limit."""
    until = asyncio.get_running_loop().time() + limit_s
    last: Any = None
    while asyncio.get_running_loop().time() < until:
        try:
            last = await check()
        except (AssertionError, httpx2.HTTPError) as error:
            last = error
        else:
            if last:
                return last
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {limit_s:g} s; last: {last!r}")

"""HTTP, as the `parley` command speaks it: the only importer of httpx2 in this package."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2

from parley_standalone.errors import CommandError
from parley_standalone.folder import is_held
from parley_standalone.settings import Settings

_LIMIT_S = 60.0
_REFUSED_S = 5.0


def in_process(app: Any) -> httpx2.AsyncBaseTransport:
    """A transport that calls an ASGI application directly."""
    return httpx2.ASGITransport(app, raise_app_exceptions=False)


async def wait_until_served(base_url: str, key: str, agents: list[str]) -> bool:
    """Until the gateway lets the key in and shows the agents. False: it steadily refuses the key, so somebody has
    revoked it. Raises CommandError after a minute."""
    loop = asyncio.get_running_loop()
    async with httpx2.AsyncClient(base_url=base_url, timeout=5.0, trust_env=False) as client:
        until, refused_since = loop.time() + _LIMIT_S, loop.time()
        seen = "nothing"
        while loop.time() < until:
            try:
                answer = await client.get(
                    "/api/v1/agents", params={"limit": "200"}, headers={"Authorization": f"Bearer {key}"}
                )
                seen = str(answer.status_code)
                if answer.status_code == 200:
                    shown = {agent["id"] for agent in answer.json()["items"]}
                    if shown.issuperset(agents):
                        return True
                if answer.status_code != 401:
                    refused_since = loop.time()
                elif loop.time() - refused_since > _REFUSED_S:
                    return False
            except httpx2.HTTPError as error:
                seen = type(error).__name__
            await asyncio.sleep(0.02)
    raise CommandError(f"the gateway at {base_url} did not answer within a minute (last: {seen}); see its log")


async def is_ready(url: str) -> bool:
    """Whether a service's /readyz says yes."""
    async with httpx2.AsyncClient(timeout=2.0, trust_env=False) as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False


def running(data: Path) -> dict[str, Any]:
    """What READY says of the Parley that runs on the folder. Raises CommandError when none does."""
    try:
        if is_held(data):
            found: dict[str, Any] = json.loads((data / "ready.json").read_text())
            return found
    except PermissionError as error:
        raise CommandError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (OSError, ValueError):
        raise CommandError(f"the Parley on {data} is starting or stopping: try again in a moment") from None
    raise CommandError(f"no Parley runs on {data}: start one, name its DATA=, or set PARLEY_URL and PARLEY_KEY")


class Admin:
    """The administration API of a running Parley: the one of `DATA`, or `PARLEY_URL` with `PARLEY_KEY`."""

    def __init__(self, settings: Settings) -> None:
        if settings.url and settings.key:
            self._url, self._key = settings.url, settings.key
            return
        ready = running(settings.data)
        self._url, self._key = settings.url or ready["base_url"], settings.key or ready["admin_key"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """The answer's JSON (None when it has none). Raises CommandError with the server's own words."""
        try:
            answer = httpx2.request(
                method,
                f"{self._url}/api/v1{path}",
                json=body,
                params=query,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=30.0,
                trust_env=False,
            )
        except httpx2.HTTPError as error:
            raise CommandError(f"{self._url} cannot be reached ({type(error).__name__})") from None
        if answer.status_code >= 400:
            try:
                problem = answer.json()["error"]
                message = problem["message"] if isinstance(problem, dict) else answer.json()["message"]
            except (ValueError, KeyError, TypeError):
                message = " ".join(answer.text.split())[:200]
            raise CommandError(f"refused ({answer.status_code}): {message}")
        return answer.json() if answer.content else None

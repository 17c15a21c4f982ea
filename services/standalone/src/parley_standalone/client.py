"""HTTP, as the `parley` command speaks it: the only importer of httpx2 in this package."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2

from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings

_LIMIT_S = 60.0


def in_process(app: Any) -> httpx2.AsyncBaseTransport:
    """A transport that calls an ASGI application directly."""
    return httpx2.ASGITransport(app, raise_app_exceptions=False)


async def wait_until_served(base_url: str, key: str, agents: list[str]) -> None:
    """Until the gateway lets the key in and shows the agents. Raises CommandError after a minute."""
    async with httpx2.AsyncClient(base_url=base_url, timeout=5.0, trust_env=False) as client:
        until = asyncio.get_running_loop().time() + _LIMIT_S
        seen = "nothing"
        while asyncio.get_running_loop().time() < until:
            try:
                answer = await client.get(
                    "/api/v1/agents", params={"limit": "200"}, headers={"Authorization": f"Bearer {key}"}
                )
                seen = str(answer.status_code)
                if answer.status_code == 200:
                    shown = {agent["id"] for agent in answer.json()["items"]}
                    if shown.issuperset(agents):
                        return
            except httpx2.HTTPError as error:
                seen = type(error).__name__
            await asyncio.sleep(0.02)
    raise CommandError(f"the gateway at {base_url} did not answer within a minute (last: {seen}); see its log")


async def wait_until_ready(url: str, limit_s: float) -> bool:
    """Whether a service's /readyz says yes within the limit."""
    async with httpx2.AsyncClient(timeout=2.0, trust_env=False) as client:
        until = asyncio.get_running_loop().time() + limit_s
        while asyncio.get_running_loop().time() < until:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return True
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(0.05)
    return False


class Admin:
    """The administration API of a running Parley: the one of `DATA`, or `PARLEY_URL` with `PARLEY_KEY`."""

    def __init__(self, settings: Settings) -> None:
        if settings.url and settings.key:
            self._url, self._key = settings.url, settings.key
            return
        file = Path(settings.data) / "ready.json"
        try:
            ready = json.loads(file.read_text())
        except (OSError, ValueError):
            raise CommandError(
                f"no Parley runs on {settings.data}: start one, name its DATA=, or set PARLEY_URL and PARLEY_KEY"
            ) from None
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
                message = answer.text[:200]
            raise CommandError(f"refused ({answer.status_code}): {message}")
        return answer.json() if answer.content else None

"""HTTP, as the `parley` command speaks it: the only importer of httpx2 in this package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from parley_standalone.errors import CommandError
from parley_standalone.folder import is_held
from parley_standalone.settings import Settings

_LIMIT_S = 60.0
_REFUSED_S = 5.0
_SILENCE_S = 45.0
"""A stream that says nothing this long is dead: an idle one has a comment every 15 seconds."""
_PART = 64 * 1024
_MOST_LINE = 64 * 1024 * 1024


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
                answer = await _agents(client, key, None)
                seen = str(answer.status_code)
                shown: set[str] = set()
                while answer.status_code == 200:
                    page = answer.json()
                    shown |= {agent["id"] for agent in page["items"]}
                    if shown.issuperset(agents):
                        return True
                    if page.get("next_cursor") is None:
                        break
                    answer = await _agents(client, key, page["next_cursor"])
                if answer.status_code == 429:
                    return True  # it is let in, only not so often
                if answer.status_code != 401:
                    refused_since = loop.time()
                elif loop.time() - refused_since > _REFUSED_S:
                    return False
            except httpx2.HTTPError as error:
                seen = type(error).__name__
            await asyncio.sleep(0.02)
    raise CommandError(f"the gateway at {base_url} did not answer within a minute (last: {seen}); see its log")


async def _agents(client: httpx2.AsyncClient, key: str, cursor: str | None) -> httpx2.Response:
    """A page of the agents."""
    params = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
    return await client.get("/api/v1/agents", params=params, headers={"Authorization": f"Bearer {key}"})


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
            raise CommandError(f"refused ({answer.status_code}): {_problem(answer)[1]}")
        return answer.json() if answer.content else None


class Refused(CommandError):
    """A gateway said no; the message is its own sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Unreached(CommandError):
    """No answer, one that broke off, or "not now": what was asked may be tried again, at another gateway."""


class Answer:
    """An open answer: its status, its headers, and its lines as they come."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self.streams = response.headers.get("content-type", "").startswith("text/event-stream")

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    async def json(self) -> Any:
        return json.loads(await self._response.aread())

    async def whole(self) -> bytes:
        """All of it, as it is."""
        return await self._response.aread()

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines, without their ends. Only LF ends a line: a text may hold other characters that break one."""
        rest = b""
        async for part in self._response.aiter_raw():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > _MOST_LINE:
                raise Unreached("the gateway sent a line without an end")
            for line in lines:
                yield line


class Api:
    """One gateway's API, asynchronously. Close it in the end."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        try:
            self._client = httpx2.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"},
                timeout=httpx2.Timeout(_SILENCE_S, connect=5.0),
                trust_env=False,
                # Certificates take longer to load than a list of threads to fetch.
                verify=not url.startswith("http://"),
            )
        except (httpx2.InvalidURL, ValueError):
            raise CommandError(f"{url} is no address, or the key is none") from None

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        sent: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Answer]:
        """Ask. `sent` is told how much of the body is on its way. Raises Refused or Unreached, also for what breaks
        while the answer is read."""
        heads = dict(headers or {})
        if body is not None:
            heads |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        content = None if body is None else _parts(body, sent)
        try:
            async with self._client.stream(
                method, path, params=dict(query or {}), headers=heads, content=content
            ) as response:
                if response.status_code >= 400:
                    await response.aread()
                    code, message = _problem(response)
                    if response.status_code in (502, 503, 504):
                        raise Unreached(f"{self.url} says: {message}")
                    raise Refused(response.status_code, code, message)
                yield Answer(response)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Unreached(f"{self.url} cannot be reached ({type(error).__name__})") from None
        except httpx2.InvalidURL:
            raise CommandError(f"{self.url} is no address") from None


async def _parts(body: bytes, sent: Callable[[int], None] | None) -> AsyncIterator[bytes]:
    for at in range(0, len(body), _PART):
        yield body[at : at + _PART]
        if sent is not None:
            sent(min(at + _PART, len(body)))


def _problem(answer: httpx2.Response) -> tuple[str, str]:
    """The code and the sentence of a refusal, on one line."""
    try:
        body = answer.json()
        problem = body["error"]
        if isinstance(problem, dict):
            return str(problem.get("code", "")), " ".join(str(problem["message"]).split())
        return str(problem), " ".join(str(body["message"]).split())
    except (ValueError, KeyError, TypeError):
        return "", " ".join(answer.text.split())[:200]

"""Claude, or any server that speaks the Messages API: one attempt at a turn, streamed. The only importer of anthropic.

The SDK makes the call (address, version, errors by status) and retries nothing; the stream is read here, since the
SDK's typed events cost several times what is done with them. Beside it: `wire` (what is sent), `files` (what is shown
by reference), `reading` (what comes back).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import anthropic
import httpx2
import orjson

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers.base import Event, Request
from parley_dispatcher.providers.files import load_files, weight_of
from parley_dispatcher.providers.reading import FINAL, Reading
from parley_dispatcher.providers.wire import Wire, to_wire
from parley_events.body import Json
from parley_events.clock import Clock
from parley_events.objects import Objects

BASE_URL = "https://api.anthropic.com"
MAX_WAIT_MS = 300_000
"""The longest pause that a server may ask for; what it asks beyond that is not its to decide."""
PATIENCE = 10
"""How many times the stall limit a stream may go on with pings alone. A model that keeps its thoughts to itself sends
nothing else for minutes, so pings are life; but a server that is stuck behind its own front sends them for ever."""
LARGE_AT_ONCE = 8
"""How many calls with more than `LARGE_BYTES` of files are under way at once: each is in memory several times over."""
LARGE_BYTES = 1024 * 1024
_CONNECT_S = 10.0
_DRAIN_S = 0.2
_MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024
"""How much of a refusal is read: the SDK reads all of it, and a server may go on for ever."""
_WITH_TEMPERATURE = "2023-06-01"
"""The last version of the API that takes a temperature."""
_SENT = ("host", "accept", "connection", "user-agent", "content-type", "content-length", "anthropic-version")
"""The headers that go out, and `x-api-key`: nothing that the SDK finds in the environment goes to a server beside."""


class Claude:
    """The provider of every model but `scripted`.

    `api_key` is sent to `base_url` alone; an agent with a server of its own has a key of its own (`api_key: env:NAME`,
    looked up by `secret_of`), or none.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        api_key: str,
        base_url: str,
        stall_s: float,
        secret_of: Callable[[str], str | None],
        clock: Clock,
    ) -> None:
        self._objects, self._key, self._stall_s = objects, api_key, stall_s
        self._base_url = (base_url or BASE_URL).rstrip("/")
        self._needs_key = not base_url
        self._secret_of, self._clock = secret_of, clock
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._clients: dict[tuple[str, str], anthropic.AsyncAnthropic] = {}

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        base_url, key = self._target(request)
        async with contextlib.AsyncExitStack() as stack:
            if weight_of(request.messages) > LARGE_BYTES:
                await stack.enter_async_context(self._large)
            refused = request.after == "files"
            shown = await load_files(request.messages, request.workspace_id, self._objects, refused=refused)
            wire = to_wire(request, shown)
            reading = Reading(lambda name: wire.names.get(name, name))
            try:
                async with asyncio.timeout(PATIENCE * self._stall_s):
                    stream = await stack.enter_async_context(await self._open(base_url, key, wire))
                async for event in self._events(stream.response.aiter_bytes(), reading):
                    for told in reading.take(event):
                        yield told
            except ModelError as error:
                raise _without(key, error) from error.__cause__
            except anthropic.APIStatusError as error:
                raise _without(key, self._refused(error, wire)) from None
            except (anthropic.APIConnectionError, httpx2.HTTPError, TimeoutError) as error:
                raise self._lost(error, reading) from None
            except anthropic.AnthropicError as error:
                raise reading.garbled(type(error).__name__) from None

    def _target(self, request: Request) -> tuple[str, str]:
        """Where the call goes, and the key that goes with it ("": none)."""
        own = (request.base_url or self._base_url).rstrip("/")
        if request.api_key is not None:
            key = self._secret_of(request.api_key)
            if not key:
                raise ModelError("401", f"the agent's key is not set ({request.api_key})", retry=False)
            if own != self._base_url and key == self._key:
                raise ModelError("401", "the main key is not sent to an agent's own base_url", retry=False)
            return own, key
        if own != self._base_url:
            return own, ""
        if not self._key and self._needs_key:
            raise ModelError(
                "401",
                f"the model {request.model!r} needs a key: set ANTHROPIC_API_KEY, or let the agent run on `scripted`",
                retry=False,
            )
        return own, self._key

    def _client(self, base_url: str, key: str) -> anthropic.AsyncAnthropic:
        found = self._clients.get((base_url, key))
        if found is None:

            async def only_ours(request: httpx2.Request) -> None:
                for name in [name for name in request.headers if name.lower() not in _SENT]:
                    del request.headers[name]
                if key:
                    request.headers["x-api-key"] = key

            # As many connections as there are runs; no redirects, which would take the key elsewhere.
            http = anthropic.DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(self._stall_s, connect=min(_CONNECT_S, self._stall_s), pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
                follow_redirects=False,
                event_hooks={"request": [only_ours], "response": [_bound]},
            )
            # Any credential that is named keeps the SDK from looking for one; what is sent, the hook decides.
            found = self._clients[(base_url, key)] = anthropic.AsyncAnthropic(
                api_key="none", base_url=base_url, max_retries=0, http_client=http, open_telemetry=False
            )
        return found

    async def _open(self, base_url: str, key: str, wire: Wire) -> anthropic.AsyncStream[Any]:
        options: dict[str, Any] = {}
        if wire.temperature is not None:
            options["extra_body"] = {"temperature": wire.temperature}
            options["extra_headers"] = {"anthropic-version": _WITH_TEMPERATURE}
        opened: anthropic.AsyncStream[Any] = await self._client(base_url, key).messages.create(
            **wire.body, **options, stream=True
        )
        return opened

    async def _events(self, chunks: AsyncIterator[bytes], reading: Reading) -> AsyncIterator[Json]:
        """The stream's events, parsed, to the one that ends it; the connection is then ready for the next call."""
        clock = asyncio.get_running_loop().time
        buffer, heard_at = b"", clock()
        async for chunk in chunks:
            buffer += chunk
            if b"\r" in buffer:
                buffer = buffer.replace(b"\r\n", b"\n")
            *frames, buffer = buffer.split(b"\n\n")
            heard = False
            for frame in frames:
                event = _parsed(frame, reading)
                if event is not None:
                    heard = heard or event["type"] != "ping"
                    yield event
            if reading.stopped:
                with contextlib.suppress(TimeoutError, httpx2.HTTPError):
                    async with asyncio.timeout(_DRAIN_S):
                        async for _ in chunks:
                            pass
                return
            if heard:
                heard_at = clock()
            elif clock() - heard_at > PATIENCE * self._stall_s:
                message = "the model sent nothing but pings for too long"
                raise ModelError("stall", message, retry=True, usage=reading.usage)
            if len(buffer) > _MAX_EVENT_BYTES:
                raise reading.garbled(f"an event of more than {_MAX_EVENT_BYTES} bytes")
        if not reading.begun:
            raise reading.garbled("it holds no event")
        raise ModelError("cut", "the stream broke off", retry=True, usage=reading.usage)

    def _refused(self, error: anthropic.APIStatusError, wire: Wire) -> ModelError:
        """The failure that an answer's status tells of."""
        status = error.response.status_code
        said = error.api_message[:500] if isinstance(error.api_message, str) else ""
        said = said.encode("utf-8", "replace").decode()  # a lone surrogate would fit no record
        message = f"the model's server answered {status}" + (f": {said}" if said else "")
        kind, retry = str(status), status >= 500 or status in (408, 409, 425, 429)
        if status == 400 and wire.has_files:
            kind, retry = "files", True  # one of them may be what it does not take: once more, without
        wait_ms = _wait_ms(error.response.headers, self._clock()) if retry else None
        return ModelError(kind, message, retry=retry and kind not in FINAL, retry_after_ms=wait_ms)

    def _lost(self, error: Exception, reading: Reading) -> ModelError:
        """The failure behind a connection that did not come about, fell silent, or broke."""
        cause = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else error
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            return ModelError("connect", "the model's server cannot be reached", retry=True)
        if isinstance(cause, httpx2.TimeoutException | TimeoutError):
            message = f"the model said nothing for {self._stall_s:g} s"
            return ModelError("stall", message, retry=True, usage=reading.usage)
        what = type(cause).__name__ if cause is not None else type(error).__name__
        return ModelError("cut", f"the stream broke off ({what})", retry=True, usage=reading.usage)


class _Beginning(httpx2.AsyncByteStream):
    """The first `MAX_REFUSAL_BYTES` of a body."""

    def __init__(self, whole: httpx2.AsyncByteStream) -> None:
        self._whole = whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_REFUSAL_BYTES
        async for chunk in self._whole:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._whole.aclose()


async def _bound(response: httpx2.Response) -> None:
    if response.status_code >= 400 and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Beginning(response.stream)


def _parsed(frame: bytes, reading: Reading) -> Json | None:
    """The event of a frame; None for comments. Its name stands in its data, too."""
    data = b"\n".join(line[5:] for line in frame.split(b"\n") if line.startswith(b"data:"))
    if not data.strip():
        return None
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise reading.garbled("an event is not JSON") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise reading.garbled("an event without a type")
    return event


def _wait_ms(headers: httpx2.Headers, now_ms: int) -> int | None:
    """How long the server asks to wait: in milliseconds, in seconds, or until a date; bounded."""
    text = headers.get("retry-after-ms")
    if text is not None and text.isascii() and text.isdigit():
        return min(int(text[:9]), MAX_WAIT_MS)
    text = headers.get("retry-after", "").strip()
    try:
        wait_ms = float(text) * 1000
    except ValueError:
        try:
            wait_ms = parsedate_to_datetime(text).timestamp() * 1000 - now_ms
        except (ValueError, TypeError, OverflowError):
            return None
    return int(min(max(wait_ms, 0), MAX_WAIT_MS)) if wait_ms == wait_ms else None


def _without(key: str, error: ModelError) -> ModelError:
    """The error without the key, which a server may repeat in its words."""
    if key and key in error.message:
        message = error.message.replace(key, "[the key]")
        return ModelError(
            error.kind, message, retry=error.retry, usage=error.usage, retry_after_ms=error.retry_after_ms
        )
    return error

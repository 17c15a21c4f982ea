"""The native contract as the terminal uses it. Above it: the commands. Below it: `client`, one gateway's HTTP.

Whatever breaks is tried again with a growing pause, at the next gateway of the list, for at most a minute without an
answer. A post carries an idempotency key and a stream goes on after its last id, so nothing is done twice, missed or
shown twice. A gateway that never answered at all is said at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from parley_events.ids import NewUuid
from parley_standalone.client import Answer, Api, Refused, Unreached, running
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings

CHAT = "/api/v1/chat"
DEFAULT_AGENT = "assistant"
LIMIT_S = 60.0
LARGE, BROKEN_MOST = 2**20, 3
"""A post larger than this that breaks off while it is sent is tried so often."""
RETRY_MOST_S = 5.0
"""The longest that a gateway may ask to wait before its stream is taken up at another."""
PAUSE_S = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
ENDS = ("run.completed", "run.failed", "run.cancelled")
ENDED = ("completed", "failed", "cancelled")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a stream, and the line that it came in."""

    id: str | None
    data: Json
    line: str


@dataclass(slots=True)
class Place:
    """Where a stream goes on. `last`: the last id that came, with a frame or alone. `retry_s`: after how long to come
    back, where the gateway said so: it leaves, and ended the stream for that."""

    last: str | None = None
    retry_s: float | None = None

    def headers(self) -> dict[str, str]:
        """What asks for the stream from here on."""
        self.retry_s = None
        after = {} if self.last is None else {"Last-Event-ID": self.last}
        return {"Accept": "text/event-stream", **after}

    def note(self, fields: list[bytes]) -> None:
        """Take in what the lines of one event say of it."""
        for field in fields:
            if field.startswith(b"id: "):
                self.last = field[4:].decode()
            elif field.startswith(b"retry: ") and field[7:].isdigit():
                self.retry_s = min(int(field[7:]) / 1000, RETRY_MOST_S)


class Unknown(CommandError):
    """There is no such thread or run for this key."""


def frame_of(fields: list[bytes]) -> Frame | None:
    """The frame in the lines of one event; None when it holds none (a comment)."""
    event_id, data = None, None
    for field in fields:
        if field.startswith(b"id: "):
            event_id = field[4:].decode()
        elif field.startswith(b"data: "):
            data = field[6:].decode()
    return None if data is None else Frame(event_id, json.loads(data), data)


class Native:
    """See the module. `trouble(text)` is told what is being waited for, `trouble(None)` that it is over."""

    def __init__(
        self,
        settings: Settings,
        new_uuid: NewUuid,
        trouble: Callable[[str | None], None] = lambda _: None,
        *,
        admin: bool = False,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._settings, self._new_uuid, self.trouble, self._limit_s = settings, new_uuid, trouble, limit_s
        self._key_name = "admin_key" if admin else "api_key"
        self._apis: dict[tuple[str, str], Api] = {}
        self._turn = 0
        self._met = False
        self._told: str | None = None

    async def close(self) -> None:
        for api in self._apis.values():
            await api.close()

    # ---- what there is

    async def agents(self) -> list[Json]:
        return list((await self.ask("GET", "/api/v1/agents", query={"limit": "200"}))["items"])

    async def threads(self, limit: int, archived: bool) -> Json:
        query = {"limit": str(limit), "archived": str(archived).lower()}
        return dict(await self.ask("GET", f"{CHAT}/threads", query=query))

    async def thread(self, thread_id: str) -> Json:
        """Raises Unknown when there is none for this key."""
        return await self._thing(f"{CHAT}/threads/{quote(thread_id, safe='')}", f"thread {thread_id}")

    async def run(self, run_id: str) -> Json:
        """Likewise."""
        return await self._thing(f"{CHAT}/runs/{quote(run_id, safe='')}", f"run {run_id}")

    async def _thing(self, path: str, what: str, listed_by: str = "parley threads") -> Json:
        try:
            return dict(await self.ask("GET", path))
        except Refused as refused:
            if refused.status == 404:
                raise Unknown(f"there is no {what} (`{listed_by}` lists yours)") from None
            raise

    async def newest_messages(self, thread_id: str, limit: int) -> list[Json]:
        """The newest messages of a thread, oldest first."""
        path = f"{CHAT}/threads/{quote(thread_id, safe='')}/messages"
        found = await self.ask("GET", path, query={"limit": str(limit), "order": "desc"})
        return list(found["items"])[::-1]

    async def file(self, thread_id: str, name: str) -> bytes:
        """The newest file of the thread with this name. Raises Unknown when there is none."""
        path = f"{CHAT}/threads/{quote(thread_id, safe='')}/files/{quote(name, safe='')}"
        try:
            return bytes(await self.ask("GET", path, read=Answer.whole))
        except Refused as refused:
            if refused.status == 404:
                raise Unknown(f"there is no file {name} in this thread") from None
            raise

    async def facts(self, run_id: str) -> list[Json]:
        """The first facts of a run, as they are stored."""
        path = f"{CHAT}/runs/{quote(run_id, safe='')}/events"
        return list((await self.ask("GET", path, query={"limit": "200"}))["items"])

    async def approvals(self, status: str | None, thread_id: str | None, limit: int) -> Json:
        """A page of them, the newest first."""
        given = {"status": status, "thread_id": thread_id, "limit": str(limit)}
        query = {name: value for name, value in given.items() if value is not None}
        return dict(await self.ask("GET", f"{CHAT}/approvals", query=query))

    async def approval(self, approval_id: str) -> Json:
        """Raises Unknown when there is none for this key."""
        return await self._thing(_approval(approval_id), f"approval {approval_id}", "parley approvals list")

    # ---- what is done

    async def answer(self, approval_id: str, decision: str, comment: str, arguments: Json | None = None) -> Json:
        """Approve or deny. Raises Unknown."""
        body: Json = {"decision": decision}
        body |= {"comment": comment} if comment else {}
        body |= {"arguments": arguments} if arguments is not None else {}
        try:
            return dict(await self.ask("POST", _approval(approval_id), body=body))
        except Refused as refused:
            if refused.status == 404:
                raise Unknown(f"there is no approval {approval_id} (`parley approvals list` shows them)") from None
            raise

    async def result(self, run_id: str, call_id: str, content: str) -> Json:
        """Give the result of a tool that the client runs."""
        path = f"{CHAT}/runs/{quote(run_id, safe='')}/tools/{quote(call_id, safe='')}"
        return dict(await self.ask("POST", path, body={"content": content}))

    async def cancel_thread(self, thread_id: str) -> list[str]:
        """Stop whatever is open in the thread: the runs that were."""
        path = f"{CHAT}/threads/{quote(thread_id, safe='')}/cancel"
        return list((await self.ask("POST", path, body={}))["cancelled"])

    async def new_thread(self, agent_id: str, title: str) -> Json:
        body = {"agent_id": agent_id, "title": title}
        return dict(await self.ask("POST", f"{CHAT}/threads", body=body))

    async def cancel(self, run_id: str) -> Json:
        return dict(await self.ask("POST", f"{CHAT}/runs/{quote(run_id, safe='')}/cancel", body={}))

    async def post(
        self,
        thread_id: str,
        content: str,
        attachments: list[Json],
        *,
        started: Callable[[str], None],
        sent: Callable[[int, int], None] | None = None,
    ) -> AsyncGenerator[Frame, None]:
        """Post a message and follow its run to the end. `started` is told the run's id, `sent` the bytes on their way
        and all of them."""
        message: Json = {"content": content}
        if attachments:
            message["attachments"] = attachments
        body = json.dumps(message).encode()
        headers = {"Accept": "text/event-stream", "Idempotency-Key": self._new_uuid()}
        on_way = 0

        def count(done: int) -> None:
            nonlocal on_way
            on_way = done
            if sent is not None:
                sent(done, len(body))

        broken = 0
        path = f"{CHAT}/threads/{thread_id}/messages"
        run_id: str | None = None
        place = Place()
        patience = self._patience()
        while run_id is None:
            try:
                async with self._api().open("POST", path, headers=headers, body=body, sent=count) as answer:
                    self._reached()
                    run_id = answer.header("parley-run-id") or str((await answer.json())["run_id"])
                    started(run_id)
                    if answer.streams:
                        async for frame in _frames(answer.lines(), place):
                            yield frame
                            if frame.data["type"] in ENDS:
                                return
            except Unreached as error:
                if run_id is None:
                    # A gateway that takes no body of this size closes the connection, and its sentence may be lost.
                    broken += len(body) > LARGE and on_way > 0
                    if broken == BROKEN_MOST:
                        size = f"{len(body) / 2**20:.1f} MiB"
                        raise CommandError(
                            f"{error}, {broken} times while {size} were sent: it may take less (PARLEY_BODY_MB)"
                        ) from None
                    on_way = 0
                    await patience.wait(error)
        if place.retry_s is not None:
            await patience.move(place.retry_s)
        async with aclosing(self.follow_run(run_id, place.last)) as rest:
            async for frame in rest:
                yield frame

    async def follow_run(self, run_id: str, last: str | None = None) -> AsyncGenerator[Frame, None]:
        """A run from its beginning, or from after `last`, to its end."""
        path = f"{CHAT}/runs/{quote(run_id, safe='')}/events"
        async with aclosing(self.follow(path, Place(last))) as frames:
            async for frame in frames:
                yield frame
                if frame.data["type"] in ENDS:
                    return

    async def follow(self, path: str, place: Place) -> AsyncGenerator[Frame, None]:
        """A stream for ever, from a place on, which then says how far it is."""
        patience = self._patience()
        now = asyncio.get_running_loop().time
        while True:
            opened = None
            try:
                async with self._api().open("GET", path, headers=place.headers()) as answer:
                    opened = now()
                    self._reached()
                    async for frame in _frames(answer.lines(), place):
                        patience.fresh()
                        yield frame
                error = Unreached("the gateway ended the stream")
            except Unreached as broken:
                error = broken
            if opened is not None and now() - opened > self._limit_s:
                # It had nothing to say, for long; that was no failure.
                patience.fresh()
            if place.retry_s is not None:
                await patience.move(place.retry_s)
            else:
                await patience.wait(error)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        read: Callable[[Answer], Awaitable[Any]] = Answer.json,
    ) -> Any:
        """The answer to one request, which may be asked again."""
        raw = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Idempotency-Key"] = self._new_uuid()
        patience = self._patience()
        while True:
            try:
                async with self._api().open(method, path, query=query, headers=headers, body=raw) as answer:
                    self._reached()
                    return await read(answer)
            except Unreached as error:
                await patience.wait(error)

    # ---- where

    def _api(self) -> Api:
        """The gateway whose turn it is; READY is read anew, since a Parley that came back may be elsewhere."""
        settings = self._settings
        if settings.url and settings.key:
            urls, key = [settings.url], settings.key
        else:
            try:
                ready = running(settings.data)
            except CommandError as error:
                if not self._met:
                    raise
                raise Unreached(str(error)) from None
            urls = [settings.url] if settings.url else list(ready["gateways"])
            key = settings.key or ready[self._key_name]
        place = (urls[self._turn % len(urls)], key)
        if place not in self._apis:
            self._apis[place] = Api(*place)
        return self._apis[place]

    def _reached(self) -> None:
        self._met = True
        self.tell(None)

    def tell(self, trouble: str | None) -> None:
        """Tell it, once."""
        if trouble != self._told:
            self._told = trouble
            self.trouble(trouble)

    def _patience(self) -> _Patience:
        return _Patience(self)


class _Patience:
    """How long one thing is tried."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._tries = 0
        self._since: float | None = None

    def fresh(self) -> None:
        self._tries, self._since = 0, None

    async def move(self, pause_s: float) -> None:
        """The gateway leaves and asked for this pause: that is no trouble, and the next one takes over."""
        self.fresh()
        self._native._turn += 1
        await asyncio.sleep(pause_s)

    async def wait(self, error: Unreached) -> None:
        """The pause before the next try, at the next gateway. Raises CommandError when it was long enough."""
        native = self._native
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        if not native._met:
            raise error
        if now - self._since > native._limit_s:
            raise CommandError(f"{error}; given up after {native._limit_s:g} s") from None
        native.tell(str(error))
        native._turn += 1
        pause = PAUSE_S[min(self._tries, len(PAUSE_S) - 1)]
        self._tries += 1
        await asyncio.sleep(pause)


def runs_of(messages: list[Json]) -> list[str]:
    """The runs that were asked for in these messages."""
    return list(dict.fromkeys(m["run_id"] for m in messages if m["role"] == "user" and m["run_id"]))


def _approval(approval_id: str) -> str:
    return f"{CHAT}/approvals/{quote(approval_id, safe='')}"


async def _frames(lines: AsyncIterator[bytes], place: Place) -> AsyncGenerator[Frame, None]:
    fields: list[bytes] = []
    async for line in lines:
        if line:
            fields.append(line)
            continue
        with suppress(ValueError):
            place.note(fields)
            frame = frame_of(fields)
            if frame is not None:
                yield frame
        fields = []


__all__ = [
    "CHAT",
    "DEFAULT_AGENT",
    "ENDED",
    "ENDS",
    "Frame",
    "Json",
    "Native",
    "Place",
    "Refused",
    "Unknown",
    "frame_of",
    "runs_of",
]

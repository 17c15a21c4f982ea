"""Transcripts: what was asked, what went onto the log, every byte that came back, compared with a page on record.

The pages lie beside the tests (`transcripts/<name>.txt`); PARLEY_WRITE_GOLDEN=1 writes them anew, to be read by a
person before they are kept. Clock and ids are the test's own, so that nothing in them changes from run to run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson

from parley_events.codec import Command, Fact
from parley_events.commands import MarkRead
from parley_events.ids import NewUuid
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import Dispatcher, World

NOW_MS = 1_767_323_045_678
"""2026-01-02T03:04:05.678Z, for ever."""

SHOWN = ("content-type", "retry-after", "parley-run-id", "idempotency-replayed", "link", "allow", "www-authenticate")
"""The headers that stand in a transcript."""


def clock() -> int:
    return NOW_MS


def counted_uuids() -> NewUuid:
    """UUIDs in a row."""
    numbers = itertools.count(1)
    return lambda: f"00000000-0000-4000-8000-{next(numbers):012d}"


class Stage:
    """Runs that the test plays step by step: `await stage.posted()` gives the next accepted message."""

    def __init__(self, here: World) -> None:
        self._posts: asyncio.Queue[Fact] = asyncio.Queue()
        here.dispatcher.play = self._play

    async def _play(self, dispatcher: Dispatcher, posted: Fact) -> None:
        self._posts.put_nowait(posted)

    async def posted(self) -> Fact:
        async with asyncio.timeout(20):
            return await self._posts.get()


class Transcript:
    """Requests to the first gateway of a world, written down, and compared in the end."""

    def __init__(self, here: World) -> None:
        self._here, self._lines = here, list[str]()

    def note(self, text: str) -> None:
        """A line that says what the next part shows."""
        self._lines.append(f"# {text}")

    async def ask(self, method: str, path: str, **options: Any) -> Exchange:
        """A request with its command and its answer."""
        _, _, query = path.partition("?")
        params = dict(parse_qsl(query, keep_blank_values=True))
        key = options.pop("key", self._here.key)
        before = len(self._here.dispatcher.heard)
        found = await ask(self._here.gateways[0][0], method, path.partition("?")[0], key=key, params=params, **options)
        await self._here.core.marks.settle("api")
        self.request(method, path, options)
        new = self._here.dispatcher.heard[before:]
        marks = [command for command in new if isinstance(command.body, MarkRead) and not path.endswith("/mark-read")]
        self._command([command for command in new if command not in marks])
        self.answer(found)
        if marks:
            self.note("what was delivered is read: the gateway says so")
            self._command(marks)
            self._lines.append("")
        return found

    def request(self, method: str, path: str, options: dict[str, Any]) -> None:
        """What was asked."""
        self._lines.append(f"> {method} {path}")
        for name, value in options.get("headers", {}).items():
            self._lines.append(f"> {name}: {value}")
        if "body" in options:
            self._lines.append(f"> {orjson.dumps(options['body']).decode()}")

    def _command(self, new: list[Command]) -> None:
        """The command that the request put on the log, if any."""
        assert len(new) <= 1, "one request is at most one command"
        for command in new:
            # How much of the workspace a gateway had seen is nothing that a client says.
            fields = command.body.model_dump(mode="json", exclude_defaults=True, exclude={"workspace_seq"})
            body = orjson.dumps(fields).decode()
            self._lines.append(f"= {command.type} to {command.stream}{' (fresh)' if command.fresh else ''}")
            self._lines.append(f"= {body}")

    def answer(self, found: Exchange) -> None:
        """Status, headers and every byte of the body."""
        self._lines.append(f"< {found.status}")
        for name in SHOWN:
            if name in found.headers:
                self._lines.append(f"< {name}: {found.headers[name]}")
        if found.body:
            assert b"\r" not in found.body, "LF only"
            self._lines += [f"< {line}".rstrip() for line in found.body.decode().split("\n")]
        self._lines.append("")

    def compare(self, page: Path) -> None:
        """The transcript is what the page says."""
        text = "\n".join(self._lines) + "\n"
        if os.environ.get("PARLEY_WRITE_GOLDEN"):
            page.parent.mkdir(exist_ok=True)
            page.write_text(text)
        assert text == page.read_text()

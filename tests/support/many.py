"""A client of a stream of many threads, as `docs/streams.md` tells it to be: what it has after any frames.

It keeps the facts of each thread, and the texts of each call by their places: a text that comes is put where it says
that it belongs, over what is there. At `run.restarted` it drops the texts of the run that no `model.returned` closed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

Place = tuple[str, int, int]
"""A thread, the seq of a call, a block."""


@dataclass
class ManyClient:
    """`cursor`: where it goes on. `facts`: thread → its facts, as they came. `texts`: what was said, by place."""

    cursor: str | None = None
    facts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[Place, str] = field(default_factory=dict)
    retry_ms: int | None = None
    deltas: int = 0
    _run_of: dict[Place, str] = field(default_factory=dict)
    _closed: set[tuple[str, int]] = field(default_factory=set)

    def take(self, event: bytes) -> None:
        """One event, up to its empty line."""
        data: dict[str, Any] | None = None
        for line in event.split(b"\n"):
            name, _, value = line.partition(b": ")
            if name == b"id":
                self.cursor = value.decode()
            elif name == b"retry":
                self.retry_ms = int(value)
            elif name == b"data":
                data = orjson.loads(value)
        if data is not None:
            self._show(data)

    def _show(self, frame: dict[str, Any]) -> None:
        thread = frame["thread_id"]
        if frame["type"] in ("text.delta", "thought.delta"):
            self.deltas += 1
            place = (thread, frame["seq"], frame["block"])
            text = self.texts.get(place, "")
            assert frame["at"] <= len(text), "text is missing before this"
            self.texts[place] = text[: frame["at"]] + frame["delta"] + text[frame["at"] + len(frame["delta"]) :]
            self._run_of[place] = frame["run_id"]
            return
        if frame["type"] == "run.restarted":
            for place in [place for place, run in self._run_of.items() if run == frame["run_id"]]:
                if place[:2] not in self._closed:
                    self.texts.pop(place, None)
        elif frame["type"] == "model.returned":
            self._closed.add((thread, frame["call"]))
        self.facts[thread].append(frame)

    @property
    def seqs(self) -> dict[str, list[int]]:
        """The seqs of each thread's facts (of a fact that is several frames, each)."""
        return {thread: [frame["seq"] for frame in facts] for thread, facts in self.facts.items()}


async def events_of(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The events of an open stream, byte for byte, as they come."""
    kept = b""
    async for part in response.aiter_raw():
        *events, kept = (kept + part).split(b"\n\n")
        for event in events:
            yield event

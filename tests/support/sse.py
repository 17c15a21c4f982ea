"""Server-sent events as a strict client reads them: LF lines, `id:` and `data:` fields, comments. An event may have an
id and no data (a place, shown to nobody), and a stream may end with a `retry:`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True, slots=True)
class Frame:
    """One event: its id (None: it had none) and its data, parsed when it is JSON."""

    id: str | None
    data: Any

    @property
    def type(self) -> str:
        return str(self.data["type"]) if isinstance(self.data, dict) else ""


async def frames_of(response: httpx2.Response) -> AsyncIterator[Frame]:
    """The frames of an open stream, as they come; comments are skipped, anything else that is odd fails."""
    event_id: str | None = None
    data: str | None = None
    async for line in response.aiter_lines():
        if line == "":
            if data is not None:
                try:
                    parsed = json.loads(data)
                except ValueError:
                    parsed = data
                yield Frame(event_id, parsed)
            event_id, data = None, None
        elif line.startswith("id: "):
            assert event_id is None, "two ids in one frame"
            event_id = line[4:]
        elif line.startswith("data: "):
            assert data is None, "two data lines in one frame"
            data = line[6:]
        else:
            assert line.startswith(":") or line.removeprefix("retry: ").isdecimal(), f"not a line of a frame: {line!r}"


def frame_of(part: bytes) -> Frame:
    """The one frame that a send holds: an `id:` line perhaps, one `data:` line, an empty line, and LF alone."""
    assert b"\r" not in part and part.endswith(b"\n\n"), part
    lines = part[:-2].split(b"\n")
    event_id = None
    if lines[0].startswith(b"id: "):
        event_id = lines.pop(0)[4:].decode()
    [data] = lines
    assert data.startswith(b"data: "), part
    return Frame(event_id, json.loads(data[6:]))


def text_of(frames: list[Frame], kind: str = "text.delta") -> str:
    """The text of a run as a client of `threads` has it: a repeated attempt drops what came since the turn before."""
    kept, since_turn = "", ""
    for frame in frames:
        if frame.type == "run.restarted":
            since_turn = ""
        elif frame.type == kind:
            since_turn += frame.data["delta"]
        elif frame.type == "model.returned":
            kept, since_turn = kept + since_turn, ""
    return kept + since_turn

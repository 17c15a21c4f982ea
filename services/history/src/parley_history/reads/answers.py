"""What all reads share: the queries, rows and answers, times, and cursors that clients cannot read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from parley_events.clock import rfc3339
from parley_events.positions import StreamPosition
from parley_history.sql import blocks

SQL = blocks("reads.sql")


PROJECTION = "history"


Row = Mapping[str, Any]


Answer = dict[str, Any]


AT = "read_at"
"""Where a read puts the position that it was at, for the answer's head; it is no part of the answer."""


class BadCursor(Exception):
    """The cursor is none that was given out."""


def position_of(stream: str, seq: int) -> str:
    """What was read is as new as this fact of the stream."""
    return str(StreamPosition(stream, seq))


def json_of(text: str | None) -> Any:
    return None if text is None else orjson.Fragment(text)


def time_of(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def stamped(values: Answer) -> Answer:
    values["created_at"] = rfc3339(values.pop("created_ms"))
    return values


def cursor_of(first: int, second: int | str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([first, second])).rstrip(b"=").decode()


def open_cursor(cursor: str | None, second: type[int] | type[str]) -> tuple[int | None, Any]:
    if cursor is None:
        return None, None
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise BadCursor("not a cursor that was given out") from error
    if not isinstance(values, list) or [type(value) for value in values] != [int, second]:
        raise BadCursor("not a cursor that was given out")
    if not -(2**62) < values[0] < 2**62 or (isinstance(values[1], int) and not 0 <= values[1] < 100):
        raise BadCursor("not a cursor that was given out")
    return values[0], values[1]

"""Values as PostgreSQL can hold them."""

from __future__ import annotations

from typing import Any, overload

from parley_events.body import json_bytes


@overload
def clean(text: str) -> str: ...
@overload
def clean(text: None) -> None: ...
@overload
def clean(text: str | None) -> str | None: ...
def clean(text: str | None) -> str | None:
    """The text without U+0000, which a `text` column cannot hold: U+FFFD stands in its place. The fact keeps it."""
    if text is None or "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd")


def as_text(value: Any) -> str:
    """A JSON value as compact text."""
    return json_bytes(value).decode()


def as_column(value: Any) -> Any:
    """A value as a column takes it: texts cleaned, JSON as text."""
    kind = type(value)
    if kind is str:
        return clean(value)
    if kind is dict or kind is list:
        return as_text(value)
    return value

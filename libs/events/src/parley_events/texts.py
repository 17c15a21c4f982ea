"""Bytes that are a text: what people attach, and what they put among a workspace's documents."""

from __future__ import annotations


def as_text(data: bytes) -> str | None:
    """The text that the bytes are; None when they are none. A byte order mark says UTF-16, anything else is UTF-8."""
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text

"""Names of files: attachments and artifacts. A name is a label and nothing else: no part of it ever becomes a path, and
one that looks like a path, or other than it is, is refused before it goes on record.
"""

from __future__ import annotations

import mimetypes
import re
import unicodedata

MAX_NAME_BYTES = 255
UNKNOWN_TYPE = "application/octet-stream"

_DRIVE = re.compile(r"[A-Za-z]:")
_MISLEADING = frozenset(
    "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\u2028\u2029"
)
"""Characters that turn the direction of a text, or show nothing: `exe.fdp` may not look like `pdf.exe`."""
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,100}(\s*;\s*[\x20-\x7e]{1,80})?")


def file_name(name: str) -> str:
    """The name in its usual form (NFC); ValueError says what is wrong with it, without quoting it."""
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise ValueError("a file's name must not be empty")
    if name != name.strip() or name.strip(".") == "":
        raise ValueError("a file's name must not begin or end with a space, nor consist of dots")
    if "/" in name or "\\" in name or _DRIVE.match(name):
        raise ValueError("a file's name must be a plain name: no path, no drive")
    if any(character in _MISLEADING or unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise ValueError("a file's name must not hold control characters or marks that change its direction")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"a file's name may have at most {MAX_NAME_BYTES} bytes")
    return name


def content_type(given: str | None, name: str) -> str:
    """The type that was given, else the one that the name suggests; ValueError when it is no media type."""
    if not given:
        return mimetypes.guess_type(name, strict=False)[0] or UNKNOWN_TYPE
    kind = given.strip().lower()
    if _TYPE.fullmatch(kind) is None:
        raise ValueError("content_type is not a media type like text/plain")
    return kind

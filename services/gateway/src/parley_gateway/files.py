"""Files in and out: attachments as clients send them, and what is downloaded. What all dialects need of both.

Above it: the dialects' routes. Below it: the object store. Bytes are decoded and hashed on a thread, a piece at a time,
so that other requests go on; they are stored before the command that names them is sent.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import logging
import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from pydantic import Field, PlainValidator, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from parley_events.body import Attachment, Json
from parley_events.commands import MAX_ATTACHMENTS
from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.file_names import content_type, file_name
from parley_events.objects import Objects
from parley_events.reads import FileView
from parley_gateway.bodies import Long
from parley_gateway.errors import Problem, Unavailable, invalid, not_found
from parley_gateway.http import Wire, query

log = logging.getLogger(__name__)

MAX_FILES_BYTES = 25 * 1024 * 1024
"""What the attachments of one message may have together."""
BASE64_MB = MAX_FILES_BYTES * 4 // 3 // (1024 * 1024) + 1
"""How much larger than others the body of a request with attachments may be."""
_PIECE = 256 * 1024
"""Base64 decoded at once, in characters: a millisecond, during which nothing else runs. A multiple of 4."""
_SAFE = re.compile(r"[^A-Za-z0-9 ._()+-]")


Base64 = Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


def _content(value: Any) -> str | Long:
    if not isinstance(value, str | Long):
        raise ValueError("a string is needed")
    return value


Content = Annotated[str | Long, PlainValidator(_content, json_schema_input_type=Base64)]
"""Bytes in base64, as a body brings them."""


class NewFile(Wire):
    """An attachment as clients send it."""

    name: str = Field(max_length=1000)
    content_base64: Content
    content_type: str | None = Field(default=None, max_length=200)


class Upload(NamedTuple):
    """An attachment with its bytes."""

    attachment: Attachment
    data: bytes


async def uploads(given: Sequence[NewFile] | None) -> list[Upload]:
    """The attachments of a message, checked; a Problem 400 or 413 says which one is wrong and why."""
    if not given:
        return []
    return await asyncio.to_thread(read_files, given)


def read_files(given: Sequence[NewFile]) -> list[Upload]:
    """The same, at once. Pure."""
    if len(given) > MAX_ATTACHMENTS:
        raise Problem(
            "too_large", f"a message may have at most {MAX_ATTACHMENTS} attachments", 413, {"limit": MAX_ATTACHMENTS}
        )
    found: dict[str, Upload] = {}
    size = 0
    for place, file in enumerate(given):
        try:
            name = file_name(file.name)
            kind = content_type(file.content_type, name)
            data = decoded(file.content_base64)
        except ValueError as error:
            raise invalid(f"attachment {place}: {error}", "invalid_attachment", attachment=place) from None
        if not data:
            raise invalid(f"attachment {place} is empty", "invalid_attachment", attachment=place)
        if name in found:
            raise invalid(
                f"attachment {place}: two attachments of a message cannot have one name",
                "invalid_attachment",
                attachment=place,
            )
        size += len(data)
        _check_size(size)
        sha256 = hashlib.sha256(data).hexdigest()
        found[name] = Upload(Attachment(name=name, content_type=kind, size=len(data), sha256=sha256), data)
    return list(found.values())


def decoded(content: str | Long) -> bytes:
    """Bytes from base64, with or without line breaks; ValueError when it is none."""
    try:
        raw = content.view if isinstance(content, Long) else content.encode("ascii").translate(None, b"\r\n")
    except UnicodeEncodeError:
        raise ValueError("content_base64 is not base64") from None
    parts = []
    for start in range(0, len(raw), _PIECE):
        piece = bytes(raw[start : start + _PIECE])
        if b"=" in piece and start + _PIECE < len(raw):
            raise ValueError("content_base64 is not base64")
        try:
            parts.append(binascii.a2b_base64(piece, strict_mode=True))
        except binascii.Error:
            raise ValueError("content_base64 is not base64") from None
    return b"".join(parts)


def _check_size(size: int) -> None:
    if size > MAX_FILES_BYTES:
        raise Problem("too_large", "attachments may have at most 25 MiB together", 413, {"limit": MAX_FILES_BYTES})


async def store(objects: Objects, workspace_id: str, files: Sequence[Upload]) -> None:
    """Store the bytes, before anything is sent that names them; a Problem 503 when they cannot be."""
    try:
        for file in files:
            await objects.put(workspace_id, file.data)
    except ObjectsUnavailable as error:
        log.warning("attachments cannot be taken: %s", error)
        raise Unavailable("the object store cannot be reached right now") from None


def meaning(asked: Wire, files: Sequence[Upload]) -> Json:
    """What a repeated message must be equal in: its attachments count by name, type and hash."""
    fields = asked.model_dump(exclude={"attachments"} if files else None)
    return {**fields, "attachments": [file.attachment.model_dump() for file in files]} if files else fields


def asked_kind(request: Request) -> str | None:
    """`?kind=`: attachment or artifact."""
    kind = query(request, "kind")
    if kind not in (None, "attachment", "artifact"):
        raise invalid("kind must be attachment or artifact")
    return kind


async def download(objects: Objects, workspace_id: str, file: FileView) -> Response:
    """A file as an answer that no browser takes for a page of ours: saved, never shown, never guessed at."""
    try:
        data = await objects.get(workspace_id, file.sha256)
    except ObjectMissing:
        log.error("a file's object is gone: %s", file.sha256)
        raise not_found("file any more: its bytes are gone") from None
    except ObjectsUnavailable as error:
        log.warning("a file cannot be read: %s", error)
        raise Unavailable("the object store cannot be reached right now") from None
    headers = {
        "Content-Type": file.content_type,
        "Content-Disposition": disposition(file.name),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-cache",
        "ETag": f'"{file.sha256}"',
    }
    return Response(data, 200, headers)


def disposition(name: str) -> str:
    """`Content-Disposition` with the name for every client: plain ASCII, and the whole of it as RFC 6266 has it."""
    plain = _SAFE.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def entry(file: FileView) -> Json:
    """A file in a list."""
    return {
        "name": file.name,
        "kind": file.kind,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
        "run_id": file.run_id,
        "created_at": file.created_at,
    }

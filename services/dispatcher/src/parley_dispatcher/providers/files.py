"""Files as a model is shown them: objects that a request refers to → blocks of the Messages API.

What the API takes becomes an image or a document; what it would refuse (too large, too many, not what it says it is,
gone) becomes a line of text, so that a file never fails a run. The newest files are served first. Beside it: `wire`.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass

from parley_dispatcher.errors import ModelError
from parley_dispatcher.prompt import not_shown
from parley_events.body import Json
from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.objects import Objects
from parley_events.pdf import pages_of_pdf

MAX_BYTES = 20 * 1024 * 1024
"""All files of one request, as they travel (base64); the API takes requests of 32 MB, and the rest is text."""
MAX_IMAGE_BYTES = 5 * 1024 * 1024
"""One image, as it travels."""
MAX_IMAGES = 100
MAX_PAGES = 100
"""Of all PDFs of one request."""
MAX_TEXT_CHARS = 400_000
"""One text file: what is longer is read in parts."""

Shown = dict[int, Json]
"""The block that stands for each reference, by `id` of its block in the request's messages."""


@dataclass(slots=True)
class _Room:
    """What is left of what one request may carry."""

    size: int = MAX_BYTES
    images: int = MAX_IMAGES
    pages: int = MAX_PAGES


async def load_files(messages: list[Json], workspace_id: str, objects: Objects, *, refused: bool = False) -> Shown:
    """The blocks to show in place of the references in `messages`. `refused`: the API did not take them at the last
    attempt, so all become lines of text. Raises ModelError when the store is away."""
    shown: Shown = {}
    room = _Room()
    for block in _references(messages):
        source = block["source"]
        if refused:
            shown[id(block)] = _line(source, "which the model's server refused")
            continue
        try:
            data = await objects.get(workspace_id, source["sha256"])
        except ObjectMissing:
            shown[id(block)] = _line(source, "which is gone", readable=False)
        except ObjectsUnavailable as error:
            raise ModelError("objects", "the object store could not be read", retry=True) from error
        else:
            pages = await pages_of_pdf(data, source["sha256"]) if _is_pdf(source) else None
            # Encoding some megabytes would hold up every stream of this process.
            shown[id(block)] = await asyncio.to_thread(_show, block, data, room, pages)
    return shown


def weight_of(messages: list[Json]) -> int:
    """About how many bytes of files a request refers to."""
    return sum(block["source"].get("size", 0) for block in _references(messages))


def _references(messages: list[Json]) -> list[Json]:
    """The blocks that refer to an object, newest first."""
    found: list[Json] = []
    for message in reversed(messages):
        for block in reversed(message["content"]):
            inner = block.get("content") if block["type"] == "tool_result" else None
            for part in reversed(inner) if isinstance(inner, list) else (block,):
                source = part.get("source")
                if isinstance(source, dict) and source.get("type") == "object":
                    found.append(part)
    return found


def _line(source: Json, why: str, *, readable: bool = True) -> Json:
    return {"type": "text", "text": not_shown(source["name"], source["media_type"], why, readable=readable)}


def _is_pdf(source: Json) -> bool:
    return bool(source["media_type"].partition(";")[0].strip().lower() == "application/pdf")


def _show(block: Json, data: bytes, room: _Room, pages: int | None) -> Json:
    source = block["source"]
    if not data:
        return _line(source, "empty", readable=False)
    if block["type"] == "image":
        return _image(source, data, room)
    if _is_pdf(source):
        return _pdf(block, data, room, pages)
    return _text(block, data, room)


def _image(source: Json, data: bytes, room: _Room) -> Json:
    kind = _image_type(data)
    size = _travelling(data)
    if kind is None:
        return _line(source, "not an image of a kind that can be shown")
    if size > MAX_IMAGE_BYTES:
        return _line(source, f"{len(data)} bytes, too large an image to be shown")
    if size > room.size or not room.images:
        return _line(source, "not shown beside so many other files")
    room.size, room.images = room.size - size, room.images - 1
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": _encode(data)}}


def _pdf(block: Json, data: bytes, room: _Room, pages: int | None) -> Json:
    source = block["source"]
    size = _travelling(data)
    if size > MAX_BYTES:
        return _line(source, f"{len(data)} bytes, too large to be shown")
    if not pages:
        return _line(source, "which cannot be opened as a PDF")
    if pages > MAX_PAGES:
        return _line(source, f"{pages} pages, too long to be shown")
    if size > room.size or pages > room.pages:
        return _line(source, "not shown beside so many other files")
    room.size, room.pages = room.size - size, room.pages - pages
    encoded = {"type": "base64", "media_type": "application/pdf", "data": _encode(data)}
    return {"type": "document", "source": encoded, "title": block["title"]}


def _text(block: Json, data: bytes, room: _Room) -> Json:
    source = block["source"]
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return _line(source, "not text in UTF-8")
    if not text.strip():
        return _line(source, "empty")
    if len(text) > MAX_TEXT_CHARS:
        return _line(source, f"{len(text)} characters, too long to be shown")
    if len(data) > room.size:
        return _line(source, "not shown beside so many other files")
    room.size -= len(data)
    plain = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": plain, "title": block["title"]}


def _image_type(data: bytes) -> str | None:
    """What the bytes are. The API compares them with what is said of them, so the name of a file is not believed."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def _travelling(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""Tools for files: what people attached (`list_attachments`, `read_attachment`), and what agents make (`save_artifact`,
`read_artifact`).

The thread is the shelf: a file is found by its name, the newest of that name. Bytes lie in the object store under their
hash; the record of the call that saved an artifact names it, so there is no second write that could be lost.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from contextlib import nullcontext

from pydantic import Field

from parley_dispatcher.errors import ToolError
from parley_dispatcher.state import MAX_SHOWN_CHARS
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool
from parley_events.body import Attachment, Json
from parley_events.errors import ObjectMissing, PdfUnreadable
from parley_events.file_names import content_type, file_name
from parley_events.pdf import text_of_pdf
from parley_events.texts import as_text

MAX_ARTIFACT_BYTES = 25 * 1024 * 1024
MAX_DATA_BYTES = 96 * 1024
"""How much of a file that is no text the model is given."""
_TEXT_CHARS = MAX_SHOWN_CHARS - 10_000
"""A text is cut here, with room for what stands around it: more would not be shown."""

LARGE_BYTES = 1024 * 1024
LARGE_AT_ONCE = 8
"""How many files of more than `LARGE_BYTES` are being read at once; the others wait, within the tool's own limit. Each
is in memory several times over, and a single turn may ask for a hundred."""
_large = asyncio.Semaphore(LARGE_AT_ONCE)


class Nothing(Arguments):
    """No arguments."""


class FileName(Arguments):
    name: str = Field(min_length=1, max_length=1000)


class NewArtifact(Arguments):
    name: str = Field(min_length=1, max_length=1000, description="a plain file name, like report.md")
    content: str | None = Field(default=None, description="the text of the file")
    content_base64: str | None = Field(default=None, description="instead of content, for what is no text")
    content_type: str | None = Field(default=None, max_length=200, description="a media type; else the name says it")


async def _list(call: Call, arguments: Nothing) -> Result:
    return Result(json.dumps({"attachments": [_told(file) for file in call.attachments.values()]}, ensure_ascii=False))


async def _read_attachment(call: Call, arguments: FileName) -> Result:
    return await _read(call, call.attachments, arguments.name, "attachment", "list_attachments shows which there are")


async def _read_artifact(call: Call, arguments: FileName) -> Result:
    names = ", ".join(list(call.artifacts)[-20:])
    hint = f"there are: {names}" if names else "none was saved in this thread yet"
    return await _read(call, call.artifacts, arguments.name, "artifact", hint)


async def _save(call: Call, arguments: NewArtifact) -> Result:
    if (arguments.content is None) == (arguments.content_base64 is None):
        raise ToolError("give either content or content_base64")
    try:
        name = file_name(arguments.name)
        kind = content_type(arguments.content_type, name)
    except ValueError as error:
        raise ToolError(f"{error}.") from None
    if arguments.content is not None:
        data = arguments.content.encode()
    else:
        try:
            data = base64.b64decode("".join((arguments.content_base64 or "").split()), validate=True)
        except (binascii.Error, ValueError):
            raise ToolError("content_base64 is not base64.") from None
    if not data:
        raise ToolError("the file would be empty.")
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ToolError(f"the file would have {len(data)} bytes; {MAX_ARTIFACT_BYTES} are the most.")
    sha256 = await call.objects.put(call.workspace_id, data)
    file = Attachment(name=name, content_type=kind, size=len(data), sha256=sha256)
    return Result(json.dumps({"saved": name, **_told(file)}, ensure_ascii=False), files=(file,))


async def _read(call: Call, shelf: Mapping[str, Attachment], asked: str, what: str, hint: str) -> Result:
    try:
        file = shelf.get(file_name(asked))
    except ValueError as error:
        raise ToolError(f"{error}.") from None
    if file is None:
        raise ToolError(f"There is no {what} of this name; {hint}.")
    async with _large if file.size > LARGE_BYTES else nullcontext():
        try:
            data = await call.objects.get(call.workspace_id, file.sha256)
        except ObjectMissing:
            raise ToolError(f"The bytes of this {what} are not in the object store any more.") from None
        content = await _content(file, data)
    return Result(json.dumps({**_told(file), **content}, ensure_ascii=False))


async def _content(file: Attachment, data: bytes) -> Json:
    """A file as the model can read it: its text, or its bytes in base64."""
    if file.content_type.startswith("application/pdf") or data.startswith(b"%PDF-"):
        try:
            pdf = await text_of_pdf(data, _TEXT_CHARS)
        except PdfUnreadable as error:
            raise ToolError(str(error)) from None
        return {"pages": pdf.pages, "text": pdf.text, **({"truncated": True} if pdf.truncated else {})}
    text = as_text(data)
    if text is not None:
        return {"text": text} if len(text) <= _TEXT_CHARS else _cut_text(text)
    shown = base64.b64encode(data[:MAX_DATA_BYTES]).decode()
    return {"content_base64": shown, **({"truncated": True} if len(data) > MAX_DATA_BYTES else {})}


def _cut_text(text: str) -> Json:
    return {"text": text[:_TEXT_CHARS], "truncated": True, "characters": len(text)}


def _told(file: Attachment) -> Json:
    return {"name": file.name, "content_type": file.content_type, "size": file.size}


LIST_ATTACHMENTS = Tool(
    "list_attachments", "Lists the files that people attached to this conversation.", Nothing, _list, "read_only"
)
READ_ATTACHMENT = Tool(
    "read_attachment",
    "Reads an attached file: the text of PDFs and text files, others in base64.",
    FileName,
    _read_attachment,
    "read_only",
)
SAVE_ARTIFACT = Tool(
    "save_artifact",
    "Saves a file that people can download. A name that was saved before gets the new content.",
    NewArtifact,
    _save,
    "idempotent",
)
READ_ARTIFACT = Tool("read_artifact", "Reads a file that was saved before.", FileName, _read_artifact, "read_only")

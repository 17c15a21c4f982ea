"""Documents of a workspace as clients send them: their text, out of a text, out of bytes, out of a PDF.

Beside `files`, which decodes the bytes; below it the reader of PDFs, a process of its own. Bounded in size and time.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Literal, NamedTuple

from parley_events.body import Json
from parley_events.documents import MAX_CHARS, TYPES, DocumentType
from parley_events.errors import PdfUnreadable
from parley_events.pdf import text_of_pdf
from parley_events.pdf_reader import MAX_PAGES
from parley_events.texts import as_text
from parley_gateway.bodies import Long
from parley_gateway.errors import Problem, Unavailable, invalid
from parley_gateway.files import MAX_FILES_BYTES, decoded

PDF: Literal["application/pdf"] = "application/pdf"
READ_S = 60.0
"""How long a PDF may take, with those before it."""
_TITLES = str.maketrans(dict.fromkeys((*map(chr, range(32)), "\x7f"), " "))


class Document(NamedTuple):
    """What is kept of a document."""

    title: str
    text: str
    content_type: DocumentType

    @property
    def meaning(self) -> Json:
        """What a repeated request must be equal in."""
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        return {"title": self.title, "content_type": self.content_type, "text": sha256}


async def read(title: str, content: str | None, encoded: str | Long | None, content_type: str | None) -> Document:
    """The document that a client sends, as text or in base64; a Problem 400, 413 or 503 says what is wrong."""
    title = " ".join(title.translate(_TITLES).split())
    if not title:
        raise invalid("title is empty", "invalid_document")
    if (content is None) == (encoded is None):
        raise invalid("give either content or content_base64", "invalid_document")
    kind = _kind(content_type)
    if content is not None:
        if kind == PDF:
            raise invalid("a PDF goes into content_base64", "invalid_document")
        return Document(title, _checked(content), kind or "text/plain")
    assert encoded is not None
    data = await _bytes(encoded)
    if kind == PDF or (kind is None and data.startswith(b"%PDF-")):
        return Document(title, _checked(await _text_of_pdf(data)), PDF)
    text = await asyncio.to_thread(as_text, data)
    if text is None:
        raise invalid(
            "the bytes are no text in UTF-8 or UTF-16; a PDF needs the content_type application/pdf", "invalid_document"
        )
    return Document(title, _checked(text), kind or "text/plain")


def _kind(given: str | None) -> DocumentType | None:
    if given is None:
        return None
    asked = given.partition(";")[0].strip().lower()
    for kind in TYPES:
        if kind == asked:
            return kind
    raise invalid(f"content_type must be one of {', '.join(TYPES)}", "unsupported_document")


async def _bytes(encoded: str | Long) -> bytes:
    try:
        data = await asyncio.to_thread(decoded, encoded)
    except ValueError as error:
        raise invalid(str(error), "invalid_document") from None
    if len(data) > MAX_FILES_BYTES:
        raise Problem("too_large", "a document may have at most 25 MiB", 413, {"limit": MAX_FILES_BYTES})
    return data


async def _text_of_pdf(data: bytes) -> str:
    try:
        async with asyncio.timeout(READ_S):
            found = await text_of_pdf(data, MAX_CHARS)
    except TimeoutError:
        raise Unavailable("too many PDFs are being read at the same time; try again") from None
    except PdfUnreadable as error:
        raise invalid(str(error), "invalid_document") from None
    if found.truncated:
        # A document that is only found in part would be worse than none.
        limits = {"characters": MAX_CHARS, "pages": MAX_PAGES}
        message = f"a PDF may have at most {MAX_CHARS} characters and {MAX_PAGES} pages: split it"
        raise Problem("too_large", message, 413, limits)
    if not found.text.strip():
        raise invalid("there is no text in the PDF; what was scanned has none", "invalid_document")
    return found.text


def _checked(text: str) -> str:
    if not text.strip():
        raise invalid("the document is empty", "invalid_document")
    if len(text) > MAX_CHARS:
        message = f"a document may have at most {MAX_CHARS} characters: split it"
        raise Problem("too_large", message, 413, {"limit": MAX_CHARS})
    return text

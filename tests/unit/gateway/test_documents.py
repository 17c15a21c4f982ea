"""Documents that clients send: texts, bytes, PDFs; and a clear word about each that is none."""

from __future__ import annotations

import asyncio
import base64

import pytest

from parley_events.documents import MAX_CHARS
from parley_events.pdf import PdfText
from parley_gateway import documents
from parley_gateway.documents import read
from parley_gateway.errors import Problem
from tests.support.pdf import pdf


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def problem(title: str, content: str | None, encoded: str | None, content_type: str | None) -> Problem:
    with pytest.raises(Problem) as raised:
        await read(title, content, encoded, content_type)
    return raised.value


async def test_a_text_a_file_and_a_pdf_become_their_text() -> None:
    assert await read("  My\n title ", "# Größe\r\n", None, None) == ("My title", "# Größe\r\n", "text/plain")
    assert (await read("t", "x", None, "Text/Markdown; charset=utf-8")).content_type == "text/markdown"
    for data, kind, text in (
        ("é".encode(), None, "é"),
        ("\ufeffé".encode(), "text/markdown", "é"),
        ("é".encode("utf-16"), "text/plain", "é"),
    ):
        found = await read("t", None, b64(data), kind)
        assert (found.text, found.content_type) == (text, kind or "text/plain")
    for kind in (None, "application/pdf"):
        assert await read("t", None, b64(pdf("Buy tea", "Boil")), kind) == ("t", "Buy tea\n\nBoil", "application/pdf")
    same = [await read("t", "x", None, None), await read("t", None, b64(b"x"), "text/plain")]
    assert same[0].meaning == same[1].meaning != (await read("t", "y", None, None)).meaning


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ((" \n\t", "x", None, None), "invalid_document", "title is empty"),
        (("t", None, None, None), "invalid_document", "either content or content_base64"),
        (("t", "x", "eA==", None), "invalid_document", "either content or content_base64"),
        (("t", "", None, None), "invalid_document", "the document is empty"),
        (("t", " \n", None, None), "invalid_document", "the document is empty"),
        (("t", None, "", None), "invalid_document", "the document is empty"),
        (("t", None, "?", None), "invalid_document", "not base64"),
        (("t", None, "é", None), "invalid_document", "not base64"),
        (("t", None, b64(b"\x89PNG\xff"), None), "invalid_document", "no text in UTF-8"),
        (("t", None, b64(b"a\x00b"), None), "invalid_document", "no text in UTF-8"),
        (("t", "%PDF-1.4", None, "application/pdf"), "invalid_document", "goes into content_base64"),
        (("t", None, b64(b"x"), "application/pdf"), "invalid_document", "The PDF cannot be read"),
        (("t", None, b64(b"%PDF-garbage"), None), "invalid_document", "The PDF cannot be read"),
        (("t", None, b64(pdf("")), None), "invalid_document", "no text in the PDF"),
        (("t", "x", None, "text/html"), "unsupported_document", "text/plain, text/markdown, application/pdf"),
        (("t", "x", None, "x" * 200), "unsupported_document", "must be one of"),
    ],
    ids=str,
)
async def test_what_is_no_document_is_told_why(given: tuple[str, str, str, str], code: str, says: str) -> None:
    found = await problem(*given)
    assert (found.status, found.code) == (400, code)
    assert says in found.message


async def test_what_is_too_long_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len((await read("t", "x" * MAX_CHARS, None, None)).text) == MAX_CHARS
    monkeypatch.setattr(documents, "MAX_FILES_BYTES", 10)
    monkeypatch.setattr(documents, "MAX_CHARS", 9)
    for given in (("t", "x" * 10, None, None), ("t", None, b64(b"x" * 10), None), ("t", None, b64(b"x" * 11), None)):
        found = await problem(*given)
        assert (found.status, found.code) == (413, "too_large"), given

    async def long(data: bytes, most_chars: int) -> PdfText:
        return PdfText("x" * 9, 501, True)

    monkeypatch.setattr(documents, "text_of_pdf", long)
    found = await problem("t", None, b64(b"%PDF-"), None)
    assert (found.status, found.code) == (413, "too_large") and "500 pages" in found.message


async def test_a_pdf_that_waits_too_long_for_its_turn_is_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(data: bytes, most_chars: int) -> PdfText:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(documents, "text_of_pdf", never)
    monkeypatch.setattr(documents, "READ_S", 0.01)
    found = await problem("t", None, b64(b"%PDF-"), None)
    assert (found.status, found.headers["Retry-After"]) == (503, "2")

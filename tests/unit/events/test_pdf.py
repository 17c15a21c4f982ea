"""PDFs: their text page after page, and a clear word where there is none; also of what was made to do harm."""

from __future__ import annotations

import pytest

from parley_events import pdf as pdf_module
from parley_events import pdf_reader
from parley_events.errors import PdfUnreadable
from parley_events.pdf import pages_of_pdf, text_of_pdf
from parley_events.texts import as_text
from tests.support.pdf import pdf


async def test_text_comes_page_after_page_and_is_cut_where_it_is_asked_to_be() -> None:
    assert await text_of_pdf(pdf("Buy tea", "Boil water"), 1000) == ("Buy tea\n\nBoil water", 2, False)
    long = await text_of_pdf(pdf(*["a line of text"] * 20), 100)
    assert long.truncated and long.pages == 20 and len(long.text) == 100


@pytest.mark.parametrize("data", [b"", b"%PDF-", b"%PDF-1.7\n" + b"garbage" * 100, pdf("x")[:200]])
async def test_a_broken_one_says_so_and_has_no_length(data: bytes) -> None:
    with pytest.raises(PdfUnreadable, match="cannot be read"):
        await text_of_pdf(data, 100)
    assert await pages_of_pdf(data, f"{len(data):064x}") is None


async def test_one_that_takes_too_long_is_given_up_and_its_reader_ends() -> None:
    with pytest.raises(PdfUnreadable, match=r"could not be read within 0\.001 s"):
        await text_of_pdf(pdf("x"), 100, time_s=0.001)


def test_one_that_never_ends_is_killed_for_that_before_its_time_is_up() -> None:
    """So that it is known for what it is: a reader that only took too long is started again at every turn."""
    assert pdf_reader.CPU_S < pdf_module.TIME_S


def test_bytes_are_a_text_or_none() -> None:
    assert as_text("\ufeffGröße".encode()) == "Größe"
    assert as_text("ä;b".encode("utf-16")) == "ä;b"
    for data in (b"\xff\xfe\x00", b"\x89PNG", b"a\x00b", "ä".encode("latin-1")):
        assert as_text(data) is None, data

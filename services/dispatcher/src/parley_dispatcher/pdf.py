"""How long a PDF is. The only module that imports pypdf."""

from __future__ import annotations

import io
import logging

from pypdf import PdfReader

logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every oddity in what people attach


def pages_of(data: bytes) -> int | None:
    """The number of pages; None: it cannot be read, or asks for a password."""
    try:
        reader = PdfReader(io.BytesIO(data))
        return None if reader.is_encrypted else reader.get_num_pages()
    except Exception:  # whatever people attach, the library raises many kinds of errors
        return None

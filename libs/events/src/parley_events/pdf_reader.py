"""Reads a PDF from stdin and writes its text to stdout, as JSON: the process that `pdf` starts, which limits its own
memory and time first. The only module that imports pypdf; it imports nothing of Parley, to start at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import resource
import sys

import pypdf
from pypdf.errors import PyPdfError

MAX_PAGES = 500
MEMORY_BYTES = 1024 * 1024 * 1024
CPU_S = 15
"""Less than `pdf.TIME_S`: a PDF that never ends is told from a busy machine, and not tried again at every turn."""


def read(data: bytes, most_chars: int) -> dict[str, object]:
    """The text, page after page, as far as the limits allow (0 characters: only the length); or what is wrong."""
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"error": "it is protected by a password"}
    pages = len(reader.pages)
    parts: list[str] = []
    length = 0
    for page in reader.pages[: MAX_PAGES if most_chars else 0]:
        parts.append(page.extract_text())
        length += len(parts[-1]) + 2
        if length > most_chars:
            break
    text = "\n\n".join(parts)
    # Half a surrogate pair is no character, and some fonts' tables give one.
    text = text[:most_chars].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    return {"text": text, "pages": pages, "truncated": length > most_chars or pages > MAX_PAGES}


def main() -> None:
    """`pdf_reader.py <most characters>`, the PDF on stdin."""
    logging.disable()
    for limit, most in ((resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS does not take them all
            resource.setrlimit(limit, (most, most))
    try:
        found = read(sys.stdin.buffer.read(), int(sys.argv[1]))
    except PyPdfError as error:
        found = {"error": type(error).__name__}
    except (MemoryError, RecursionError):
        found = {"error": "it needs more memory than it is given"}
    except Exception as error:  # it is broken in a way that pypdf does not expect
        found = {"error": f"it is broken ({type(error).__name__})"}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()

"""The text of a PDF and its length, read in a process of its own (`pdf_reader`): what people send may be broken on
purpose, and a process can be stopped, whatever it is doing. Bounded in time, memory, pages and characters.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from parley_events.body import Json
from parley_events.errors import PdfUnreadable

TIME_S = 20.0
AT_ONCE = 2
"""Readers at work at the same time in one process; the others wait, within a limit that whoever asks sets."""
_READER = Path(__file__).with_name("pdf_reader.py")
_MOST_KNOWN = 1000
_turn = asyncio.Semaphore(AT_ONCE)
_known_pages: OrderedDict[str, int | None] = OrderedDict()
"""By hash: a model is shown a thread's PDFs at every turn, and what bytes hold never changes."""


class PdfText(NamedTuple):
    """What could be read of it. `truncated`: pages or characters were left out."""

    text: str
    pages: int
    truncated: bool


async def text_of_pdf(data: bytes, most_chars: int, time_s: float = TIME_S) -> PdfText:
    """The text of a PDF; PdfUnreadable says why there is none."""
    try:
        found = await _read(data, most_chars, time_s)
    except TimeoutError:
        raise PdfUnreadable(f"The PDF could not be read within {time_s:g} s.") from None
    return PdfText(found["text"], found["pages"], found["truncated"])


async def pages_of_pdf(data: bytes, sha256: str) -> int | None:
    """How many pages it has; None: it cannot be opened."""
    if sha256 not in _known_pages:
        try:
            _known_pages[sha256] = (await _read(data, 0, TIME_S))["pages"]
        except PdfUnreadable:
            _known_pages[sha256] = None
        except TimeoutError:
            return None
        if len(_known_pages) > _MOST_KNOWN:
            _known_pages.popitem(last=False)
    return _known_pages[sha256]


async def _read(data: bytes, most_chars: int, time_s: float) -> Json:
    """What the reader found; PdfUnreadable where it found nothing, TimeoutError where it took too long."""
    async with _turn:
        reader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_READER),
            str(most_chars),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
        try:
            async with asyncio.timeout(time_s):
                said, _ = await reader.communicate(data)
        finally:
            if reader.returncode is None:
                reader.kill()
                await reader.wait()
    try:
        found: Json = json.loads(said)
    except ValueError:
        raise PdfUnreadable("The PDF cannot be read.") from None
    if "error" in found:
        raise PdfUnreadable(f"The PDF cannot be read: {found['error']}.")
    return found

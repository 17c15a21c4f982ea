"""The text of a PDF, read in a process of its own (`pdf_reader`): what people send may be broken on purpose, and a
process can be stopped, whatever it is doing. Bounded in time, memory, pages and characters.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import NamedTuple

from parley_dispatcher.errors import ToolError

TIME_S = 20.0
AT_ONCE = 2
"""Readers at work at the same time; the others wait, within the tool's own limit."""
_READER = Path(__file__).with_name("pdf_reader.py")
_turn = asyncio.Semaphore(AT_ONCE)


class PdfText(NamedTuple):
    """What could be read of it. `truncated`: pages or characters were left out."""

    text: str
    pages: int
    truncated: bool


async def text_of_pdf(data: bytes, most_chars: int, time_s: float = TIME_S) -> PdfText:
    """The text of a PDF; ToolError says why there is none."""
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
        except TimeoutError:
            raise ToolError(f"The PDF could not be read within {time_s:g} s.") from None
        finally:
            if reader.returncode is None:
                reader.kill()
                await reader.wait()
    try:
        found = json.loads(said)
    except ValueError:
        raise ToolError("The PDF cannot be read.") from None
    if "error" in found:
        raise ToolError(f"The PDF cannot be read: {found['error']}.")
    return PdfText(found["text"], found["pages"], found["truncated"])

"""Files to attach: read, named, typed and measured before anything is sent."""

from __future__ import annotations

import base64
import mimetypes
import stat
from dataclasses import dataclass
from pathlib import Path

from parley_standalone.errors import CommandError

LIMIT = 25 * 1024 * 1024
"""Of all attachments of a message together."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that goes with the next message."""

    path: Path
    size: int

    @property
    def name(self) -> str:
        return self.path.name


def attach(text: str, already: list[Attached]) -> Attached:
    """The file at a path. Raises CommandError when it is none, empty, or too large with those that are there."""
    path = Path(text)
    try:
        path = path.expanduser()
        found = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise CommandError(f"{path} is no file")
    if any(other.name == path.name for other in already):
        raise CommandError(f"a file named {path.name} is attached already")
    _check(found.st_size, path, already)
    return Attached(path, found.st_size)


def _check(size: int, path: Path, others: list[Attached]) -> None:
    if size == 0:
        raise CommandError(f"{path} is empty")
    whole = size + sum(other.size for other in others)
    if whole > LIMIT:
        raise CommandError(f"{path}: the attachments would have {whole / 2**20:.1f} MiB; 25 MiB is the limit")


def encoded(files: list[Attached]) -> list[dict[str, object]]:
    """The attachments as the contract has them; read now, and measured again. Raises CommandError."""
    found: list[dict[str, object]] = []
    for number, file in enumerate(files):
        try:
            with file.path.open("rb") as opened:
                content = opened.read(LIMIT + 1)
        except OSError as error:
            raise CommandError(f"{file.path} cannot be read: {error.strerror}") from None
        _check(len(content), file.path, files[:number])
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        found.append({"name": file.name, "content_base64": base64.b64encode(content).decode(), "content_type": kind})
    return found

"""`:save`: a file of a thread, onto the disk of the person who chats. Above it: `chat`.

Its name is what an agent, a server or another person chose. So it is checked before it becomes part of a path, and
nothing that is there already is ever written to, nor what a link points to.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from parley_events.file_names import file_name
from parley_standalone.errors import CommandError

_ASKED = re.compile(r'"(.+)"(?:\s+(.+))?|(\S+)(?:\s+(.+))?', re.DOTALL)
_MOST_NUMBERS = 1000


def asked(rest: str) -> tuple[str, str]:
    """The NAME and the PATH (or nothing) that follow the order. A name with spaces stands in quotation marks. Raises
    CommandError when the name is none that a file may have."""
    found = _ASKED.fullmatch(rest)
    if found is None:
        raise CommandError("a file's name is wanted")
    try:
        return file_name(found[1] or found[3]), found[2] or found[4] or ""
    except ValueError as error:
        raise CommandError(str(error)) from None


def order(name: str) -> str:
    """What one types to have the file; `asked` reads the name from it."""
    plain = name.split() == [name] and not name.startswith('"')
    return f":save {name}" if plain else f':save "{name}"'


def save(data: bytes, name: str, path: str) -> Path:
    """Write a file into a folder (this one, when no path was given), with a number where its name is taken; or as a
    path that is not there yet. Raises CommandError."""
    try:
        given = Path(path or ".").expanduser()
        if path.endswith("/") and not given.is_dir():
            raise CommandError(f"{path} is no folder")
        for place in _numbered(given, name) if given.is_dir() else [given]:
            with suppress(FileExistsError):
                _write(place, data)
                return place
    except (OSError, RuntimeError, ValueError) as error:
        raise CommandError(f"{path or name} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    raise CommandError(f"{path or name} is there already: name another path")


def _numbered(folder: Path, name: str) -> list[Path]:
    plain = folder / name
    return [plain, *(plain.with_name(f"{plain.stem}-{number}{plain.suffix}") for number in range(2, _MOST_NUMBERS))]


def _write(place: Path, data: bytes) -> None:
    opened = place.open("xb")
    try:
        with opened:
            opened.write(data)
    except OSError:
        place.unlink(missing_ok=True)
        raise

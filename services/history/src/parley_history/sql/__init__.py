"""SQL: `-- name: x` opens a named block in `writes.sql` and `reads.sql`; migrations are numbered files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `<number>_<pre|post>_<name>.sql`: `pre` runs before the new code is started, `post` after the old has
    stopped."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def blocks(name: str) -> dict[str, str]:
    """The named blocks of a file in this folder."""
    found: dict[str, str] = {}
    text = files(__package__).joinpath(name).read_text("utf-8")
    for part in text.split("-- name: ")[1:]:
        title, _, body = part.partition("\n")
        found[title.strip()] = body.strip()
    return found


def migrations() -> tuple[Migration, ...]:
    """All migrations, in order; their numbers are 1, 2, 3 …"""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise RuntimeError("the migrations are not numbered 1, 2, 3 …")
    return tuple(found)

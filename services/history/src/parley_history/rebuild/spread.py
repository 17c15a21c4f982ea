"""The fold of a rebuild spread over processes: one interpreter folds on one core, however many partitions there are.

Each process is `python -m parley_history.rebuild.part`. It is given its work as a line of JSON on stdin, which stays
open for as long as somebody waits for it, and says on stdout, a line of JSON each, how far it is and what went wrong.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import orjson

from parley_history.errors import RebuildRefused
from parley_history.rebuild.fill import Progress, Tell, first_of, room_of
from parley_history.settings import Settings

WORTH_IT = 50_000
"""How many records there have to be for other processes to be worth their start."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one process folds, and where: the offsets at which its partitions end."""

    settings: Settings
    schema: str
    ends: Mapping[int, int]
    room: int

    def line(self) -> bytes:
        """As it is handed over: by a pipe, since the settings have passwords."""
        settings = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(self.settings).items()}
        ends = {str(partition): end for partition, end in self.ends.items()}
        return orjson.dumps({"settings": settings, "schema": self.schema, "ends": ends, "room": self.room}) + b"\n"


def part_in(line: bytes) -> Part:
    """What a process was handed."""
    said = orjson.loads(line)
    given = said["settings"]
    file = given["log_file"]
    settings = Settings(**{**given, "data": Path(given["data"]), "log_file": None if file is None else Path(file)})
    return Part(settings, said["schema"], {int(p): end for p, end in said["ends"].items()}, said["room"])


def shares(ends: Mapping[int, int], count: int) -> list[dict[int, int]]:
    """The partitions that have anything in at most `count` shares, as even as it goes: the longest ones first, each to
    the share that has the least. Those that are empty go with the first."""
    found: list[dict[int, int]] = [{} for _ in range(min(count, max(1, sum(end > 0 for end in ends.values()))))]
    for partition, end in sorted(ends.items(), key=lambda item: -item[1]):
        share = found[0] if end == 0 else min(found, key=lambda one: sum(one.values()))
        share[partition] = end
    return found


async def spread(settings: Settings, schema: str, ends: Mapping[int, int], tell: Tell, count: int) -> None:
    """`fill`, in `count` processes at most. When one fails the others are ended. Raises RebuildRefused."""
    folded: dict[int, int] = {}
    total = sum(ends.values())

    def hear(place: int, done: int) -> None:
        folded[place] = done
        tell(Progress("load", sum(folded.values()), total))

    try:
        async with asyncio.TaskGroup() as group:
            for place, share in enumerate(shares(ends, count)):
                part = Part(settings, schema, share, room_of(ends))
                group.create_task(_fold_elsewhere(part, partial(hear, place)))
    except BaseExceptionGroup as several:
        raise first_of(several) from None


async def _fold_elsewhere(part: Part, hear: Callable[[int], None]) -> None:
    """Have a process fold a part; `hear` is told how many records it has folded. Raises RebuildRefused."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "parley_history.rebuild.part",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # an interrupt at the terminal is for the one who waits: it ends this one
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(part.line())
        async for line in process.stdout:
            said = orjson.loads(line)
            if "refused" in said:
                raise RebuildRefused(said["refused"])
            hear(said["folded"])
        if status := await process.wait():
            raise RebuildRefused(
                f"a process that folded partitions {', '.join(map(str, sorted(part.ends)))} ended with status {status}:"
                " what it says stands above"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

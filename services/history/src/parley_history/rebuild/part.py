"""A part of a rebuild in a process of its own (`python -m parley_history.rebuild.part`): see `spread`, which starts it,
hands it its work on stdin and hears of it on stdout. It ends when that one does."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from io import FileIO

import orjson
import uvloop

from parley_events.contents import Contents
from parley_events.errors import EventsError
from parley_events.log.open import open_reading
from parley_events.objects import open_objects
from parley_history.errors import HistoryError
from parley_history.rebuild.fill import Progress, fill
from parley_history.rebuild.spread import Part, part_in

_TELL_S = 0.2


def main() -> int:
    """The process's exit status."""
    given = FileIO(sys.stdin.fileno(), closefd=False)  # no buffer: its lock would outlive the thread below
    part = part_in(given.readline())
    threading.Thread(target=_end_with, args=(given,), daemon=True).start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_fold(part))
    except HistoryError as error:
        _say({"refused": str(error)})
    except EventsError as error:
        _say({"refused": f"the log or the object store cannot be read: {error}"})
    return 0


def _end_with(other: FileIO) -> None:
    """End this process once nobody waits for it: what it still wrote would come into what another rebuild makes."""
    while other.read(1024):
        pass
    os._exit(1)


async def _fold(part: Part) -> None:
    settings = part.settings
    clock = asyncio.get_running_loop().time
    told = clock()

    def tell(progress: Progress) -> None:
        nonlocal told
        if clock() - told >= _TELL_S or progress.done == progress.total:
            told = clock()
            _say({"folded": progress.done})

    log = await open_reading(settings.log, settings.kafka, settings.data, f"parley-rebuild-{os.getpid()}")
    try:
        contents = Contents(open_objects(settings.objects, settings.data))
        await fill(settings, log, contents, part.schema, part.ends, part.room, tell)
    finally:
        await log.close()


def _say(what: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

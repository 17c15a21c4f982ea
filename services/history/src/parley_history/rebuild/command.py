"""`python -m parley_history rebuild`: a rebuild where there is no `parley` command.

Progress is a line every few seconds on stderr. The exit status is 0 when the view was switched, 3 when it was not
because the two differ.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parley_events.errors import EventsError
from parley_events.log.open import open_reading
from parley_events.objects import open_objects
from parley_history.errors import RebuildRefused
from parley_history.rebuild.fill import Progress, Tell
from parley_history.rebuild.run import Outcome, back, rebuild
from parley_history.rebuild.schemas import before_of, next_of
from parley_history.settings import Settings

USAGE = "rebuild [--accept] [--drop] [--back] [--processes=N]"
MOST_PROCESSES = 64
DIFFERS = 3
_LINE_S = 2.0
_PROCESSES = "--processes="


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    accept: bool = False
    drop: bool = False
    back: bool = False
    processes: int = 1
    """How many fold at most. One, where nobody says it: a container has less than its machine, and is not told so."""


def read_arguments(arguments: Sequence[str]) -> Asked | None:
    """What is asked for; None when it cannot be read."""
    known = {"--accept", "--drop", "--back"}
    words = [word for word in arguments if not word.startswith(_PROCESSES)]
    given, numbers = set(words), [word.removeprefix(_PROCESSES) for word in arguments if word.startswith(_PROCESSES)]
    if not given <= known or len(given) < len(words) or ("--back" in given and len(arguments) > 1):
        return None
    if not numbers:
        return Asked("--accept" in given, "--drop" in given, "--back" in given)
    if len(numbers) > 1 or re.fullmatch("[1-9][0-9]?", numbers[0]) is None or int(numbers[0]) > MOST_PROCESSES:
        return None
    return Asked("--accept" in given, "--drop" in given, processes=int(numbers[0]))


async def run(settings: Settings, asked: Asked, tell: Tell) -> Outcome:
    """Do it, with the log and the object store that the settings name. Raises HistoryError, SettingsError."""
    try:
        log = await open_reading(settings.log, settings.kafka, settings.data, f"parley-rebuild-{os.getpid()}")
        try:
            objects = open_objects(settings.objects, settings.data)
            if asked.back:
                return await back(settings, log, objects, tell=tell)
            return await rebuild(
                settings, log, objects, accept=asked.accept, drop=asked.drop, tell=tell, processes=asked.processes
            )
        finally:
            await log.close()
    except EventsError as error:
        raise RebuildRefused(f"the log or the object store cannot be read: {error}") from None


def said(settings: Settings, asked: Asked, outcome: Outcome) -> tuple[list[str], int]:
    """What a person is told at the end, and the exit status."""
    live, kept = settings.schema, before_of(settings.schema)
    if asked.back:
        return [f"switched back; the view that was live until now is kept as {kept}"], 0
    rate = outcome.records / outcome.seconds if outcome.seconds else 0.0
    lines = [f"{outcome.records} records folded in {outcome.seconds:.1f} s, {rate:.0f} per second"]
    lines += [f"differs: {difference}" for difference in outcome.differences]
    if not outcome.switched:
        lines.append(
            f"not switched, because the two views differ; the rebuilt one is left in {next_of(live)}, to be "
            "looked into. If it is meant to differ: --accept"
        )
        return lines, DIFFERS
    lines.append(f"switched; the view of before is kept as {kept} (back with --back)")
    return lines, 0


def by_lines(clock: Callable[[], float] = time.monotonic) -> Tell:
    """Tells the progress on stderr, a line every two seconds."""
    began = clock()
    told, stage = 0.0, ""

    def tell(progress: Progress) -> None:
        nonlocal told, stage
        now = clock()
        if progress.stage == stage and now - told < _LINE_S:
            return
        told, stage = now, progress.stage
        print(line(progress, now - began), file=sys.stderr, flush=True)

    return tell


def line(progress: Progress, seconds: float) -> str:
    """How far it is, with the rate and the time left while it loads."""
    if not progress.total:
        return progress.stage
    text = f"{progress.stage}: {progress.done} of {progress.total}"
    if progress.stage == "load" and progress.done and seconds > 0:
        rate = progress.done / seconds
        text += f", {rate:.0f} per second, {(progress.total - progress.done) / rate:.0f} s left"
    return text

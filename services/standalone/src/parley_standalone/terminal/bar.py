"""The bar of a rebuild: a line for each stage, with how far it is, the rate and the time left (rich)."""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from parley_history.rebuild.fill import Progress as HowFar
from parley_history.rebuild.fill import Tell

_STAGES = {
    "load": "folding the log",
    "indexes": "making indexes",
    "compare": "comparing with the live view",
    "switch": "switching",
}


def bar_on(screen: IO[str]) -> Progress:
    """A bar with how far it is, the rate and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=screen),
    )


def drawn(bar: Progress) -> Tell:
    """Tells the bar: a line for each stage."""
    tasks: dict[str, TaskID] = {}

    def tell(far: HowFar) -> None:
        if far.stage not in tasks:
            tasks[far.stage] = bar.add_task(_STAGES[far.stage], total=far.total or None, rate="")
        task = next(one for one in bar.tasks if one.id == tasks[far.stage])
        rate = f"{task.speed:.0f}/s" if far.stage == "load" and task.speed else ""
        bar.update(task.id, completed=far.done, total=far.total or None, rate=rate)

    return tell

"""`parley rebuild`: the view of a running Parley, made anew from its log. The work is history's own
(`parley_history.rebuild`); here is only where everything is, who is asked, and what is printed; `bar` draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import parley_history.settings
from parley_history.errors import HistoryError
from parley_history.rebuild.command import Asked, by_lines, run, said
from parley_history.rebuild.run import keeps
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE
from parley_standalone.client import running
from parley_standalone.errors import CommandError
from parley_standalone.folder import read_secrets
from parley_standalone.settings import Settings
from parley_standalone.terminal.bar import bar_on, drawn


async def rebuild(
    settings: Settings, *, accept: bool, drop: bool, back: bool, processes: int, ask: Callable[[str], bool]
) -> int:
    """The exit status. Raises CommandError. `ask` is asked before a kept view is dropped, where somebody is there."""
    history = history_settings(settings)
    try:
        kept = None if back or drop else await keeps(history)
        if kept is not None and sys.stdin.isatty():
            drop = ask(f"The view of before the last rebuild ({kept}) is dropped at the switch. Go on?")
            if not drop:
                print("nothing was done")
                return 0
        asked = Asked(accept, drop, back, processes)
        if sys.stderr.isatty():
            with bar_on(sys.stderr) as bar:
                outcome = await run(history, asked, drawn(bar))
        else:
            outcome = await run(history, asked, by_lines())
    except (HistoryError, parley_history.settings.SettingsError) as error:
        raise CommandError(str(error)) from None
    lines, status = said(history, asked, outcome)
    print("\n".join(lines))
    return status


def history_settings(settings: Settings) -> parley_history.settings.Settings:
    """History's settings, for the Parley that runs on the folder. Raises CommandError."""
    ready, kept = running(settings.data), read_secrets(settings.data)
    owner = urlsplit(ready["postgres"])

    def dsn(role: str, password: str) -> str:
        return f"postgresql://{role}:{quote(password, safe='')}@{owner.hostname}:{owner.port}{owner.path}"

    env = settings.for_services(
        PARLEY_DATA=str(settings.data),
        PARLEY_INTERNAL_TOKEN=kept.internal_token,
        PARLEY_LOG="embedded" if ready["kafka"] is None else "kafka",
        PARLEY_KAFKA=ready["kafka"] or "127.0.0.1:9092",
        PARLEY_POSTGRES=ready["postgres"],
        PARLEY_POSTGRES_PROJECTOR=dsn(PROJECTOR_ROLE, kept.postgres_projector),
        PARLEY_POSTGRES_READER=dsn(READER_ROLE, kept.postgres_reader),
    )
    try:
        return parley_history.settings.from_env(env)
    except parley_history.settings.SettingsError as error:
        raise CommandError(str(error)) from None

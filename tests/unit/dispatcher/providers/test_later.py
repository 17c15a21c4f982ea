"""A provider that is made when it is first needed, and closed if it was."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

from parley_dispatcher.providers import build, close, provider_of
from parley_dispatcher.providers.base import Event, Request, Stopped
from parley_dispatcher.providers.later import Later
from parley_dispatcher.settings import Settings
from parley_events.body import Usage
from parley_events.clock import system_clock
from parley_events.objects import open_objects
from tests.unit.dispatcher.providers.test_claude import REQUEST


class Made:
    closed = False

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        yield Stopped("end_turn", Usage())

    async def close(self) -> None:
        self.closed = True


async def test_it_is_made_once_however_many_ask_and_closed_at_the_end() -> None:
    made: list[Made] = []

    def make() -> Made:
        made.append(Made())
        return made[-1]

    later = Later(make)

    async def turn() -> list[Event]:
        return [event async for event in later.stream(REQUEST)]

    heard = await asyncio.gather(*(turn() for _ in range(5)))
    assert [len(events) for events in heard] == [1] * 5 and len(made) == 1
    await later.close()
    assert made[0].closed
    await Later(make).close()
    assert len(made) == 1


async def test_every_name_but_one_is_served_by_claude() -> None:
    providers = build(Settings(), open_objects("memory:"), system_clock)
    assert provider_of(providers, "scripted") is providers["scripted"]
    for name in ("claude-sonnet-5-5", "llama", ""):
        assert provider_of(providers, name) is providers["claude"]
    await close(providers)


def test_a_start_without_claude_does_not_pay_for_it() -> None:
    program = (
        "import sys\nfrom parley_dispatcher import app, providers, settings\n"
        "from parley_events import clock, objects\n"
        "def make(**given):\n"
        "    providers.build(settings.Settings(**given), objects.open_objects('memory:'), clock.system_clock)\n"
        "    return 'anthropic' in sys.modules\n"
        "print(make(), make(anthropic_api_key='k'))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]

"""A rebuild makes the choice again that an administrator made: what the live view skipped, it skips."""

from __future__ import annotations

from parley_events.objects import open_objects
from parley_history.rebuild.run import back, rebuild
from parley_history.settings import Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer
from tests.contract.history.test_skips import T1, WS, skip, spoilt, stopped


async def test_what_was_skipped_is_skipped_again_and_stays_on_record(settings: Settings) -> None:
    log, memory = ListLog(4), open_objects("memory:")
    writer = Writer(log)
    run = writer.post(T1, WS)
    place = spoilt(log, writer)
    writer.turn(T1, WS, run, "said after it")
    async with running(settings, log) as client:
        await stopped(client)
        await skip(client, place)
        await client.caught_up(log)
        outcome = await rebuild(settings, log, memory)
        assert (outcome.differences, outcome.switched) == ([], True)
        assert len((await client.get("/skips"))["items"]) == 1
        place = spoilt(log, writer)
        await stopped(client)
        await skip(client, place)
        await client.caught_up(log)
        assert (await back(settings, log, memory)).switched
        assert len((await client.get("/skips"))["items"]) == 2
        await client.caught_up(log)

"""PostgreSQL killed and started again under a running history: reads say 503, and everything catches up by itself."""

from __future__ import annotations

from parley_history.migrate import migrate
from tests.contract.history.conftest import Client, running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import Writer, thread, workspace
from tests.contract.history.test_projector import until
from tests.support.postgres import NewServer

WS, T1 = workspace(1), thread(1)


async def test_postgres_killed_and_started_again(new_postgres: NewServer) -> None:
    own_server = new_postgres()
    settings = await settings_for(own_server)
    await migrate(settings)
    log = ListLog(4)
    writer = Writer(log)
    async with running(settings, log) as client:
        for outage in range(2):
            run = writer.post(T1, WS, command=f"a{outage}")
            await client.caught_up(log)
            own_server.kill() if outage == 0 else own_server.stop()
            away = await client.http.get(f"/internal/workspaces/{WS}/threads/{T1}")
            assert (away.status_code, away.json(), away.headers["retry-after"]) == (503, {"error": "unavailable"}, "1")
            assert (await client.http.get("/readyz")).status_code == 503
            assert (await client.http.get("/livez")).status_code == 200
            writer.turn(T1, WS, run, f"said while it was away {outage}")
            writer.complete(T1, WS, run)
            own_server.start()
            await until(lambda: _reads_again(client))
            await client.caught_up(log)
            expected = Reference(writer.written).run(T1, run)
            assert await client.get(f"/workspaces/{WS}/runs/{run}") == expected
            assert (await client.http.get("/readyz")).json()["status"] == "ready"


async def test_a_history_started_while_postgres_is_away_gets_going_when_it_comes(new_postgres: NewServer) -> None:
    own_server = new_postgres()
    settings = await settings_for(own_server)
    await migrate(settings)
    own_server.stop()
    log = ListLog(4)
    Writer(log).post(T1, WS)
    async with running(settings, log) as client:
        assert (await client.http.get("/readyz")).status_code == 503
        own_server.start()
        await until(lambda: _reads_again(client))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/threads/{T1}"))["id"] == T1


async def _reads_again(client: Client) -> bool:
    return (await client.http.get("/internal/positions")).status_code == 200

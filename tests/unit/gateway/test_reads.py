"""Reading: after one's own writes, on any gateway, and honest when the view or the log cannot say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from parley_events.errors import LogUnavailable
from parley_events.ids import run_id
from parley_gateway.errors import Problem
from parley_gateway.reads import check_position, thread_of_run
from tests.support.asgi import Exchange, ask, exchange
from tests.unit.gateway.world import World, run_id_of, silence, world

BASE = "/api/v1/chat"
THREAD = "0f0f0f0f-1111-4222-8333-444444444444"


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.dispatcher.play = silence
        yield made


async def get(here: World, path: str, gateway: int = 0, **options: object) -> Exchange:
    return await ask(here.gateways[gateway][0], "GET", path, key=here.key, **options)


async def new_thread(here: World) -> str:
    made = await ask(here.gateways[0][0], "POST", f"{BASE}/threads", key=here.key, body={"agent_id": "scripted"})
    return str(made.json()["id"])


async def new_run(here: World, thread: str) -> str:
    path = f"{BASE}/threads/{thread}/messages"
    said = await ask(here.gateways[0][0], "POST", path, key=here.key, body={"content": "hi"})
    return str(said.json()["run_id"])


async def test_every_id_of_an_accepted_request_is_found_on_another_gateway(here: World) -> None:
    """The view is behind when it is asked for; the log is what counts."""
    await here.application()
    here.past.held.clear()
    thread = await new_thread(here)
    run = await new_run(here, thread)
    paths = [
        f"{BASE}/threads/{thread}",
        f"{BASE}/threads/{thread}/messages",
        f"{BASE}/runs/{run}",
        f"/api/org/chat/runs/{run}",
    ]
    reading = [asyncio.create_task(get(here, path, 1)) for path in paths]
    await here.eventually(lambda: len(here.past.asked) >= 8)
    here.past.held.set()
    assert [(await one).status for one in reading] == [200, 200, 200, 202]


async def test_what_the_view_is_too_far_behind_to_know_is_503_and_not_404(here: World) -> None:
    await here.application()
    here.past.held.clear()
    thread = await new_thread(here)
    late = await get(here, f"{BASE}/threads/{thread}", 1)
    assert (late.status, late.json()["error"]) == (503, "behind")
    assert late.headers["retry-after"]
    here.past.held.set()
    assert (await get(here, f"{BASE}/threads/{thread}", 1)).status == 200


async def test_while_the_log_is_away_nobody_says_that_there_is_no_such_thing(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(topic: str) -> dict[int, int]:
        raise LogUnavailable("away")

    thread = await new_thread(here)
    assert (await get(here, f"{BASE}/threads/{thread}")).status == 200
    monkeypatch.setattr(here.log, "ends", away)
    assert (await get(here, f"{BASE}/threads/{thread}")).status == 200, "what the view has needs no log"
    missing = await get(here, f"{BASE}/threads/{THREAD}")
    assert missing.status == 503 and missing.headers["retry-after"]


@pytest.mark.parametrize("base", [BASE, "/api/org/chat"])
async def test_a_run_that_was_accepted_and_is_not_decided_yet_is_503_and_not_404(here: World, base: str) -> None:
    """Its partition is between two owners: the id was told with a 202, and no view knows it."""
    await here.application()
    thread = await new_thread(here)
    here.dispatcher.deaf = True
    path = f"{BASE}/threads/{thread}/messages"
    posting = asyncio.create_task(
        ask(here.gateways[0][0], "POST", path, key=here.key, headers={"Idempotency-Key": "k"}, body={"content": "hi"})
    )
    await here.eventually(lambda: here.dispatcher.heard[-1].type == "message.post")
    run = run_id(thread, here.dispatcher.heard[-1].id)
    for address in (f"{base}/runs/{run}", f"{base}/runs/{run}/events"):
        early = await get(here, address, 1)
        assert early.status == 503 and early.headers["retry-after"], address
    posting.cancel()
    await asyncio.gather(posting, return_exceptions=True)


async def test_what_nobody_asked_for_is_404_at_once(here: World) -> None:
    thread = await new_thread(here)
    async with asyncio.timeout(1.0):
        for missing in (f"{BASE}/threads/{THREAD}", f"{BASE}/runs/{thread}.r0123456789abcdef"):
            assert (await get(here, missing)).status == 404


async def test_a_list_shows_what_the_same_key_was_just_told(here: World) -> None:
    await new_thread(here)
    here.past.held.clear()
    thread = await new_thread(here)
    here.past.asked.clear()
    listing = asyncio.create_task(get(here, f"{BASE}/threads"))
    await here.eventually(lambda: here.past.asked)
    assert not listing.done()
    here.past.held.set()
    assert thread in [item["id"] for item in (await listing).json()["items"]]


async def test_a_list_does_not_wait_for_another_keys_writes(here: World) -> None:
    await new_thread(here)
    here.past.held.clear()
    await new_thread(here)
    other = await ask(here.gateways[0][0], "GET", f"{BASE}/threads", key=here.admin_key)
    assert (other.status, other.json()["total"]) == (200, 1)
    here.past.held.set()


async def test_what_a_stream_showed_is_not_behind_it(here: World) -> None:
    """A client that saw the end of a run reads it as ended, however far the view is."""
    thread = await new_thread(here)
    run = await new_run(here, thread)
    await here.eventually(lambda: len(here.past.facts.get(thread, [])) == 2)
    posted = here.past.facts[thread][1][1]
    assert run_id_of(posted) == run
    async with exchange(here.gateways[0][0], "GET", f"{BASE}/runs/{run}/events", key=here.key) as x:
        await x.until(lambda x: x.parts)
        here.past.held.clear()
        here.dispatcher.completed(posted)
        await x.end()
    reading = asyncio.create_task(get(here, f"{BASE}/runs/{run}"))
    here.past.asked.clear()
    await here.eventually(lambda: here.past.asked)
    assert not reading.done()
    here.past.held.set()
    assert (await reading).json()["status"] == "completed"


async def test_a_thread_that_goes_while_it_is_read_is_404(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = await new_thread(here)
    real = here.core.reads.thread

    async def then_gone(*args: object) -> object:
        view = await real(*args)  # type: ignore[arg-type]
        deleted = await ask(here.gateways[0][0], "DELETE", f"{BASE}/threads/{thread}", key=here.key)
        assert deleted.status == 204
        return view

    monkeypatch.setattr(type(here.core.reads), "thread", lambda self, *args: then_gone(*args))
    gone = await get(here, f"{BASE}/threads/{thread}/messages")
    assert (gone.status, gone.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    "run",
    ["", "x", THREAD, f"{THREAD.upper()}.r01", f"{THREAD}.r{'0' * 41}"]
    + [THREAD + tail for tail in (".", ".r", ".rx", ".m0123", ".r01?limit=1", ".r01#", ".r01\0", ".r01\n", "..")],
)
async def test_what_cannot_be_a_run_is_asked_of_nobody(here: World, run: str) -> None:
    with pytest.raises(Problem) as problem:
        thread_of_run(run)
    assert problem.value.status == 404
    here.past.asked.clear()
    await get(here, f"{BASE}/runs/{run}")
    assert not [path for path in here.past.asked if "/runs/" in path]


def test_a_run_names_its_thread() -> None:
    assert thread_of_run(f"{THREAD}.r0123456789abcdef") == THREAD


@pytest.mark.parametrize(
    "text", ["", "x", "@1", "a@b", "1.x", "-1.2", "1.-2", f"{THREAD}@", f"{THREAD}@1.5", "x" * 300 + "@1"]
)
def test_a_position_that_parley_never_gave_out_is_400(text: str) -> None:
    with pytest.raises(Problem) as problem:
        check_position(text)
    assert (problem.value.status, problem.value.code) == (400, "bad_position")


def test_positions_that_parley_gives_out_are_taken() -> None:
    for text in (f"{THREAD}@0", f"{THREAD}@12", f"ws:{THREAD}@3", "0.0", "7.123"):
        check_position(text)

"""Rate limits: how often a key may ask, in whose words it is told so, and how gateways agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from parley_events.counts import COUNTS_TOPIC, Count, encode_counts
from parley_events.errors import LogUnavailable
from parley_events.keys import make_key
from parley_events.log import Incoming
from parley_events.rates import Rate
from parley_gateway import limits as limiting
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Problem
from parley_gateway.http import endpoint
from parley_gateway.limits import Limits, Window, slot_ms
from parley_gateway.settings import Settings
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import World, say, world

THREADS = "/api/v1/chat/threads"
MINUTE = Rate(3, 60_000)
OTHER = "22222222-2222-4333-8444-555555555555"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def limits(clock: Clock, keys: Rate | None = MINUTE, workspaces: Rate | None = None) -> Limits:
    return Limits(keys, workspaces, clock, "here", lambda: None)


def who(key: str = "k", workspace: str = "w", rate: Rate | None = None) -> Principal:
    return Principal(workspace, "ann", key, frozenset({"*"}), rate)


def refused(counting: Limits, principal: Principal) -> Problem:
    with pytest.raises(Problem) as caught:
        counting.count(principal)
    return caught.value


# ---- counting


@given(st.lists(st.integers(0, 30_000), max_size=60), st.integers(1, 5))
def test_never_more_than_the_limit_in_any_window_and_never_long_after_it(gaps: list[int], count: int) -> None:
    clock, rate = Clock(), Rate(count, 60_000)
    counting = limits(clock, rate)
    taken: list[int] = []
    for gap in gaps:
        clock.now_ms += gap
        recent = [at for at in taken if at > clock.now_ms - rate.window_ms]
        lingering = [at for at in taken if at > clock.now_ms - rate.window_ms - slot_ms(rate.window_ms)]
        try:
            headers = counting.count(who())
        except Problem as problem:
            assert len(lingering) >= count, "refused too early"
            clock.now_ms += int(problem.headers["Retry-After"]) * 1000
            counting.count(who())
            taken.append(clock.now_ms)
            continue
        assert len(recent) < count, "let in too often"
        taken.append(clock.now_ms)
        assert 0 <= int(headers["RateLimit-Remaining"]) <= count - len(recent) - 1
        assert int(headers["RateLimit-Limit"]) == count
        assert 0 < int(headers["RateLimit-Reset"]) <= 61


def test_the_headers_say_what_is_left_and_when_there_is_more() -> None:
    clock = Clock()
    counting = limits(clock)
    assert [counting.count(who())["RateLimit-Remaining"] for _ in range(2)] == ["2", "1"]
    clock.now_ms += 30_000
    assert counting.count(who()) == {"RateLimit-Limit": "3", "RateLimit-Remaining": "0", "RateLimit-Reset": "31"}
    problem = refused(counting, who())
    assert (problem.code, problem.status) == ("rate_limited", 429)
    assert problem.headers["Retry-After"] == problem.headers["RateLimit-Reset"] == "31"
    assert problem.message == "this key may ask 3 times in 60 s; try again in 31 s"
    refused(counting, who())
    clock.now_ms += 31_000
    assert counting.count(who())["RateLimit-Remaining"] == "1", "what was refused was not counted"
    assert counting.count(who("another"))["RateLimit-Remaining"] == "2"


def test_a_keys_own_limit_counts_before_the_setting_and_the_workspaces_beside_it() -> None:
    clock = Clock()
    counting = limits(clock, MINUTE, Rate(5, 60_000))
    own = who("own", rate=Rate(4, 1000))
    assert counting.count(own)["RateLimit-Limit"] == "4"
    for _ in range(3):
        counting.count(own)
    assert refused(counting, own).message.startswith("this key may ask 4 times in 1 s")
    assert counting.count(who())["RateLimit-Limit"] == "5", "the tighter one is shown"
    clock.now_ms += 2000
    problem = refused(counting, own)
    assert problem.message.startswith("all keys of this workspace together may ask 5 times in 60 s")
    assert counting.count(who(workspace="another"))["RateLimit-Remaining"] == "2"


def test_without_a_limit_nothing_is_counted() -> None:
    counting = limits(Clock(), None)
    assert not counting.count(who())
    assert not counting._windows and not counting._untold and not counting._needed.is_set()


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "MOST_SUBJECTS", 10)
    monkeypatch.setattr(limiting, "MOST_TOLD", 5)
    clock = Clock()
    counting = limits(clock)
    for number in range(50):
        counting.count(who(f"k{number}"))
    assert len(counting._windows) == 10 and len(counting._untold) == 5
    window = Window()
    for _ in range(1000):
        clock.now_ms += 500
        window.counted(60_000, clock())
        window.add(clock() - clock() % slot_ms(60_000), 1)
    assert len(window._slots) <= limiting.SLOTS + 2


def test_what_others_counted_counts_here_once_and_ones_own_echo_does_not() -> None:
    clock = Clock()
    counting = limits(clock)

    def heard(gateway: str, at_ms: int, requests: int, subject: str = "w/k") -> None:
        sent = encode_counts(gateway, [Count(subject, at_ms, requests, 60_000)])
        counting._heard(Incoming(COUNTS_TOPIC, 0, 0, 0, None, sent.value, sent.headers))

    heard("here", clock(), 3)
    heard("there", clock() - 70_000, 3)
    heard("there", clock(), 1)
    heard("there", clock(), 1, "w/another")
    assert counting.count(who())["RateLimit-Remaining"] == "1"
    heard("elsewhere", clock(), 4)
    problem = refused(counting, who())
    assert problem.headers["RateLimit-Remaining"] == "0"
    counting._heard(Incoming(COUNTS_TOPIC, 0, 0, 0, None, b"garbage", ()))
    for _ in range(500):
        clock.now_ms += 1000
        heard("there", clock(), 1, "w/never asked here")
    assert len(counting._windows["w/never asked here"]._slots) <= limiting.SLOTS + 1, "it is let go of here, too"
    assert counting.count(who())["RateLimit-Remaining"] == "2"


# ---- over HTTP


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.dispatcher.play = say("ok")
        yield made


async def limited_key(here: World, rate: str, *scopes: str) -> str:
    body = {"user": "ann", "scopes": scopes or ("*",), "rate_limit": rate}
    made = await ask(here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body=body)
    assert made.status == 201 and made.json()["rate_limit"] == rate
    return str(made.json()["key"])


def counted(app: Any) -> int:
    """All that a gateway has counted, and heard of the others."""
    windows = app.state.core.limits._windows.values()
    return sum(sum(window._slots.values()) for window in windows)


def remaining(found: Exchange) -> str | None:
    return found.headers.get("ratelimit-remaining")


async def test_every_answer_of_a_limited_key_says_so_errors_and_streams_too(here: World) -> None:
    app, key = here.gateways[0][0], await limited_key(here, "7/hour")
    thread = await ask(app, "POST", THREADS, key=key, body={"agent_id": "scripted"})
    path = f"{THREADS}/{thread.json()['id']}/messages"
    found = [
        thread,
        await ask(app, "GET", f"{THREADS}/{OTHER}", key=key),
        await ask(app, "POST", path, key=key, body={"content": 1}),
        await ask(app, "POST", path, key=key, body={"content": "hi"}, headers={"Accept": "text/event-stream"}),
        await ask(app, "GET", "/api/v1/keys", key=key),
        await ask(app, "PUT", THREADS, key=key),
        await ask(app, "GET", "/api/v1/agents", key=key),
    ]
    assert [x.status for x in found] == [201, 404, 400, 200, 403, 405, 200]
    assert len(found[3].parts) > 2, "a stream of several frames counts once"
    assert [remaining(x) for x in found] == ["6", "5", "4", "3", "2", None, "1"]
    assert {x.headers["ratelimit-limit"] for x in found if x.status != 405} == {"7"}
    assert remaining(await ask(app, "GET", THREADS, key=here.key)) is None, "a key without a limit"
    assert remaining(await ask(app, "GET", THREADS, key=make_key(OTHER, b"x" * 32))) is None, "no key of ours"


async def test_an_answer_that_makes_its_head_itself_says_so_too(here: World) -> None:
    """As that of a foreign application does, which is handed the request."""

    class Foreign(Response):
        def __init__(self) -> None:
            self.status_code, self.background = 200, None

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 203, "headers": [(b"x-own", b"1")]})
            await send({"type": "http.response.body", "body": b"own"})

    async def handler(core: Core, request: Request, who: Principal) -> Response:
        return Foreign()

    app = here.gateways[0][0]
    app.router.routes.append(endpoint(here.core, "/foreign", {"GET": handler}, flat=True))
    for key, left in ((here.key, None), (await limited_key(here, "3/hour"), "2")):
        found = await ask(app, "GET", "/foreign", key=key)
        assert (found.status, found.body, found.headers["x-own"], remaining(found)) == (203, b"own", "1", left)


async def test_a_key_that_asks_too_often_is_told_so_in_each_contracts_words_and_nothing_happens(here: World) -> None:
    app, key = here.gateways[0][0], await limited_key(here, "1/hour")
    await ask(app, "GET", "/api/v1/agents", key=key)
    heard = len(here.dispatcher.heard)
    for path, flat in ((THREADS, True), ("/api/org/chat/message", False), ("/api/v1/agents", False)):
        found = await ask(app, "POST", path, key=key, body={})
        body = found.json()
        assert found.status == 429 and (body["error"] if flat else body["error"]["code"]) == "rate_limited", path
        assert 3500 < int(found.headers["retry-after"]) <= 3660
        assert found.headers["ratelimit-remaining"] == "0" and found.headers["content-type"] == "application/json"
    assert len(here.dispatcher.heard) == heard


@pytest.mark.parametrize("rate", ["", "fast", "10/day", "0/minute", "10"])
async def test_a_limit_that_is_none_is_refused(here: World, rate: str) -> None:
    body = {"user": "ann", "scopes": ["*"], "rate_limit": rate}
    found = await ask(here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body=body)
    assert (found.status, found.json()["error"]["code"]) == (400, "bad_rate_limit")
    if rate:
        with pytest.raises(ValueError, match=r"PARLEY_RATE_LIMIT.*as 60/minute"):
            Settings.from_env({"PARLEY_RATE_LIMIT": rate})


async def test_two_gateways_count_together_within_a_second_and_a_third_that_starts_later_too(here: World) -> None:
    await here.application()
    key = await limited_key(here, "10/hour")
    apps = [app for app, _ in here.gateways]
    for number in range(6):
        assert (await ask(apps[number % 2], "GET", THREADS, key=key)).status == 200
    told = asyncio.get_running_loop().time()
    await here.eventually(lambda: [counted(app) for app in apps] == [6, 6])
    assert asyncio.get_running_loop().time() - told < 1.0
    assert [remaining(await ask(app, "GET", THREADS, key=key)) for app in apps] == ["3", "3"]
    await here.eventually(lambda: [counted(app) for app in apps] == [8, 8])
    third = await here.application()
    assert (await ask(third, "GET", THREADS, key=key)).status == 200
    await here.eventually(lambda: counted(third) == 9)
    assert remaining(await ask(third, "GET", THREADS, key=key)) == "0"
    await here.eventually(lambda: [counted(app) for app in apps] == [10, 10])
    for app in (*apps, third):
        assert (await ask(app, "GET", THREADS, key=key)).status == 429


async def test_without_limits_the_topic_is_neither_written_nor_read(here: World) -> None:
    await here.application()
    for app, _ in here.gateways:
        assert (await ask(app, "GET", THREADS, key=here.key)).status == 200
    assert not here.log._readers[COUNTS_TOPIC]
    assert set((await here.log.ends(COUNTS_TOPIC)).values()) == {0}
    await ask(here.gateways[0][0], "GET", THREADS, key=await limited_key(here, "9/hour"))
    await here.eventually(lambda: here.log._readers[COUNTS_TOPIC])


async def test_a_rotated_key_has_used_up_what_it_had(here: World) -> None:
    body = {"user": "ann", "scopes": ["*"], "rate_limit": "2/hour"}
    app = here.gateways[0][0]
    made = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body=body)).json()
    assert remaining(await ask(app, "GET", THREADS, key=made["key"])) == "1"
    rotated = await ask(app, "POST", f"/api/v1/keys/{made['id']}/rotate", key=here.admin_key)
    assert remaining(await ask(app, "GET", THREADS, key=rotated.json()["key"])) == "0"


async def test_a_setting_limits_every_key_and_a_workspaces_keys_together() -> None:
    async with world(sockets=False, rate_limit="3/hour", workspace_rate_limit="4/hour") as here:
        app = here.gateways[0][0]
        found = [await ask(app, "GET", THREADS, key=here.key) for _ in range(4)]
        assert [x.status for x in found] == [200, 200, 200, 429]
        found = [await ask(app, "GET", THREADS, key=here.admin_key) for _ in range(2)]
        assert [x.status for x in found] == [200, 429]
        foreign = make_key(OTHER, b"f" * 32)
        await here.workspace(OTHER, "other", {"admin": foreign})
        assert (await ask(app, "GET", THREADS, key=foreign)).status == 200, "another tenant has its own"


async def test_while_the_log_is_away_each_gateway_counts_alone_and_tells_later(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.application()
    apps = [app for app, _ in here.gateways]
    key = await limited_key(here, "4/hour")
    monkeypatch.setattr(limiting, "_AGAIN_S", 0.01)
    monkeypatch.setattr(limiting, "TELL_S", 0.01)
    tries = asyncio.Event()

    async def away() -> Any:
        tries.set()
        raise LogUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(here.log, "producer", away)
        for app in apps:
            for _ in range(2):
                assert (await ask(app, "GET", THREADS, key=key)).status == 200, "nobody waits"
        await asyncio.wait_for(tries.wait(), 5)
    await here.eventually(lambda: [counted(app) for app in apps] == [4, 4])
    for app in apps:
        assert (await ask(app, "GET", THREADS, key=key)).status == 429

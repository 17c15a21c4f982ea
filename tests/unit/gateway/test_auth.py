"""Keys: who is let in, what each may do, and how fast a revoked one is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Principal
from parley_events.codec import Fact
from parley_events.commands import CreateKey
from parley_events.keys import key_hash, make_key
from parley_gateway.settings import Settings
from tests.support.system import collect, new_thread, stream
from tests.unit.gateway.world import WORKSPACE, World, silence, world

THREADS = "/api/v1/chat/threads"
SYSTEM = Principal(user_id="system", admin=True)


async def key_for(here: World, user: str, *scopes: str) -> str:
    """A new key, known to the gateway through its fact alone."""
    key = make_key(WORKSPACE, f"{user}{scopes}".encode().ljust(32, b".")[:32])
    key_id = f"{user}-{'-'.join(scopes)}".replace("*", "all").replace(":", "-")
    body = CreateKey(principal=SYSTEM, key_id=key_id, key_hash=key_hash(key), user_id=user, scopes=scopes)
    await here.command(f"key-{user}-{scopes}", ids.workspace_stream(WORKSPACE), body)
    await here.eventually(lambda: key_hash(key) in here.core.auth._known)
    return key


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Basic abc", "Bearer nonsense", f"Bearer {make_key(WORKSPACE, b'x' * 32)}"],
)
async def test_no_good_key_is_401(here: World, header: str | None) -> None:
    async with httpx2.AsyncClient(base_url=here.gateways[0][1], trust_env=False) as client:
        for path in (THREADS, "/api/v1/keys", "/api/org/log"):
            answer = await client.get(path, headers={} if header is None else {"Authorization": header})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["error"]


async def test_a_bad_key_asks_history_once_in_a_second(here: World) -> None:
    async with here.client(key=make_key(WORKSPACE, b"z" * 32)) as client:
        here.past.asked.clear()
        for _ in range(5):
            assert (await client.get(THREADS)).status_code == 401
        assert len(here.past.asked) == 1


async def test_keys_work_while_postgres_is_away_and_revocation_acts_at_once(here: World) -> None:
    eve = await key_for(here, "eve", "*")
    async with here.client(key=here.admin_key) as admin, here.client(key=eve) as client:
        thread = await new_thread(client, "scripted")
        assert (await admin.get("/api/v1/agents")).status_code == 200
        here.past.away = True
        here.dispatcher.play = silence
        assert (await client.post(f"{THREADS}/{thread}/messages", json={"content": "hi"})).status_code == 202
        here.past.away = False
        async with stream(client, "GET", f"{THREADS}/{thread}/events") as (_, frames):
            assert (await anext(frames)).type == "thread.created"
            here.past.away = True
            assert (await admin.delete("/api/v1/keys/eve-all")).status_code == 204
            rest = [frame.type async for frame in frames]
            assert "run.completed" not in rest, "its open streams end, too"
        assert (await client.get(THREADS)).status_code == 401


async def test_a_rotated_keys_streams_end_at_every_gateway_and_its_new_secret_is_let_in(here: World) -> None:
    """Whoever opened them showed the secret that was replaced."""
    await here.gateway()
    eve = await key_for(here, "eve", "*")
    await here.eventually(lambda: key_hash(eve) in here.gateways[1][0].state.core.auth._known)
    async with here.client(key=here.admin_key) as admin, here.client(1, eve) as client:
        thread = await new_thread(client, "scripted")
        async with stream(client, "GET", f"{THREADS}/{thread}/events") as (_, frames):
            assert (await anext(frames)).type == "thread.created"
            rotated = await admin.post("/api/v1/keys/eve-all/rotate")
            assert [frame.type async for frame in frames] == []
        assert (await client.get(THREADS)).status_code == 401
        async with here.client(1, rotated.json()["key"]) as again:
            assert (await again.get(f"{THREADS}/{thread}")).status_code == 200


async def test_a_revocation_that_passes_while_the_key_is_loaded_wins(here: World) -> None:
    """The read is older than the fact: what the fact says counts."""
    here.core.auth._known.clear()
    revoked = f.KeyRevoked(key_id="api")
    here.core.auth._revoked(Fact(revoked.type, f"ws:{WORKSPACE}", 99, 0, WORKSPACE, 0, revoked))
    async with here.client() as client:
        assert (await client.get(THREADS)).status_code == 401
    rotated = f.KeyRotated(key_id="admin", key_hash="0" * 64)
    here.core.auth._replaced(Fact(rotated.type, f"ws:{WORKSPACE}", 100, 0, WORKSPACE, 0, rotated))
    async with here.client(key=here.admin_key) as client:
        assert (await client.get(THREADS)).status_code == 401


async def test_scopes_say_what_a_key_may_do(here: World) -> None:
    async with here.client() as owner:
        own = await new_thread(owner, "scripted")
        other = await new_thread(owner, "assistant")
        open_thread = (await owner.post(THREADS, json={})).json()["id"]
    say = {"json": {"content": "hi"}}
    cases: list[tuple[tuple[str, ...], str, str, Any, int]] = [
        (("chat",), "POST", f"{THREADS}/{own}/messages", say, 202),
        (("chat",), "GET", f"{THREADS}/{own}", {}, 403),
        (("read",), "GET", f"{THREADS}/{own}", {}, 200),
        (("read",), "GET", THREADS, {}, 200),
        (("read",), "POST", f"{THREADS}/{own}/messages", say, 403),
        (("read",), "POST", THREADS, {"json": {}}, 403),
        (("agent:scripted",), "POST", f"{THREADS}/{own}/messages", say, 202),
        (("agent:scripted",), "POST", f"{THREADS}/{other}/messages", say, 403),
        (("agent:scripted",), "POST", f"{THREADS}/{open_thread}/messages", say, 403),
        (("agent:scripted",), "GET", f"{THREADS}/{own}", {}, 200),
        (("agent:scripted",), "GET", f"{THREADS}/{other}/events", {}, 403),
        (("agent:scripted",), "POST", THREADS, {"json": {"agent_id": "assistant"}}, 403),
        (("agent:scripted",), "POST", THREADS, {"json": {"agent_id": "scripted"}}, 201),
        (("agent:scripted",), "DELETE", f"{THREADS}/{other}", {}, 403),
        (("admin",), "GET", "/api/v1/keys", {}, 200),
        (("admin",), "GET", f"{THREADS}/{own}", {}, 403),
        (("*",), "GET", "/api/v1/keys", {}, 403),
        (("*",), "POST", "/api/v1/keys", {"json": {"user": "x", "scopes": ["*"]}}, 403),
        (("approve",), "GET", "/api/v1/agents", {}, 200),
        (("approve",), "GET", THREADS, {}, 403),
    ]
    for scopes, method, path, options, status in cases:
        async with here.client(key=await key_for(here, "ann", *scopes)) as client:
            answer = await client.request(method, path, **options)
            assert answer.status_code == status, (scopes, method, path, answer.text)
    async with here.client(key=await key_for(here, "ann", "agent:scripted")) as client:
        listed = (await client.get(THREADS)).json()["items"]
        assert {item["agent_id"] for item in listed} == {"scripted"}


async def test_another_users_things_are_not_there(here: World) -> None:
    async with here.client() as ann, here.client(key=await key_for(here, "bob", "*")) as bob:
        thread = await new_thread(ann, "scripted")
        frames = await collect(ann, "POST", f"{THREADS}/{thread}/messages", json={"content": "hi"})
        run = frames[0].data["run_id"]
        for method, path in (
            ("GET", f"{THREADS}/{thread}"),
            ("GET", f"{THREADS}/{thread}/messages"),
            ("GET", f"{THREADS}/{thread}/events"),
            ("PATCH", f"{THREADS}/{thread}"),
            ("DELETE", f"{THREADS}/{thread}"),
            ("GET", f"/api/v1/chat/runs/{run}"),
            ("GET", f"/api/v1/chat/runs/{run}/events"),
            ("POST", f"/api/v1/chat/runs/{run}/cancel"),
            ("GET", f"/api/org/chat/runs/{run}"),
        ):
            answer = await bob.request(method, path, json={"title": "x"} if method == "PATCH" else None)
            assert answer.status_code == 404, (method, path, answer.text)
        assert (await bob.get(THREADS, params={"user_id": "ann"})).status_code == 403
        assert (await bob.get(THREADS)).json()["items"] == []
        async with here.client(key=await key_for(here, "boss", "*", "admin")) as boss:
            assert (await boss.get(f"{THREADS}/{thread}")).status_code == 200
            assert len((await boss.get(THREADS, params={"user_id": "ann"})).json()["items"]) == 1


async def test_a_lent_key_is_for_those_who_send_none() -> None:
    async with (
        world(anonymous_key=make_key(WORKSPACE, b"k" * 32)) as here,
        httpx2.AsyncClient(base_url=here.gateways[0][1], trust_env=False) as client,
    ):
        assert (await client.get(THREADS)).status_code == 200
        assert (await client.get(THREADS, headers={"Authorization": "Bearer x"})).status_code == 401


def test_a_key_is_not_lent_to_the_whole_network() -> None:
    lent = Settings(anonymous_key="pk_x")
    with pytest.raises(ValueError, match="PARLEY_ANONYMOUS_KEY_FORCED"):
        replace(lent, host="0.0.0.0")
    assert replace(lent, host="0.0.0.0", anonymous_key_forced=True).anonymous_key == "pk_x"


def test_settings_come_from_the_environment_and_name_what_is_wrong() -> None:
    found = Settings.from_env({"PARLEY_PORT": "9", "PARLEY_HISTORY_URL": "http://a/, http://b", "PARLEY_BEAT_S": "0.5"})
    assert (found.port, found.history_url, found.beat_s) == (9, ("http://a", "http://b"), 0.5)
    for name, value in (("PARLEY_PORT", "x"), ("PARLEY_QUEUE_MB", "-1")):
        with pytest.raises(ValueError, match=name):
            Settings.from_env({name: value})

"""The stream of all threads: every fact that the key may see, live, and of nobody else's threads a single one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from parley_events.keys import make_key
from tests.contract.dialects.watch import Watch
from tests.support.asgi import ask, exchange
from tests.unit.gateway.world import World, say

CHAT = "/api/v1/chat"
OTHER = "22222222-2222-4333-8444-555555555555"
RUN = ("message.posted", "model.called", "model.returned", "run.completed")


async def new_thread(here: World, key: str, agent: str = "scripted") -> str:
    made = await ask(here.gateways[0][0], "POST", f"{CHAT}/threads", key=key, body={"agent_id": agent})
    return str(made.json()["id"])


async def post(here: World, key: str, thread: str, text: str) -> None:
    path = f"{CHAT}/threads/{thread}/messages"
    said = await ask(here.gateways[0][0], "POST", path, key=key, body={"content": text}, params={"wait": ""})
    assert said.status == 200, said.body


async def new_key(here: World, user: str, *scopes: str) -> str:
    body = {"user": user, "scopes": list(scopes)}
    made = await ask(here.gateways[0][0], "POST", "/api/v1/keys", key=here.admin_key, body=body)
    return str(made.json()["key"])


@asynccontextmanager
async def watched(here: World, key: str) -> AsyncIterator[Watch]:
    async with exchange(here.gateways[0][0], "GET", f"{CHAT}/events", key=key) as x:
        await x.until(lambda x: x.sends)
        assert x.status == 200, x.body
        yield Watch(x)


def places(watch: Watch) -> set[tuple[str, Any]]:
    return {(frame.data["thread_id"], frame.data.get("content")) for frame in watch.frames}


async def test_it_shows_the_facts_of_all_ones_threads_and_no_pieces_and_no_ids(here: World) -> None:
    here.dispatcher.play = say("Hello ", "world")
    before = await new_thread(here, here.key)
    await post(here, here.key, before, "not shown: it was said earlier")
    async with watched(here, here.key) as watch:
        await post(here, here.key, before, "one")
        frames = await watch.sees(*RUN)
        assert {frame.data["thread_id"] for frame in frames} == {before}
        later = await new_thread(here, here.key)
        await post(here, here.key, later, "two")
        more = await watch.sees("thread.created", *RUN)
        assert {frame.data["thread_id"] for frame in more} == {later}
        assert [frame.id for frame in watch.frames] == [None] * 9
        assert [frame.data["seq"] for frame in more] == [1, 2, 3, 4, 5]


async def test_another_users_facts_never_show_and_an_admin_sees_them(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    bobs = await new_thread(here, bob)
    await post(here, bob, bobs, "bob, before")
    own = await new_thread(here, here.key)
    async with watched(here, here.key) as anns, watched(here, here.admin_key) as admins, watched(here, bob) as his:
        await post(here, bob, bobs, "bob, of a thread that was there")
        new = await new_thread(here, bob)
        await post(here, bob, new, "bob, of a new thread")
        await post(here, here.key, own, "ann")
        await anns.sees(*RUN)
        await his.sees(*RUN, "thread.created", *RUN)
        await admins.sees(*RUN, "thread.created", *RUN, *RUN)
        assert {thread for thread, _ in places(anns)} == {own}
        assert {thread for thread, _ in places(his)} == {bobs, new}
        assert b"bob" not in anns.exchange.body


async def test_another_workspaces_facts_never_show_not_even_to_an_admin(here: World) -> None:
    here.dispatcher.play = say("ok")
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    theirs = await new_thread(here, foreign)
    own = await new_thread(here, here.key)
    async with watched(here, here.admin_key) as ours, watched(here, foreign) as others:
        await post(here, foreign, theirs, "theirs")
        await new_thread(here, foreign)
        await post(here, here.key, own, "ours")
        await ours.sees(*RUN)
        await others.sees(*RUN, "thread.created")
        assert {thread for thread, _ in places(ours)} == {own}
        assert b"ours" not in others.exchange.body


async def test_facts_of_the_workspace_itself_are_not_shown(here: World) -> None:
    here.dispatcher.play = say("ok")
    own = await new_thread(here, here.key)
    async with watched(here, here.admin_key) as watch:
        await new_key(here, "carol", "*")
        await post(here, here.key, own, "ours")
        await watch.sees(*RUN)
        assert b"key_hash" not in watch.exchange.body


async def test_while_history_is_away_nothing_is_shown_of_a_thread_whose_owner_is_unknown(here: World) -> None:
    here.dispatcher.play = say("ok")
    bob = await new_key(here, "bob", "*")
    bobs = await new_thread(here, bob)
    async with watched(here, here.key) as watch:
        here.past.away = True
        await post(here, bob, bobs, "of bob")
        await watch.ends()
        assert watch.exchange.body == b""


async def test_a_revoked_key_ends_it(here: World) -> None:
    app = here.gateways[0][0]
    body = {"user": "ann", "scopes": ["*"]}
    made = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body=body)).json()
    async with watched(here, made["key"]) as watch:
        await ask(app, "DELETE", f"/api/v1/keys/{made['id']}", key=here.admin_key)
        await watch.ends()
    assert here.core.hub.listening == 0

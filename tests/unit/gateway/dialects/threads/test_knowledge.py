"""`/api/v1/knowledge` and what messages bring beside their text: kept, read again, bounded, and nobody else's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events.commands import PostMessage
from parley_events.documents import MAX_TITLE
from parley_events.keys import make_key
from tests.support.asgi import Exchange, ask
from tests.support.pdf import pdf
from tests.unit.gateway.world import WORKSPACE, World, world

BASE = "/api/v1/knowledge"
THREADS = "/api/v1/chat/threads"
OTHER = "22222222-2222-4333-8444-555555555555"


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        yield made


async def http(here: World, method: str, path: str, body: Any = None, **options: Any) -> Exchange:
    app = here.gateways[options.pop("gateway", 0)][0]
    if body is not None:
        options["body"] = body
    return await ask(app, method, path, key=options.pop("key", here.key), **options)


async def add(here: World, title: str = "Policy", content: str = "Refunds within 14 days.", **options: Any) -> Any:
    found = await http(here, "POST", BASE, {"title": title, "content": content}, **options)
    assert found.status == 201, found.body
    return found.json()


async def new_thread(here: World) -> str:
    found = await http(here, "POST", THREADS, {"agent_id": "scripted"})
    return str(found.json()["id"])


async def test_a_document_is_added_listed_read_and_removed(here: World) -> None:
    one = await add(here)
    assert {name: one[name] for name in ("title", "content_type", "characters")} == {
        "title": "Policy",
        "content_type": "text/plain",
        "characters": 23,
    }
    data = base64.b64encode(pdf("Buy tea")).decode()
    two = (await http(here, "POST", BASE, {"title": "Tea", "content_base64": data})).json()
    listed = (await http(here, "GET", BASE)).json()
    assert [item["id"] for item in listed["items"]] == [two["id"], one["id"]] and listed["total"] == 2
    assert all("content" not in item for item in listed["items"])
    read = (await http(here, "GET", f"{BASE}/{two['id']}")).json()
    assert (read["content"], read["content_type"]) == ("Buy tea", "application/pdf")
    assert (await http(here, "DELETE", f"{BASE}/{one['id']}")).status == 204
    for method in ("GET", "DELETE"):
        found = await http(here, method, f"{BASE}/{one['id']}")
        assert (found.status, found.json()["error"]) == (404, "not_found"), method
    assert (await http(here, "GET", BASE)).json()["total"] == 1


async def test_a_key_makes_one_document_of_many_tries_and_another_body_a_conflict(here: World) -> None:
    await here.application()
    key = {"Idempotency-Key": "k"}
    first = await add(here, headers=key)
    for gateway in (0, 1):
        again = await http(
            here, "POST", BASE, {"content": "Refunds within 14 days.", "title": "Policy"}, headers=key, gateway=gateway
        )
        assert (again.status, again.json()) == (201, first)
        assert again.headers["idempotency-replayed"] == "true"
    other = await http(here, "POST", BASE, {"title": "Policy", "content": "No refunds."}, headers=key)
    assert (other.status, other.json()["error"]) == (409, "idempotency_conflict")
    assert (await http(here, "GET", BASE)).json()["total"] == 1


async def test_another_gateway_knows_a_document_from_its_201_on(here: World) -> None:
    await here.application()
    here.past.held.clear()
    one = await add(here)
    reading = asyncio.create_task(http(here, "GET", f"{BASE}/{one['id']}", gateway=1))
    await here.eventually(lambda: f"workspaces/{WORKSPACE}/knowledge/{one['id']}" in here.past.asked)
    here.past.held.set()
    assert (await reading).status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"title": "t"}, 400, "invalid_document"),
        ({"title": 1, "content": "x"}, 400, "invalid_request"),
        ({"title": "t", "content": 1}, 400, "invalid_request"),
        ({"title": "t", "content_base64": []}, 400, "invalid_request"),
        ({"title": "x" * (MAX_TITLE + 1), "content": "x"}, 400, "invalid_request"),
        ({"title": "t", "content": "x", "content_type": "image/png"}, 400, "unsupported_document"),
        ({"title": "t", "content": "a\u0000"}, 400, "invalid_text"),
        ({"title": "t", "content": "x" * 1_000_001}, 413, "too_large"),
        ({"title": "t", "content": "x" * 9_000_000}, 413, "too_large"),
        ({"title": "t", "content_base64": "A" * (26 * 1024 * 1024 // 3 * 4)}, 413, "too_large"),
        ([1], 400, "invalid_json"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_bad_input_is_refused_and_nothing_is_added(here: World, body: Any, status: int, code: str) -> None:
    found = await http(here, "POST", BASE, body)
    assert (found.status, found.json()["error"]) == (status, code), found.body[:300]
    assert (await http(here, "GET", BASE)).json()["total"] == 0


async def test_a_large_file_is_read_without_being_parsed(here: World) -> None:
    data = base64.b64encode(b"x" * 900_000).decode()
    found = await http(here, "POST", BASE, {"title": "t", "content_base64": data})
    assert (found.status, found.json()["characters"]) == (201, 900_000)
    assert (await http(here, "GET", f"{BASE}/{found.json()['id']}")).json()["content"] == "x" * 900_000


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x"])
async def test_a_limit_out_of_its_range_is_refused(here: World, query: str) -> None:
    name, value = query.split("=")
    assert (await http(here, "GET", BASE, params={name: value})).json()["error"] == "bad_limit"


async def test_ids_that_are_none_are_not_there(here: World) -> None:
    for name in ("k", "%00", "..", "x" * 5000):
        for method in ("GET", "DELETE"):
            assert (await http(here, method, f"{BASE}/{name}")).status == 404, name


# ---- with a message


async def test_a_message_names_documents_and_brings_a_lead_and_both_are_read_again(here: World) -> None:
    one, two = (await add(here))["id"], (await add(here, "Two", "2"))["id"]
    thread = await new_thread(here)
    lead = {"name": "Ada", "score": 0.5, "deep": [{"é": None}]}
    asked = {"content": "hi", "knowledge_ids": [one, two, one], "lead_context": lead}
    said = await http(here, "POST", f"{THREADS}/{thread}/messages", asked, params={"wait": ""})
    assert said.status == 200
    [question, answer] = (await http(here, "GET", f"{THREADS}/{thread}/messages")).json()["items"]
    assert (question["lead_context"], question["knowledge_ids"]) == (lead, [one, two])
    assert "lead_context" not in answer and "knowledge_ids" not in answer
    page = await http(here, "GET", f"{THREADS}/{thread}/events", headers={"Accept": "application/json"})
    [posted] = [frame for frame in page.json()["items"] if frame["type"] == "message.posted"]
    assert (posted["lead_context"], posted["knowledge_ids"]) == (lead, [one, two])
    command = here.dispatcher.heard[-1].body
    assert isinstance(command, PostMessage) and command.knowledge_ids == (one, two)
    stream = f"ws:{WORKSPACE}"
    assert command.workspace_seq == here.dispatcher.state(stream).seq, "the answer knows of both documents"


async def test_the_newest_that_is_known_of_a_workspace_is_what_was_heard(here: World) -> None:
    """A gateway that has never looked at the workspace has heard of its changes all the same."""
    await here.application()
    thread = await new_thread(here)
    await add(here)
    stream = f"ws:{WORKSPACE}"
    core = here.gateways[1][0].state.core
    await here.eventually(lambda: core.hub.newest(stream) == here.dispatcher.state(stream).seq)
    said = await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi"}, gateway=1)
    assert said.status == 202
    command = here.dispatcher.heard[-1].body
    assert isinstance(command, PostMessage) and command.workspace_seq == here.dispatcher.state(stream).seq


async def test_documents_that_are_not_there_or_anothers_are_not_found(here: World) -> None:
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"api": foreign})
    theirs = (await add(here, key=foreign))["id"]
    gone = (await add(here))["id"]
    await http(here, "DELETE", f"{BASE}/{gone}")
    thread = await new_thread(here)
    heard = len(here.dispatcher.heard)
    for name in ("k", theirs, gone, "00000000-0000-4000-8000-000000000000"):
        found = await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi", "knowledge_ids": [name]})
        assert (found.status, found.json()["error"]) == (404, "not_found"), name
        assert (await http(here, "GET", f"{BASE}/{name}")).status == 404
        assert (await http(here, "DELETE", f"{BASE}/{name}")).status == 404
    for wrong in ("k", [1], [None], ["x" * 101], [f"00000000-0000-4000-8000-{n:012d}" for n in range(11)]):
        found = await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi", "knowledge_ids": wrong})
        assert (found.status, found.json()["error"]) == (400, "invalid_request"), wrong
    assert [c.type for c in here.dispatcher.heard[heard:]] == ["knowledge.remove"] * 3, "no message got through"
    assert (await http(here, "GET", BASE, key=foreign)).json()["total"] == 1, "and theirs is still there"


async def test_a_repeated_message_is_answered_as_before_whatever_was_removed_since(here: World) -> None:
    one = (await add(here))["id"]
    thread = await new_thread(here)
    asked = {"content": "hi", "knowledge_ids": [one]}
    url, key = f"{THREADS}/{thread}/messages", {"Idempotency-Key": "k"}
    first = await http(here, "POST", url, asked, headers=key)
    await http(here, "DELETE", f"{BASE}/{one}")
    again = await http(here, "POST", url, asked, headers=key)
    assert (again.status, again.json()["run_id"]) == (202, first.json()["run_id"])
    assert again.headers["idempotency-replayed"] == "true"
    for headers in ({"Idempotency-Key": "other"}, {}):
        assert (await http(here, "POST", url, asked, headers=headers)).status == 404
    for none in ("", "x", "0" * 99):
        refused = await http(here, "POST", url, {"content": "hi", "knowledge_ids": [none]}, headers=key)
        assert (refused.status, refused.json()["error"]) == (404, "not_found"), "no document can be called that"


async def test_a_lead_is_a_bounded_json_object(here: World) -> None:
    thread = await new_thread(here)
    fits = {"a": "x" * (64 * 1024 - 8)}
    for lead, status, code in (
        (fits, 202, None),
        ({"a": "x" * (64 * 1024)}, 413, "too_large"),
        ([1], 400, "invalid_request"),
        ("x", 400, "invalid_request"),
        ({"a": "\u0000"}, 400, "invalid_text"),
    ):
        found = await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi", "lead_context": lead})
        assert (found.status, found.json().get("error")) == (status, code), str(lead)[:50]


async def test_while_history_is_away_messages_without_documents_go_on(here: World) -> None:
    one = (await add(here))["id"]
    thread = await new_thread(here)
    here.past.away = True
    found = await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi", "knowledge_ids": [one]})
    assert (found.status, found.json()["error"]) == (503, "unavailable") and "retry-after" in found.headers
    assert (await http(here, "POST", f"{THREADS}/{thread}/messages", {"content": "hi"})).status == 202
    assert (await http(here, "POST", BASE, {"title": "t", "content": "c"})).status == 201, "adding needs no read"

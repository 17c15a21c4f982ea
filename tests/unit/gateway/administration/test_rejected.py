"""Commands that were set aside: who may see them, how their bytes are shown, and how they are sent again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events import ids
from parley_events.codec import Command, decode_command, encode_command, rejected_record
from parley_events.commands import PostMessage
from parley_events.keys import make_key
from parley_events.log import Incoming
from parley_events.partition import partition_of
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import PARTITIONS, WORKSPACE, World, world

BASE = "/api/v1/rejected"
OTHER = "22222222-2222-4333-8444-555555555555"
OTHER_ADMIN = make_key(OTHER, b"o" * 32)
THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"
PARTITION = partition_of(THREAD.encode(), PARTITIONS)


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        yield made


async def admin(here: World, method: str, path: str = "", **options: Any) -> Exchange:
    return await ask(here.gateways[0][0], method, BASE + path, key=options.pop("key", here.admin_key), **options)


def message(text: str, workspace_id: str = WORKSPACE, thread: str = THREAD) -> Command:
    principal = {"user_id": "ann", "admin": False}
    body = PostMessage.model_validate(
        {"principal": principal, "text": text, "agent_id": "scripted", "agent_version": 1, "open": {"user_id": "ann"}}
    )
    return Command("old-command", thread, workspace_id, 1_776_695_400_123, body)


async def put(here: World, command: Command, offset: int, reason: str = "poison", **spoilt: Any) -> str:
    """A command that was set aside; the name it goes by."""
    sent = encode_command(command, PARTITIONS)
    fields = {"key": sent.key, "value": sent.value, "headers": sent.headers} | spoilt
    record = Incoming("parley.commands", sent.partition, offset, 1_776_695_400_123, **fields)
    producer = await here.log.producer()
    await producer.send(rejected_record(record, "parley.rejected", reason, "what was wrong with it"))
    await producer.close()
    return f"{sent.partition}-{offset}"


async def second_workspace(here: World) -> None:
    await here.workspace(OTHER, "second", {"admin": OTHER_ADMIN}, user="bob")


async def test_what_was_set_aside_is_listed_once_the_newest_first(here: World) -> None:
    assert (await admin(here, "GET")).json() == {"items": [], "total": 0}
    first = await put(here, message("/text one"), 5)
    second = await put(here, message("/text two"), 9, "undecodable")
    await put(here, message("/text one"), 5)  # a dispatcher died between setting it aside and saying so
    listed = (await admin(here, "GET")).json()
    assert [item["id"] for item in listed["items"]] == [second, first] and listed["total"] == 2
    item = listed["items"][1]
    assert item | {"rejected_at": ""} == {
        "id": first,
        "reason": "poison",
        "message": "what was wrong with it",
        "rejected_at": "",
        "type": "message.post",
        "stream": THREAD,
        "workspace_id": WORKSPACE,
        "command_id": "old-command",
        "source": "/parley/gateway",
        "redrive_of": None,
        "size": item["size"],
    }
    assert [i["id"] for i in (await admin(here, "GET", params={"limit": "1"})).json()["items"]] == [second]


async def test_only_administrators_see_them_and_only_those_of_their_workspace(here: World) -> None:
    await second_workspace(here)
    ours = await put(here, message("/text ours"), 1)
    theirs = await put(here, message("/text theirs", OTHER), 2)
    nobodys = await put(here, message("/text nobody's"), 3, "undecodable", headers=(("ce_type", b"message.post"),))
    two_faced = await put(here, message("/text x", OTHER), 4, key=ids.workspace_stream(WORKSPACE).encode())
    for method, path in (("GET", ""), ("GET", f"/{ours}"), ("POST", f"/{ours}/redrive")):
        assert (await admin(here, method, path, key=here.key, body={} if method == "POST" else None)).status == 403
    listed = [item["id"] for item in (await admin(here, "GET")).json()["items"]]
    assert sorted(listed) == sorted([ours, nobodys, two_faced])
    listed = [item["id"] for item in (await admin(here, "GET", key=OTHER_ADMIN)).json()["items"]]
    assert listed == [theirs]
    for key, name in ((OTHER_ADMIN, ours), (OTHER_ADMIN, nobodys), (OTHER_ADMIN, two_faced), (here.admin_key, theirs)):
        assert (await admin(here, "GET", f"/{name}", key=key)).status == 404
        assert (await admin(here, "POST", f"/{name}/redrive", key=key, body={})).status == 404
    heard = len(here.dispatcher.heard)
    assert (await admin(here, "POST", f"/{theirs}/redrive", key=OTHER_ADMIN, body={})).status == 200
    assert [command.workspace_id for command in here.dispatcher.heard[heard:]] == [OTHER]


@pytest.mark.parametrize("name", ["", "x", "1", "0-", "-1", "0-1-2", "999-1", "0-99999999999999999999", "0-%00", "٠-١"])
async def test_what_is_no_such_record_is_not_found(here: World, name: str) -> None:
    assert (await admin(here, "GET", f"/{name}")).status in (404, 405, 200 if name == "" else 404)
    if name:
        assert (await admin(here, "POST", f"/{name}/redrive", body={})).status == 404


async def test_bytes_are_shown_safely(here: World) -> None:
    value = b"\x1b[31mred\x00\xff\xfe \xe2\x80\xae line\r\n\ttab \xc3\xa9" + b"x" * 100_000
    heads = (("ce_workspaceid", WORKSPACE.encode()), ("\x1b]0;title\x07", b"\x1b[2J" + b"y" * 5000))
    name = await put(here, message("x"), 7, "undecodable", value=value, headers=heads)
    answer = await admin(here, "GET", f"/{name}")
    shown = answer.json()
    assert shown["body"].startswith("\\x1b[31mred\\x00\\xff\\xfe \\u202e line\\r\n\ttab é")
    assert shown["cut"] is True and shown["size"] == len(value) and len(shown["body"]) < 70_000
    [[_, workspace], [title, erase]] = shown["headers"]
    assert workspace == WORKSPACE and title == "\\x1b]0;title\\x07"
    assert erase.startswith("\\x1b[2Jyy") and len(erase) < 1100
    assert b"\x1b" not in answer.body and "\u202e" not in answer.body.decode()


async def test_a_record_is_sent_again_as_a_new_command_that_names_it(here: World) -> None:
    name = await put(here, message("/text at last"), 11)
    answer = await admin(here, "POST", f"/{name}/redrive", body={})
    told = answer.json()
    assert answer.status == 200 and told["redrive_of"] == name and told["outcome"] == "message.posted"
    again = here.dispatcher.heard[-1]
    assert (again.id, again.redrive_of, again.stream, again.workspace_id) == (told["id"], name, THREAD, WORKSPACE)
    assert again.id != "old-command" and again.body == message("/text at last").body
    assert (again.correlation_id or "").startswith(f"redrive:{name}:")
    assert not again.fresh
    facts = here.past.facts[THREAD]
    assert (facts[0][1].type, facts[0][1].causation_id) == ("message.posted", again.id)
    # Sent once more it is another command; under a key it is the same one.
    keyed = [await admin(here, "POST", f"/{name}/redrive", body={}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert keyed[0].json()["id"] == keyed[1].json()["id"] != told["id"]
    assert keyed[1].headers["idempotency-replayed"] == "true"


async def test_a_refusal_of_what_is_sent_again_is_told(here: World) -> None:
    refused = message("/text x").body.model_copy(update={"agent_id": "nobody", "agent_version": None})
    command = Command("old", THREAD, WORKSPACE, 0, refused)
    name = await put(here, command, 3)
    answer = await admin(here, "POST", f"/{name}/redrive", body={})
    assert answer.status == 404 and answer.json()["error"]["code"] == "unknown_agent"


async def test_what_cannot_be_decoded_needs_a_corrected_body(here: World) -> None:
    name = await put(here, message("x"), 8, "undecodable", value=b"{not json")
    heard = len(here.dispatcher.heard)
    answer = await admin(here, "POST", f"/{name}/redrive", body={})
    assert answer.status == 400 and answer.json()["error"]["code"] == "cannot_redrive"
    assert len(here.dispatcher.heard) == heard
    body = json.loads(message("/text corrected").body.model_dump_json())
    answer = await admin(here, "POST", f"/{name}/redrive", body={"body": body})
    assert answer.status == 200 and here.dispatcher.heard[-1].body == message("/text corrected").body


async def test_a_record_without_readable_headers_is_sent_again_when_told_what_it_is(here: World) -> None:
    name = await put(here, message("x"), 8, "undecodable", value=b"\x00", headers=(), key=b"\xff")
    body = json.loads(message("/text found again").body.model_dump_json())
    assert (await admin(here, "POST", f"/{name}/redrive", body={"body": body})).status == 400
    corrected = {"body": body, "type": "message.post", "stream": THREAD}
    assert (await admin(here, "POST", f"/{name}/redrive", body=corrected)).status == 200
    again = here.dispatcher.heard[-1]
    assert (again.stream, again.workspace_id, again.redrive_of) == (THREAD, WORKSPACE, name)
    # Whose it is nobody can tell: the first workspace's administrator says where it belongs.
    await second_workspace(here)
    placed = corrected | {"stream": "00000000-0000-4000-8000-00000000002a", "workspace_id": OTHER}
    assert (await admin(here, "POST", f"/{name}/redrive", body=placed)).status == 200
    assert here.dispatcher.heard[-1].workspace_id == OTHER


async def test_a_correction_never_leads_into_another_workspace(here: World) -> None:
    await second_workspace(here)
    ours = await put(here, message("/text ours"), 1)
    theirs = await put(here, message("/text theirs", OTHER), 2)
    heard = len(here.dispatcher.heard)
    for key, name, to in ((here.admin_key, ours, OTHER), (OTHER_ADMIN, theirs, WORKSPACE)):
        moved = {"stream": ids.workspace_stream(to), "workspace_id": to, "type": "workspace.change", "body": {}}
        assert (await admin(here, "POST", f"/{name}/redrive", key=key, body=moved)).status == 400
        moved = {"stream": THREAD, "workspace_id": to}
        assert (await admin(here, "POST", f"/{name}/redrive", key=key, body=moved)).status == 400
    assert len(here.dispatcher.heard) == heard


async def test_a_redriven_command_carries_its_origin_on_the_wire() -> None:
    command = message("/text a")
    sent = encode_command(Command(**{**{n: getattr(command, n) for n in command.__slots__}, "redrive_of": "3-17"}), 4)
    assert dict(sent.headers)["ce_redriveof"] == b"3-17"
    record = Incoming("parley.commands", sent.partition, 0, 0, sent.key, sent.value, sent.headers)
    assert decode_command(record).redrive_of == "3-17"

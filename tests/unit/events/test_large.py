"""Large contents: what leaves a record, how it comes back, and what only looks like a reference."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from parley_events.body import Block, Principal, ThreadSeed, Usage
from parley_events.codec import Command, Fact, decode_command, decode_fact, encode_command, encode_fact, head_of
from parley_events.commands import PostMessage
from parley_events.contents import Contents
from parley_events.errors import ObjectMissing, ObjectsUnavailable, Undecodable
from parley_events.facts import FactBody, MessagePosted, ModelReturned
from parley_events.large import LARGE_BYTES, OBJECTS_HEADER
from parley_events.log import Incoming, Outgoing
from parley_events.objects import open_objects

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
WORKSPACE = "11111111-2222-4333-8444-555555555555"
OTHER = "22222222-2222-4333-8444-555555555555"
BIG = "x" * LARGE_BYTES


def read(record: Outgoing) -> Incoming:
    return Incoming(record.topic, record.partition, 7, 1, record.key, record.value, record.headers)


def command(text: str, **more: Any) -> Command:
    body = PostMessage(principal=Principal(user_id="ann"), text=text, **more)
    return Command("c", THREAD, WORKSPACE, 1, body)


def returned(text: str, workspace_id: str = WORKSPACE) -> Fact:
    body: FactBody = ModelReturned(
        run_id="r", call=2, turn=0, blocks=(Block(kind="text", text=text),), stop_reason="end", usage=Usage()
    )
    return Fact(body.type, THREAD, 3, 1, workspace_id, 1, body, run_id="r", call=2)


@pytest.fixture
def contents() -> Contents:
    return Contents(open_objects("memory:"))


async def test_what_is_large_leaves_the_record_and_comes_back_byte_for_byte(contents: Contents) -> None:
    asked = command("\x01" * LARGE_BYTES + "é\u2028\\", context={"n": 10**40, "f": 0.1}, metadata={"m": BIG})
    await contents.keep(WORKSPACE, asked.body)
    record = read(encode_command(asked, 4, contents.stored))
    assert len(record.value or b"") < 1000
    assert (await contents.whole(record)).header(OBJECTS_HEADER) is None
    again = decode_command(await contents.whole(record))
    assert again.body == asked.body
    assert again.body_hash == decode_command(await contents.whole(record)).body_hash, "read twice it is the same"


async def test_a_reference_has_the_form_that_other_readers_know(contents: Contents) -> None:
    fact = returned(BIG)
    await contents.keep(WORKSPACE, fact.body)
    record = read(encode_fact(fact, 0, contents.stored))
    data = json.dumps([block.model_dump() for block in fact.body.blocks], separators=(",", ":")).encode()  # type: ignore[attr-defined]
    sha256 = hashlib.sha256(data).hexdigest()
    assert record.header("ce_objects") == f"blocks={sha256}:{len(data)}".encode()
    assert json.loads(record.value or b"")["blocks"] == {"$object": sha256, "size": len(data)}
    assert await contents._objects.get(WORKSPACE, sha256) == data


async def test_what_a_command_said_its_outcome_refers_to_without_a_second_object(contents: Contents) -> None:
    asked = command(BIG, open=ThreadSeed(system_prompt=BIG))
    await contents.keep(WORKSPACE, asked.body)
    other = Contents(contents._objects)
    body = decode_command(await other.whole(read(encode_command(asked, 4, contents.stored)))).body
    assert isinstance(body, PostMessage)
    posted: FactBody = MessagePosted.model_validate(
        {
            "message_id": "m",
            "run_id": "r",
            "answer_id": "a",
            "disposition": "started",
            "agent_id": "a",
            "agent_version": 1,
            "author": {"id": "ann"},
            "text": body.text,
            "opened": body.open,
        }
    )
    fact = Fact(posted.type, THREAD, 1, 1, WORKSPACE, 1, posted)
    record = read(encode_fact(fact, 0, other.stored))
    assert len(record.value or b"") < 2000
    assert decode_fact(await contents.whole(record)).body == posted


async def test_small_contents_and_those_that_are_not_stored_stay(contents: Contents) -> None:
    small, large = returned("x" * (LARGE_BYTES - 200)), returned(BIG)
    await contents.keep(WORKSPACE, small.body)
    for fact in (small, large):
        record = read(encode_fact(fact, 0, contents.stored))
        assert not head_of(record).objects
        assert await contents.whole(record) is record
        assert decode_fact(record).body == fact.body


async def test_what_one_workspace_stored_is_nothing_to_another(contents: Contents) -> None:
    fact = returned(BIG)
    await contents.keep(WORKSPACE, fact.body)
    assert not head_of(read(encode_fact(fact._replace(workspace_id=OTHER), 0, contents.stored))).objects
    record = read(encode_fact(fact, 0, contents.stored))
    moved = replace(
        record, headers=tuple((n, OTHER.encode() if n == "ce_workspaceid" else v) for n, v in record.headers)
    )
    with pytest.raises(ObjectMissing):
        await contents.whole(moved)


async def test_an_object_of_another_size_than_was_said_is_not_taken(contents: Contents) -> None:
    fact = returned(BIG)
    await contents.keep(WORKSPACE, fact.body)
    record = read(encode_fact(fact, 0, contents.stored))
    field, _, size = (record.header(OBJECTS_HEADER) or b"").rpartition(b":")
    headers = tuple((name, field + b":1" if name == OBJECTS_HEADER else text) for name, text in record.headers)
    with pytest.raises(ObjectMissing, match=f"has {size.decode()} bytes, not 1"):
        await contents.whole(replace(record, headers=headers))


async def test_a_record_that_is_not_whole_is_never_decoded(contents: Contents) -> None:
    asked, fact = command("hi", context={"k": BIG}), returned(BIG)
    await contents.keep(WORKSPACE, asked.body)
    await contents.keep(WORKSPACE, fact.body)
    with pytest.raises(Undecodable, match="object store"):
        decode_command(read(encode_command(asked, 4, contents.stored)))
    record = read(encode_fact(fact, 0, contents.stored))
    assert head_of(record).objects
    with pytest.raises(Undecodable, match="object store"):
        decode_fact(record)


async def test_what_only_looks_like_a_reference_is_what_somebody_wrote(contents: Contents) -> None:
    secret = b'"secret"'
    sha256 = await contents._objects.put(WORKSPACE, secret)
    looks = {"$object": sha256, "size": len(secret)}
    asked = command(BIG, context=looks)
    await contents.keep(WORKSPACE, asked.body)
    body = decode_command(await contents.whole(read(encode_command(asked, 4, contents.stored)))).body
    assert isinstance(body, PostMessage) and body.context == looks and body.text == BIG


@pytest.mark.parametrize("header", ["", "text", "text=abc:1", f"../x={'0' * 64}:1", f"text={'0' * 64}:1,", "\xff"])
async def test_a_header_that_is_none_is_undecodable(contents: Contents, header: str) -> None:
    record = read(encode_command(command("hi"), 4))
    record = replace(record, headers=(*record.headers, (OBJECTS_HEADER, header.encode("latin-1"))))
    with pytest.raises(Undecodable, match=OBJECTS_HEADER):
        await contents.whole(record)


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b"[" * 100_000, None])
async def test_a_body_that_is_none_is_undecodable(contents: Contents, value: bytes | None) -> None:
    sha256 = await contents._objects.put(WORKSPACE, b'"x"')
    record = read(encode_command(command("hi"), 4))
    headers = (*record.headers, (OBJECTS_HEADER, f"text={sha256}:3".encode()))
    with pytest.raises(Undecodable, match="no JSON object"):
        await contents.whole(replace(record, value=value, headers=headers))


async def test_contents_that_are_no_json_are_undecodable_in_the_end(contents: Contents) -> None:
    sha256 = await contents._objects.put(WORKSPACE, b"no json")
    record = read(encode_command(command("hi"), 4))
    record = replace(record, headers=(*record.headers, (OBJECTS_HEADER, f"text={sha256}:7".encode())))
    with pytest.raises(Undecodable):
        decode_command(await contents.whole(record))


class Counting:
    """Objects that count what is put; `error` is raised instead."""

    def __init__(self) -> None:
        self.puts: list[str] = []
        self.error: Exception | None = None

    async def put(self, workspace_id: str, data: bytes) -> str:
        if self.error is not None:
            raise self.error
        self.puts.append(hashlib.sha256(data).hexdigest())
        return self.puts[-1]

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        raise ObjectMissing("none")


async def test_what_is_known_to_be_stored_is_not_put_again_and_the_memory_is_bounded() -> None:
    objects = Counting()
    contents = Contents(objects, remembered=2)
    for number in (0, 0, 1, 2, 2, 0):
        await contents.keep(WORKSPACE, command(BIG + str(number)).body)
    assert len(objects.puts) == 4, "the oldest was forgotten"
    assert [contents.stored(WORKSPACE, sha256) for sha256 in objects.puts] == [True, False, True, True]


async def test_what_could_not_be_put_is_not_known() -> None:
    objects = Counting()
    objects.error = ObjectsUnavailable("away")
    contents = Contents(objects)
    with pytest.raises(ObjectsUnavailable):
        await contents.keep(WORKSPACE, command(BIG).body)
    assert not contents.stored(WORKSPACE, hashlib.sha256(f'"{BIG}"'.encode()).hexdigest())
    await contents.keep(WORKSPACE, command("small").body)

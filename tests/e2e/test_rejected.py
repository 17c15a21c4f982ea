"""Records put straight on `parley.commands` by another producer: good ones are decided, the others are put aside.

What is refused is found in `parley.rejected` with a reason and the same bytes, and its partition moves on.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from parley_events.partition import partition_of
from tests.support.runs import check_run, follow, post
from tests.support.sse import text_of
from tests.support.system import System, eventually, new_thread
from tests.support.topics import Record, put, read_topic


class Message:
    """A `message.post` as another producer would write it by the book (CloudEvents 1.0, binary mode), to be spoilt."""

    def __init__(self, system: System, thread: str, text: str) -> None:
        ready = system.ready()
        self.thread = thread
        self.id = str(uuid.uuid4())
        self.key: bytes | None = thread.encode()
        self.partition = partition_of(thread.encode(), 8)
        self.body: dict[str, Any] = {"principal": {"user_id": ready["user"]}, "text": text}
        self.raw: bytes | None = None
        self.heads = {
            "content-type": b"application/json",
            "ce_specversion": b"1.0",
            "ce_id": self.id.encode(),
            "ce_source": b"/somewhere/else",
            "ce_type": b"message.post",
            "ce_subject": thread.encode(),
            "ce_time": b"2025-06-01T12:00:00Z",
            "ce_workspaceid": ready["workspace_id"].encode(),
        }

    @property
    def value(self) -> bytes:
        return json.dumps(self.body).encode() if self.raw is None else self.raw

    async def send(self, system: System) -> int:
        heads = list(self.heads.items())
        return await put(system.ready()["kafka"], "parley.commands", self.partition, self.key, self.value, heads)


def wrong_partition(message: Message) -> None:
    message.partition = (message.partition + 1) % 8


def garbage(message: Message) -> None:
    message.raw, message.heads = b"\x00\xff\xfe{not json", {}


def bad_json(message: Message) -> None:
    message.raw = b'{"principal": {"user_id": "x"}, "text": '


def not_an_object(message: Message) -> None:
    message.raw = b"[1, 2, 3]"


def wrong_types(message: Message) -> None:
    message.body["text"] = {"no": "text"}


def no_body(message: Message) -> None:
    message.raw = b""


def unknown_type(message: Message) -> None:
    message.heads["ce_type"] = b"message.shout"


def headers_that_are_no_text(message: Message) -> None:
    message.heads["ce_type"] = b"\xff\xfe"


def no_id(message: Message) -> None:
    del message.heads["ce_id"]


def no_type(message: Message) -> None:
    del message.heads["ce_type"]


def no_workspace(message: Message) -> None:
    del message.heads["ce_workspaceid"]


def bad_time(message: Message) -> None:
    message.heads["ce_time"] = b"yesterday"


def newer_than_known(message: Message) -> None:
    message.heads["ce_dataschema"] = b"urn:parley:message.post:999"


def key_that_is_no_stream(message: Message) -> None:
    message.key = b"not-a-stream"
    message.heads["ce_subject"] = message.key
    message.partition = partition_of(message.key, 8)


def no_key(message: Message) -> None:
    message.key = None


def key_of_another_stream(message: Message) -> None:
    message.heads["ce_subject"] = str(uuid.uuid4()).encode()


def foreign_workspace_stream(message: Message) -> None:
    message.key = f"ws:{uuid.uuid4()}".encode()
    message.heads["ce_subject"] = message.key
    message.partition = partition_of(message.key, 8)


SPOILT: dict[str, list[Callable[[Message], None]]] = {
    "wrong_partition": [wrong_partition],
    "undecodable": [
        garbage,
        bad_json,
        not_an_object,
        wrong_types,
        no_body,
        unknown_type,
        headers_that_are_no_text,
        no_id,
        no_type,
        no_workspace,
        bad_time,
        newer_than_known,
        key_that_is_no_stream,
        no_key,
        key_of_another_stream,
        foreign_workspace_stream,
    ],
}


async def rejected_at(system: System, partition: int, offset: int) -> Record:
    """The record of `parley.rejected` that was made of a command."""

    async def found() -> Record | None:
        for record in await read_topic(system.ready()["kafka"], "parley.rejected"):
            if (record.head("rejected_partition"), record.head("rejected_offset")) == (str(partition), str(offset)):
                return record
        return None

    record: Record = await eventually(found, 40.0)
    return record


async def test_a_good_command_of_another_producer_is_decided_and_runs(cluster: System) -> None:
    async with cluster.client() as client:
        message = Message(cluster, await new_thread(client), "/text straight from Kafka")
        await message.send(cluster)

        async def run() -> str | None:
            answer = await client.get(
                f"/api/v1/chat/threads/{message.thread}/events", headers={"Accept": "application/json"}
            )
            posted = [fact for fact in answer.json()["items"] if fact["type"] == "message.posted"]
            return posted[0]["run_id"] if posted else None

        run_id = await eventually(run, 40.0)
    frames = await follow(cluster, run_id)
    await check_run(cluster, run_id, frames, "straight from Kafka")


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [pytest.param(reason, spoil, id=spoil.__name__) for reason, all_of in SPOILT.items() for spoil in all_of],
)
async def test_what_is_no_command_is_put_aside_whole_and_the_partition_moves_on(
    cluster: System, reason: str, spoil: Callable[[Message], None]
) -> None:
    async with cluster.client() as client:
        thread = await new_thread(client)
    message = Message(cluster, thread, "/text never said")
    spoil(message)
    offset = await message.send(cluster)
    while partition_of(thread.encode(), 8) != message.partition:
        async with cluster.client() as client:
            thread = await new_thread(client)
    run_id = (await post(cluster, thread, "/text on we go"))["run_id"]
    assert text_of(await follow(cluster, run_id)) == "on we go"
    record = await rejected_at(cluster, message.partition, offset)
    assert record.head("rejected_reason") == reason
    assert record.head("rejected_message"), "no word about what is wrong with it"
    assert record.head("rejected_topic") == "parley.commands"
    assert record.partition == message.partition
    assert (record.key, record.value) == (message.key, message.value)
    assert {name: record.headers.get(name) for name in message.heads} == message.heads
    for outcome in await read_topic(cluster.ready()["kafka"], "parley.events"):
        assert outcome.head("ce_causationid") != message.id, "it was decided all the same"

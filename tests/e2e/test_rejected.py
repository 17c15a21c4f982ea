"""Records put straight on `parley.commands` by another producer: good ones are decided, the others are put aside.

What is refused is found in `parley.rejected` with a reason and the same bytes, and its partition moves on.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parley_events.partition import partition_of
from tests.support.runs import check_run, follow, post
from tests.support.sse import text_of
from tests.support.system import PARLEY, System, eventually, new_thread
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


async def parley(system: System, *words: str) -> tuple[int, str]:
    """The `parley` command on a running system: its status, and what it printed."""
    env = {**os.environ, "DATA": str(system.folder / "data")}
    process = await asyncio.create_subprocess_exec(
        str(PARLEY), *words, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_what_was_put_aside_is_listed_shown_and_sent_again_by_hand(cluster: System, tmp_path: Path) -> None:
    async with cluster.client() as client:
        message = Message(cluster, await new_thread(client), "/text said in the end")
    message.body["text"] = {"no": "text \x1b[2J"}
    offset = await message.send(cluster)
    name = f"{message.partition}-{offset}"
    await rejected_at(cluster, message.partition, offset)
    status, said = await parley(cluster, "rejected", "list", "--json")
    assert status == 0
    item = next(item for item in json.loads(said) if item["id"] == name)
    assert (item["reason"], item["stream"], item["command_id"]) == ("undecodable", message.thread, message.id)
    status, said = await parley(cluster, "rejected", "show", name)
    assert status == 0 and "message.post: text: string_type" in said and "\x1b" not in said
    status, said = await parley(cluster, "rejected", "redrive", name)
    assert status == 1 and "cannot be sent again as it is" in said
    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps(message.body | {"text": "/text said in the end"}))
    status, said = await parley(cluster, "rejected", "redrive", name, "--body", str(corrected), "--json")
    told = json.loads(said)
    assert status == 0 and (told["redrive_of"], told["outcome"]) == (name, "message.posted")
    command = next(
        record
        for record in await read_topic(cluster.ready()["kafka"], "parley.commands", message.partition)
        if record.head("ce_id") == told["id"]
    )
    assert command.head("ce_redriveof") == name
    [posted] = [
        record
        for record in await read_topic(cluster.ready()["kafka"], "parley.events", message.partition)
        if record.head("ce_causationid") == told["id"]
    ]
    assert posted.head("ce_commandoffset") == str(command.offset)
    assert text_of(await follow(cluster, posted.body["run_id"])) == "said in the end"
    status, said = await parley(cluster, "rejected", "show", "0-999999")
    assert status == 1 and "there is no such rejected command" in said

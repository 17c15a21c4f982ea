"""What others may do to Parley's Kafka: records that nobody should write, groups deleted, members that come and go."""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from pathlib import Path

from parley_events.body import Principal, Usage
from parley_events.codec import Command, Fact, encode_command, encode_fact
from parley_events.commands import PostMessage
from parley_events.facts import PartitionClaimed, RunFailed
from parley_events.ids import answer_id
from parley_events.log.open import open_log
from parley_events.partition import partition_of
from parley_events.pieces import Piece, encode_pieces
from tests.faults.cluster import GROUP, PARTITIONS, Cluster
from tests.support.topics import put, read_topic

_DELETE_GROUPS = 42
WRONG = "NOBODY MAY SEE THIS"


async def delete_group(cluster: Cluster, limit_s: float = 40.0) -> None:
    """Delete the dispatchers' group with all its offsets; waits until its members are gone."""
    until = time.monotonic() + limit_s
    while True:
        error = await _delete_group(cluster.kafka.port)
        if error == 0:
            return
        if time.monotonic() > until:
            raise AssertionError(f"the group cannot be deleted: error {error}")
        await asyncio.sleep(0.3)


async def _delete_group(port: int) -> int:
    """One DeleteGroups request (version 0), by hand: the client library has none. Its error code."""
    name = GROUP.encode()
    body = struct.pack(">hhihih", _DELETE_GROUPS, 0, 1, -1, 1, len(name)) + name
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(struct.pack(">i", len(body)) + body)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        answer = await reader.readexactly(length)
    finally:
        writer.close()
    return int(struct.unpack_from(">h", answer, len(answer) - 2)[0])


async def come_and_go(cluster: Cluster, times: int) -> None:
    """A member of the dispatchers' group that joins, does nothing with what it is given, and leaves; so many times."""
    log = await open_log("kafka", cluster.bootstrap, cluster.folder, PARTITIONS, "parley-storm")

    async def let_be(partitions: frozenset[int]) -> None:
        return None

    try:
        for _ in range(times):
            member = await log.group("parley.commands", GROUP, let_be, let_be)
            for _ in range(3):
                await member.batch(timeout_s=0.3)
            await member.close()
    finally:
        await log.close()


async def forge_late_batch(cluster: Cluster, run_id: str, seq: int, epoch: int) -> None:
    """A fact and a piece of text as a superseded owner would write them next, under its old epoch."""
    thread = run_id[:36]
    partition = partition_of(thread.encode(), PARTITIONS)
    failed = RunFailed(run_id=run_id, message_id=answer_id(run_id), code="internal", message=WRONG, usage=Usage())
    now = time.time_ns() // 1_000_000
    fact = Fact(failed.type, thread, seq, epoch, cluster.workspace_id, now, failed, run_id)
    pieces = encode_pieces(partition, epoch, [Piece(thread, seq, 0, "text", 0, WRONG, 0)])
    for record in (encode_fact(fact, partition), pieces):
        await put(cluster.bootstrap, record.topic, record.partition, record.key, record.value, record.headers)


async def forge_claim(cluster: Cluster, partition: int) -> int:
    """A claim by somebody who then does nothing; its offset."""
    body = PartitionClaimed(owner="somebody-0")
    now = time.time_ns() // 1_000_000
    record = encode_fact(Fact(body.type, "", None, 0, "", now, body, causation_id="somebody-0"), partition)
    return await put(cluster.bootstrap, record.topic, record.partition, record.key, record.value, record.headers)


async def put_poison(cluster: Cluster, thread: str) -> int:
    """Records on `parley.commands` that cannot be read, or lie where they do not belong; how many."""
    key, partition = thread.encode(), partition_of(thread.encode(), PARTITIONS)
    message = PostMessage(principal=Principal(user_id="owner"), text="/text never")
    now = time.time_ns() // 1_000_000
    command = Command(id=str(uuid.uuid4()), stream=thread, workspace_id=cluster.workspace_id, time_ms=now, body=message)
    sound = encode_command(command, PARTITIONS)
    heads = dict(sound.headers)
    spoilt: list[tuple[int, bytes | None, bytes | None, dict[str, bytes]]] = [
        (partition, key, b"\x00\xff\xfe{not json", {}),
        (partition, None, sound.value, heads),
        (partition, key, b"[1, 2]", heads),
        (partition, key, None, heads),
        (partition, key, sound.value, heads | {"ce_type": b"message.shout"}),
        (partition, key, sound.value, heads | {"ce_type": b"\xff\xfe"}),
        ((partition + 1) % PARTITIONS, key, sound.value, heads),
    ]
    for place, name, value, headers in spoilt:
        await put(cluster.bootstrap, "parley.commands", place, name, value, list(headers.items()))
    return len(spoilt)


async def put_message(cluster: Cluster, thread: str, text: str) -> None:
    """A message straight on `parley.commands`, as another producer writes it: nobody waits for its outcome."""
    message = PostMessage(principal=Principal(user_id="owner"), text=text)
    now = time.time_ns() // 1_000_000
    command = Command(id=str(uuid.uuid4()), stream=thread, workspace_id=cluster.workspace_id, time_ms=now, body=message)
    record = encode_command(command, PARTITIONS)
    await put(cluster.bootstrap, record.topic, record.partition, record.key, record.value, record.headers)


async def set_aside(cluster: Cluster, thread: str, reason: str, limit_s: float = 60.0) -> None:
    """Wait until a command of a thread lies in `parley.rejected` for a reason."""
    until = time.monotonic() + limit_s
    while True:
        for record in await read_topic(cluster.bootstrap, "parley.rejected"):
            if record.key == thread.encode() and record.head("rejected_reason") == reason:
                return
        if time.monotonic() > until:
            raise AssertionError(f"no command of {thread} was set aside as {reason}")
        await asyncio.sleep(0.5)


def said_in(log: Path, text: str) -> int:
    """How often a process has logged something."""
    return log.read_text(errors="replace").count(text) if log.exists() else 0

"""Evidence, read from everything that was left: the topics from offset 0, the group's offsets, the tables, the ledgers.

Before that all comes to rest: every command finished, every fact in the view. What does not in time is gathered as it
is; the checker will say so.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from parley_events.log.port import Incoming
from tests.faults.cluster import GROUP, PARTITIONS, Cluster
from tests.faults.evidence import Evidence, Execution, Limits, Row

if TYPE_CHECKING:
    from tests.faults.stage import Stage

TOPICS = ("parley.commands", "parley.events", "parley.rejected")
LEDGER_TOOLS = ("ledger__pay", "ledger__book", "ledger__reserve", "ledger__look", "append_line")
REST_S = 60.0
PAUSE_S = 5.0
"""A bystander says a word every 100 ms; a takeover elsewhere, which it must not notice, takes longer than this."""
SCHEMA = "parley"


async def gather(stage: Stage, scenario: str, limits: Limits | None = None) -> Evidence:
    """All that can be seen of a cluster that has come to rest."""
    cluster = stage.cluster
    rest = time.monotonic() + REST_S
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        while True:
            ends = {topic: await _ends(consumer, topic) for topic in TOPICS}
            done = await committed(cluster.bootstrap)
            views = await tables(cluster)
            at = {row["partition"]: row["next_offset"] for row in views.get("positions", ())}
            behind = [p for p, end in ends["parley.commands"].items() if done.get(p, 0) != end]
            unseen = [p for p, end in ends["parley.events"].items() if at.get(p, 0) != end]
            if (not behind and not unseen) or time.monotonic() > rest:
                break
            await asyncio.sleep(0.2)
        read = {topic: await _read(consumer, topic, ends[topic]) for topic in TOPICS}
    finally:
        await consumer.stop()
    return Evidence(
        scenario=scenario,
        seed=stage.seed,
        partitions=PARTITIONS,
        commands=read["parley.commands"],
        events=read["parley.events"],
        rejected=read["parley.rejected"],
        ledger=executions(cluster),
        ledger_tools=LEDGER_TOOLS,
        requests=tuple(stage.record.requests),
        followers=tuple(stage.record.followers),
        views=views,
        moves=await moves(cluster),
        ends=ends,
        committed=done,
        faults=tuple(stage.faults),
        memory=tuple(stage.memory),
        limits=limits or Limits(pause_s=PAUSE_S),
    )


def _parts(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


async def _ends(consumer: Any, topic: str) -> dict[int, int]:
    return {part.partition: end for part, end in (await consumer.end_offsets(_parts(topic))).items()}


async def _read(consumer: Any, topic: str, ends: dict[int, int]) -> tuple[Incoming, ...]:
    wanted = [part for part in _parts(topic) if ends[part.partition]]
    found: list[Incoming] = []
    if not wanted:
        return ()
    consumer.assign(wanted)
    for part in wanted:
        consumer.seek(part, 0)
    while wanted:
        for part, batch in (await consumer.getmany(*wanted, timeout_ms=500, max_records=5000)).items():
            found += [
                Incoming(
                    topic,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    record.key,
                    record.value,
                    tuple((name, value or b"") for name, value in record.headers),
                )
                for record in batch
                if record.offset < ends[part.partition]
            ]
        wanted = [part for part in wanted if await consumer.position(part) < ends[part.partition]]
    return tuple(sorted(found, key=lambda record: (record.partition, record.offset)))


async def committed(bootstrap: str) -> dict[int, int]:
    """What the dispatchers' group has committed, per partition of `parley.commands`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(GROUP)
    finally:
        await admin.close()
    return {part.partition: entry.offset for part, entry in found.items() if entry.offset >= 0}


async def tables(cluster: Cluster) -> dict[str, tuple[Row, ...]]:
    """Every table of the view, row by row, in JSON's types."""
    connection = await cluster.connect()
    try:
        # At one moment: a batch that is folded between two tables would be missing from the first.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            names = await connection.fetch(
                "SELECT table_name FROM information_schema.tables "
                "WHERE table_schema = $1 AND table_type = 'BASE TABLE'",
                SCHEMA,
            )
            found = {}
            for (name,) in names:
                rows = await connection.fetch(f'SELECT * FROM {SCHEMA}."{name}"')
                kinds = {
                    column["column_name"]: column["data_type"]
                    for column in await connection.fetch(
                        "SELECT column_name, data_type FROM information_schema.columns "
                        "WHERE table_schema = $1 AND table_name = $2",
                        SCHEMA,
                        name,
                    )
                }
                found[str(name)] = tuple({key: _plain(value, kinds[key]) for key, value in row.items()} for row in rows)
        return found
    finally:
        await connection.close()


async def moves(cluster: Cluster) -> tuple[Row, ...]:
    """Every move of a position of the view, in order."""
    connection = await cluster.connect()
    try:
        return tuple(dict(row) for row in await connection.fetch("SELECT * FROM faults.moves ORDER BY id"))
    finally:
        await connection.close()


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and kind in ("json", "jsonb"):
        return json.loads(value)
    if isinstance(value, list | tuple):
        return [_plain(item, "") for item in value]
    return value if value is None or isinstance(value, bool | int | float | str | dict) else str(value)


def executions(cluster: Cluster) -> tuple[Execution, ...]:
    """The lines of the tool server's ledger, and of what `append_line` wrote."""
    lines = cluster.ledger.read_text().splitlines() if cluster.ledger.exists() else []
    found = []
    for line in lines:
        entry = json.loads(line)
        found.append(Execution(**entry | {"tool": f"ledger__{entry['tool']}"}))
    for file in sorted(cluster.effects.glob("*.txt")) if cluster.effects.exists() else ():
        found += _appended(file)
    return tuple(found)


def _appended(file: Path) -> list[Execution]:
    return [
        Execution(
            line.partition("\t")[0], "append_line", {"file": file.name, "line": line.partition("\t")[2]}, "unsafe", 0
        )
        for line in file.read_text().splitlines()
    ]

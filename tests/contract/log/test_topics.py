"""The topics on a real broker: made, checked, mended; and `python -m parley_events topics`, by its exit codes."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.new_topic import NewTopic

from parley_events.errors import LogUnavailable, TopicMismatch
from parley_events.log.kafka import KafkaLog
from parley_events.log.kafka_topics import apply_topics, check_topics
from parley_events.topics import TOPICS
from parley_standalone.parts.kafka import Kafka
from tests.contract.log.reading import LIMIT_S

_names = itertools.count()


@pytest.fixture
def prefix() -> Iterator[str]:
    yield f"topics{next(_names)}."


async def make(kafka: Kafka, name: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
        async with asyncio.timeout(LIMIT_S):
            while name not in await admin.list_topics():
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def configure(kafka: Kafka, name: str, settings: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    finally:
        await admin.close()


async def mismatch(kafka: Kafka, prefix: str) -> str:
    """What `check_topics` says is wrong; a broker shows a change of settings a moment after it has taken it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await check_topics(kafka.bootstrap, prefix)
            except TopicMismatch as error:
                return str(error)
            await asyncio.sleep(0.02)


async def test_topics_are_made_and_can_be_opened_at_once(kafka: Kafka, prefix: str) -> None:
    with pytest.raises(TopicMismatch, match=r"parley\.commands, .*topics apply"):
        await check_topics(kafka.bootstrap, prefix)
    with pytest.raises(TopicMismatch, match=r"is missing: .*topics apply"):
        await KafkaLog.open(kafka.bootstrap, prefix=prefix)
    lines = await apply_topics(kafka.bootstrap, 3, prefix=prefix)
    assert lines == [f"made {prefix}{name} with 3 partitions" for name in TOPICS]
    log = await KafkaLog.open(kafka.bootstrap, prefix=prefix)
    assert log.partitions == 3
    await log.close()
    assert await check_topics(kafka.bootstrap, prefix) == 3
    assert await apply_topics(kafka.bootstrap, 3, prefix=prefix) == []


async def test_one_that_is_missing_is_made_and_the_others_are_left_as_they_are(kafka: Kafka, prefix: str) -> None:
    await make(kafka, prefix + "parley.events", 2)
    assert "missing: parley.commands, parley.counts, parley.deltas, parley.rejected" in await mismatch(kafka, prefix)
    lines = await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    assert len([line for line in lines if line.startswith("made")]) == 4
    assert next(line for line in lines if line.startswith("set")).endswith("of parley.events")
    async with asyncio.timeout(LIMIT_S):
        while await apply_topics(kafka.bootstrap, 2, prefix=prefix):
            await asyncio.sleep(0.02)
    assert await check_topics(kafka.bootstrap, prefix) == 2


async def test_another_number_of_partitions_is_refused_and_never_changed(kafka: Kafka, prefix: str) -> None:
    await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    with pytest.raises(TopicMismatch, match=r"has 2 partitions, 4 were asked for: the number is fixed"):
        await apply_topics(kafka.bootstrap, 4, prefix=prefix)
    assert await check_topics(kafka.bootstrap, prefix) == 2
    for partitions in (0, 257):
        with pytest.raises(TopicMismatch, match="1 to 256"):
            await apply_topics(kafka.bootstrap, partitions, prefix=prefix)


async def test_topics_with_different_numbers_of_partitions_are_refused(kafka: Kafka, prefix: str) -> None:
    for place, name in enumerate(TOPICS):
        await make(kafka, prefix + name, 2 + place // 3)
    assert "same number of partitions" in await mismatch(kafka, prefix)
    with pytest.raises(TopicMismatch, match="same number of partitions"):
        await KafkaLog.open(kafka.bootstrap, prefix=prefix)


async def test_a_setting_that_differs_is_named_and_mended(kafka: Kafka, prefix: str) -> None:
    await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    events = prefix + "parley.events"
    await configure(kafka, events, TOPICS["parley.events"].settings() | {"retention.ms": "1000"})
    assert await mismatch(kafka, prefix) == "parley.events: retention.ms is 1000"
    assert await apply_topics(kafka.bootstrap, 2, prefix=prefix) == ["set retention.ms of parley.events"]
    async with asyncio.timeout(LIMIT_S):
        while await apply_topics(kafka.bootstrap, 2, prefix=prefix):
            await asyncio.sleep(0.02)
    assert await check_topics(kafka.bootstrap, prefix) == 2


async def test_a_setting_that_the_catalogue_does_not_name_survives_the_mending(kafka: Kafka, prefix: str) -> None:
    """Above all how many replicas must have a record: it is set when the topic is made."""
    await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    events = prefix + "parley.events"
    settings = TOPICS["parley.events"].settings() | {"retention.ms": "1000", "segment.bytes": "123456789"}
    await configure(kafka, events, settings)
    await mismatch(kafka, prefix)
    await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    async with asyncio.timeout(LIMIT_S):
        while await apply_topics(kafka.bootstrap, 2, prefix=prefix):
            await asyncio.sleep(0.02)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, events)])
    finally:
        await admin.close()
    entries = {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}
    assert (entries["retention.ms"], entries["segment.bytes"]) == ("-1", "123456789")


async def test_more_replicas_than_brokers_are_refused_with_kafkas_own_word(kafka: Kafka, prefix: str) -> None:
    with pytest.raises(TopicMismatch, match="could not be made: InvalidReplicationFactor"):
        await apply_topics(kafka.bootstrap, 2, 3, prefix=prefix)


async def test_a_setting_that_the_broker_refuses_is_not_said_to_be_set(
    kafka: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_topics(kafka.bootstrap, 2, prefix=prefix)
    bad = {"cleanup.policy": "burn"}
    monkeypatch.setattr("parley_events.topics.Topic.settings", lambda _: bad)
    with pytest.raises(TopicMismatch, match=r"parley\.commands could not be set: Invalid"):
        await apply_topics(kafka.bootstrap, 2, prefix=prefix)


async def test_no_broker_is_said_clearly() -> None:
    for asked in (check_topics("127.0.0.1:1"), apply_topics("127.0.0.1:1", 2)):
        with pytest.raises(LogUnavailable, match=r"no Kafka at 127\.0\.0\.1:1"):
            await asked


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "parley_events",
        "topics",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_applies_and_checks_and_says_so_by_its_exit_code(kafka: Kafka) -> None:
    """It knows no prefix: these are the broker's real topics, which no other test touches."""
    at = ("--bootstrap", kafka.bootstrap, "--partitions", "2")
    code, out, err = await run("check", *at)
    assert (code, out) == (1, "")
    assert "missing: parley.commands" in err and "topics apply" in err and "Traceback" not in err
    code, out, err = await run("apply", *at)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        *(f"made {name} with 2 partitions" for name in TOPICS),
        "2 partitions on each topic, as the catalogue says",
    ]
    code, out, err = await run("check", *at)
    assert (code, out, err) == (0, "2 partitions on each topic, as the catalogue says\n", "")
    code, out, err = await run("apply", "--bootstrap", kafka.bootstrap, "--partitions", "3")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "2 partitions, 3 were asked for" in err
    code, out, err = await run("check", "--bootstrap", "127.0.0.1:1")
    assert code == 1 and "no Kafka at 127.0.0.1:1" in err and "Traceback" not in err

"""docs/produce.md, "Who may write": on a broker that holds to its rules each user does its work, and no more."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AclBinding, AdminClient  # type: ignore[attr-defined]

from parley_dispatcher.settings import Settings
from parley_events.errors import LogError, TopicMismatch
from parley_events.log.kafka import KafkaLog
from parley_events.log.kafka_topics import apply_topics, check_topics
from parley_events.log.port import Outgoing
from parley_events.topics import TOPICS
from parley_standalone.parts.kafka import Kafka

PAGE = (Path(__file__).parents[2] / "docs" / "produce.md").read_text("utf-8")
RULES = re.findall(r"^\$ kafka-acls (.*)$", PAGE, re.MULTILINE)
[CLOSED] = re.findall(r"```properties\n(.*?)```", PAGE, re.DOTALL)
USERS = ("topics", "gateway", "dispatcher", "history", "shop", "analytics", "stranger")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker with the page's settings, users with passwords, and nobody's rules yet but the administrator's."""
    folder = tmp_path_factory.mktemp("closed")
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = "".join(f' user_{user}="{user}-pass/word"' for user in ("admin", *USERS))
    more = {
        **dict(line.split("=", 1) for line in CLOSED.splitlines()),
        # The controller's own listener knows no users; it is the broker's alone.
        "super.users": "User:admin;User:ANONYMOUS",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{plain} username="admin" password="admin-pass/word"{users};',
    }
    broker = Kafka(folder / "kafka", folder / "kafka.log", os.environ, security="SASL_PLAINTEXT", more=more)
    broker.start()
    yield broker
    broker.kill()


def address(broker: Kafka, user: str) -> str:
    return f"sasl_plaintext://{user}:{user}-pass%2Fword@{broker.bootstrap}"


def bindings(rule: str) -> list[AclBinding]:
    """What `kafka-acls` makes of its arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--add", action="store_true", required=True)
    for name in ("allow-principal", "operation", "topic", "group"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--resource-pattern-type", default="literal")
    asked = parser.parse_args(shlex.split(rule))
    return [
        AclBinding(
            kind,
            name,
            asked.resource_pattern_type,
            principal,
            "*",
            re.sub("(?<=[a-z])(?=[A-Z])", "_", operation),
            "allow",
        )
        for kind, names in (("topic", asked.topic), ("group", asked.group))
        for name in names
        for principal in asked.allow_principal
        for operation in asked.operation
    ]


def login(broker: Kafka, user: str) -> dict[str, str]:
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": f"{user}-pass/word",
    }


def make_rules(broker: Kafka) -> None:
    admin = AdminClient({**login(broker, "admin")})
    for made in admin.create_acls([binding for rule in RULES for binding in bindings(rule)]).values():
        made.result(20)


def may_write(broker: Kafka, user: str, topic: str) -> bool:
    producer, told = Producer(login(broker, user)), list[KafkaError | None]()
    producer.produce(topic, b"x", partition=0, on_delivery=lambda error, _: told.append(error))
    assert producer.flush(20) == 0
    return _let(told[0])


def may_read(broker: Kafka, user: str, topic: str) -> bool:
    consumer = Consumer({**login(broker, user), "group.id": user, "enable.auto.commit": False})
    try:
        if (error := consumer.list_topics(topic, 20).topics[topic].error) is not None:
            return _let(error)  # not even that there is such a topic
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            message = consumer.poll(20)
            assert message is not None, f"{user} was told nothing about {topic}"
            error = message.error()
            # librdkafka looks its group up before it is needed; whose page's program it is has a rule for it.
            if user == "shop" or error is None or error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                return _let(error)
    finally:
        consumer.close()


def _let(error: KafkaError | None) -> bool:
    assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
    return error is None


ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "gateway": ({"parley.commands", "parley.counts"}, {"parley.events", "parley.deltas", "parley.counts"}),
    "dispatcher": ({"parley.events", "parley.deltas", "parley.rejected"}, {"parley.commands", "parley.events"}),
    "history": (set(), {"parley.events"}),
    "shop": ({"parley.commands"}, {"parley.events", "parley.rejected"}),
    "analytics": (set(), {"parley.events"}),
    "stranger": (set(), set()),
}
"""Who may write, and read, which topics."""


async def _nothing(_: frozenset[int]) -> None:
    """Nothing is to be done when partitions come or go."""


async def test_each_user_does_its_work_and_no_more(broker: Kafka) -> None:
    with pytest.raises(TopicMismatch, match="TopicAuthorizationFailed"):
        await apply_topics(address(broker, "topics"), 2)
    make_rules(broker)
    await apply_topics(address(broker, "topics"), 2)
    assert await check_topics(address(broker, "topics")) == 2
    for topic in TOPICS:
        assert may_write(broker, "admin", topic)
    for user, (written, read) in ALLOWED.items():
        assert {topic for topic in TOPICS if may_write(broker, user, topic)} == written, user
        assert {topic for topic in TOPICS if may_read(broker, user, topic)} == read, user
    # What the services do beyond that: they find all topics, write as idempotent producers, and are a group.
    for user in ("gateway", "dispatcher", "history"):
        log = await KafkaLog.open(address(broker, user))
        assert log.partitions == 2
        await log.close()
    log = await KafkaLog.open(address(broker, "dispatcher"))
    try:
        producer = await log.producer()
        assert await producer.send(Outgoing("parley.events", 0, None, b"x", ())) > 0
        await producer.close(5.0)
        group = await log.group("parley.commands", Settings().group, _nothing, _nothing)
        assert await group.batch(20.0)
        await group.close()
    finally:
        await log.close()


async def test_a_wrong_password_is_refused_and_shown_to_nobody(broker: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    wrong = address(broker, "gateway").replace("word@", "w0rd@")
    for work in (KafkaLog.open(wrong), check_topics(wrong)):
        with pytest.raises(LogError) as caught:
            await work
        assert "w0rd" not in str(caught.value)
    assert "w0rd" not in caplog.text

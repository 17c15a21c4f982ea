"""Making and checking the topics on a broker. Used by `python -m parley_events topics` and by tests."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from parley_events.errors import LogUnavailable, TopicMismatch
from parley_events.log.kafka_address import client_options, servers_of
from parley_events.topics import MAX_PARTITIONS, TOPICS

_LIMIT_S = 30.0
_SET_ON_THE_TOPIC = 1
"""DYNAMIC_TOPIC_CONFIG among the sources that Kafka names for a setting."""


async def apply_topics(bootstrap: str, partitions: int, replication: int = 1, prefix: str = "") -> list[str]:
    """Make the topics that are missing and set what differs; what was done, a line each. Raises TopicMismatch."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise TopicMismatch(f"{partitions} partitions: there must be 1 to {MAX_PARTITIONS}")
    done: list[str] = []
    async with asyncio.timeout(_LIMIT_S):
        admin = await _admin(bootstrap)
        try:
            there = await _partitions(admin, prefix)
            missing = [topic for topic in TOPICS.values() if topic.name not in there]
            if missing:
                answer = await admin.create_topics(
                    [
                        NewTopic(
                            prefix + topic.name,
                            partitions,
                            replication,
                            topic_configs=topic.settings() | {"min.insync.replicas": str(max(replication - 1, 1))},
                        )
                        for topic in missing
                    ]
                )
                for name, code, *_ in answer.topic_errors:
                    if code and for_code(code) is not TopicAlreadyExistsError:
                        raise TopicMismatch(f"the topic {name} could not be made: {for_code(code).__name__}")
                    done.append(f"made {name} with {partitions} partitions")
                # The controller answers before the brokers know: whoever opens the log next must find the topics.
                while not await _settled(admin, [prefix + topic.name for topic in missing]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            for topic in TOPICS.values():
                if topic in missing:
                    continue
                if there[topic.name] != partitions:
                    raise TopicMismatch(
                        f"{topic.name} has {there[topic.name]} partitions, {partitions} were asked for: "
                        "the number is fixed when a topic is made, because it decides which keys live where"
                    )
                differing = await _differing(admin, prefix, topic.name)
                if differing:
                    # The request replaces all of a topic's own settings: those that the catalogue does not name, above
                    # all min.insync.replicas, are sent along as they are.
                    _, own = await _settings(admin, prefix, topic.name)
                    wanted = own | topic.settings()
                    answers = await admin.alter_configs(
                        [ConfigResource(ConfigResourceType.TOPIC, prefix + topic.name, wanted)]
                    )
                    for code, *_ in [resource for answer in answers for resource in answer.resources]:
                        if code:
                            raise TopicMismatch(f"{topic.name} could not be set: {for_code(code).__name__}")
                    done.append(f"set {', '.join(sorted(differing))} of {topic.name}")
        except KafkaError as error:
            raise LogUnavailable(f"Kafka: {type(error).__name__}") from error
        finally:
            await admin.close()
    return done


async def check_topics(bootstrap: str, prefix: str = "") -> int:
    """The number of partitions; TopicMismatch says what is missing or differs."""
    async with asyncio.timeout(_LIMIT_S):
        admin = await _admin(bootstrap)
        try:
            there = await _partitions(admin, prefix)
            missing = TOPICS.keys() - there.keys()
            if missing:
                raise TopicMismatch(f"missing: {', '.join(sorted(missing))}; python -m parley_events topics apply")
            if len(set(there.values())) != 1:
                raise TopicMismatch(f"all topics must have the same number of partitions: {there}")
            for name in TOPICS:
                differing = await _differing(admin, prefix, name)
                if differing:
                    raise TopicMismatch(f"{name}: {', '.join(f'{k} is {v}' for k, v in sorted(differing.items()))}")
        except KafkaError as error:
            raise LogUnavailable(f"Kafka: {type(error).__name__}") from error
        finally:
            await admin.close()
    return next(iter(there.values()))


async def _admin(bootstrap: str) -> Any:
    admin = AIOKafkaAdminClient(**client_options(bootstrap), request_timeout_ms=10_000)
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        raise LogUnavailable(f"no Kafka at {servers_of(bootstrap)}: {type(error).__name__}") from error
    return admin


async def _partitions(admin: Any, prefix: str) -> dict[str, int]:
    names = set(await admin.list_topics())
    asked = [prefix + name for name in TOPICS if prefix + name in names]
    found = await admin.describe_topics(asked) if asked else []
    return {topic["topic"].removeprefix(prefix): len(topic["partitions"]) for topic in found}


async def _settled(admin: Any, names: list[str]) -> bool:
    """Whether the broker that was asked knows these topics, and a leader of each of their partitions."""
    found = await admin.describe_topics(names)
    parts = [part for topic in found for part in topic["partitions"]]
    return all(one["error_code"] == 0 for one in (*found, *parts)) and all(part["leader"] >= 0 for part in parts)


async def _differing(admin: Any, prefix: str, name: str) -> dict[str, str]:
    """The settings that are not as the catalogue has them, with their values."""
    entries, _ = await _settings(admin, prefix, name)
    return {key: str(entries.get(key)) for key, value in TOPICS[name].settings().items() if entries.get(key) != value}


async def _settings(admin: Any, prefix: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """All settings in force of a topic, and those of them that were set on the topic itself."""
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, prefix + name)])
    entries = [entry for resource in answer.resources for entry in resource[4]]
    return {e[0]: e[1] for e in entries}, {e[0]: e[1] for e in entries if e[3] == _SET_ON_THE_TOPIC}

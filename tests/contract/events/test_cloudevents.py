"""The hand-written mapping against the `cloudevents` SDK: what we write it reads, what it writes we read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent

from parley_events.clock import rfc3339
from parley_events.codec import decode_command, decode_fact
from parley_events.log.port import Incoming, Outgoing
from parley_events.partition import partition_of
from tests.contract.events.samples import (
    COMMAND_SAMPLES,
    FACT_SAMPLES,
    OFFSET,
    PARTITIONS,
    RECORD_MS,
    TIME_MS,
)
from tests.contract.events.test_golden import encoded

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXTENSIONS = ("workspaceid", "bodyhash", "correlationid", "traceparent")


def sdk_reads(record: Outgoing) -> CloudEvent:
    headers = dict(record.headers)
    assert len(headers) == len(record.headers), "a header stands there twice"
    event = from_kafka_event(KafkaMessage(headers, record.key, record.value or b""))
    assert isinstance(event, CloudEvent)
    return event


def sdk_writes(attributes: dict[str, Any], data: Any, key: str | None) -> Incoming:
    """The message that the SDK makes of an event, its headers turned around (their order means nothing)."""
    message = to_binary_event(CloudEvent(attributes, data), key_mapper=lambda _: key)
    return Incoming(
        "parley.commands",
        partition_of((key or "").encode(), PARTITIONS),
        OFFSET,
        RECORD_MS,
        message.key.encode() if isinstance(message.key, str) else message.key,
        message.value,
        tuple(reversed(message.headers.items())),
    )


def milliseconds(time: datetime | None) -> int:
    assert time is not None
    return (time - _EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize("name", sorted(COMMAND_SAMPLES | FACT_SAMPLES))
def test_the_sdk_reads_our_records_as_valid_events_with_the_same_attributes(name: str) -> None:
    record = encoded(name)
    sample = (COMMAND_SAMPLES | FACT_SAMPLES)[name]
    event = sdk_reads(record)
    assert event.get_specversion() == "1.0"
    assert event.get_id() == sample.id
    assert event.get_type() == sample.type
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == f"urn:parley:{sample.type}:{sample.body.version}"
    assert event.get_subject() == (sample.stream or None)
    assert milliseconds(event.get_time()) == TIME_MS
    assert event.get_data() == json.loads(record.value or b"")
    assert event.get_extension("workspaceid") == (sample.workspace_id or None)
    assert event.get_extension("bodyhash") == sample.body_hash
    assert event.get_extension("correlationid") == sample.correlation_id
    assert event.get_extension("traceparent") == sample.traceparent
    assert event.get_extension("partitionkey") == (sample.stream or None)  # the SDK's own, made of the key


@pytest.mark.parametrize("name", sorted(FACT_SAMPLES))
def test_the_sdk_reads_what_only_facts_have(name: str) -> None:
    fact = FACT_SAMPLES[name]
    event = sdk_reads(encoded(name))
    assert event.get_source() == "/parley/dispatcher"
    assert event.get_extension("epoch") == str(fact.epoch)
    for extension, value in (
        ("seq", fact.seq),
        ("runid", fact.run_id),
        ("call", fact.call),
        ("causationid", fact.causation_id),
    ):
        assert event.get_extension(extension) == (None if value is None else str(value))


@pytest.mark.parametrize("name", sorted(COMMAND_SAMPLES | FACT_SAMPLES))
def test_what_the_sdk_writes_again_we_read_as_the_same_record(name: str) -> None:
    """Also with the `partitionkey` that it adds, with the whole microseconds of its times, and in any order."""
    sample = (COMMAND_SAMPLES | FACT_SAMPLES)[name]
    event = sdk_reads(encoded(name))
    record = sdk_writes(dict(event.get_attributes()), event.get_data(), sample.stream or None)
    assert "ce_partitionkey" in dict(record.headers) or not sample.stream
    assert (decode_command(record) if name in COMMAND_SAMPLES else decode_fact(record)) == sample


def test_a_producer_with_nothing_but_the_sdk_can_send_a_command() -> None:
    whole = COMMAND_SAMPLES["command.message.post.v1"]
    record = sdk_writes(
        {
            "type": "message.post",
            "source": "https://shop.example.org/orders",
            "id": "order-4711",
            "time": datetime(2026, 4, 20, 16, 30, 0, 123456, tzinfo=UTC),
            "subject": whole.stream,
            "workspaceid": whole.workspace_id,
            "datacontenttype": "application/json; charset=utf-8",
        },
        {"principal": {"user_id": "zoë"}, "text": "Grüße 👋🏽"},
        whole.stream,
    )
    command = decode_command(record)
    assert (command.id, command.stream, command.source) == (
        "order-4711",
        whole.stream,
        "https://shop.example.org/orders",
    )
    assert rfc3339(command.time_ms) == "2026-04-20T16:30:00.123Z"
    assert command.body.model_dump()["text"] == "Grüße 👋🏽"
    assert (command.fresh, command.traceparent, command.correlation_id) == (False, None, None)
    assert len(command.body_hash or "") == 64

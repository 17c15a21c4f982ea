"""Every record of the catalogue as it stands on the wire: what was written once is read for ever.

A file of `golden/` is one record: its headers in order, its key, its body. `PARLEY_WRITE_GOLDEN=1` writes the files
that are missing and changes none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from parley_events.body import Body
from parley_events.codec import (
    COMMANDS_TOPIC,
    EVENTS_TOPIC,
    decode_command,
    decode_fact,
    encode_command,
    encode_fact,
    fact_from,
    head_of,
)
from parley_events.commands import COMMANDS
from parley_events.facts import FACTS
from parley_events.log.port import Incoming, Outgoing
from parley_events.partition import partition_of
from parley_events.pieces import DELTAS_TOPIC, decode_pieces, encode_pieces, pieces_epoch
from tests.contract.events.samples import (
    COMMAND_SAMPLES,
    FACT_SAMPLES,
    OFFSET,
    OLD_COMMANDS,
    OLD_FACTS,
    PARTITION,
    PARTITIONS,
    PIECES,
    RECORD_MS,
)

GOLDEN = Path(__file__).parent / "golden"
PIECES_NAME = "pieces"

LISTED = frozenset(
    (
        "command.agent.delete.v1",
        "command.agent.put.v1",
        "command.approval.answer.v1",
        "command.key.create.v1",
        "command.key.revoke.v1",
        "command.key.rotate.v1",
        "command.knowledge.add.v1",
        "command.knowledge.remove.v1",
        "command.message.post.v1",
        "command.run.cancel.v1",
        "command.skill.put.v1",
        "command.team.delete.v1",
        "command.team.put.v1",
        "command.thread.cancel.v1",
        "command.thread.clear.v1",
        "command.thread.create.v1",
        "command.thread.delete.v1",
        "command.thread.fork.v1",
        "command.thread.mark_read.v1",
        "command.thread.update.v1",
        "command.timer.fire.v1",
        "command.tool.answer.v1",
        "command.tool.settle.v1",
        "command.workspace.change.v1",
        "command.workspace.create.v1",
        "fact.agent.changed.v1",
        "fact.agent.deleted.v1",
        "fact.approval.answered.v1",
        "fact.approval.expired.v1",
        "fact.approval.requested.v1",
        "fact.child.started.v1",
        "fact.command.rejected.v1",
        "fact.command.repeated.v1",
        "fact.command.tried.v1",
        "fact.key.created.v1",
        "fact.key.revoked.v1",
        "fact.key.rotated.v1",
        "fact.knowledge.added.v1",
        "fact.knowledge.removed.v1",
        "fact.message.posted.v1",
        "fact.model.called.v1",
        "fact.model.failed.v1",
        "fact.model.returned.v1",
        "fact.partition.claimed.v1",
        "fact.run.cancelled.v1",
        "fact.run.cancelling.v1",
        "fact.run.completed.v1",
        "fact.run.failed.v1",
        "fact.run.waiting.v1",
        "fact.skill.changed.v1",
        "fact.team.changed.v1",
        "fact.team.deleted.v1",
        "fact.thread.cancelling.v1",
        "fact.thread.cleared.v1",
        "fact.thread.created.v1",
        "fact.thread.deleted.v1",
        "fact.thread.expired.v1",
        "fact.thread.forked.v1",
        "fact.thread.read.v1",
        "fact.thread.updated.v1",
        "fact.tool.answered.v1",
        "fact.tool.called.v1",
        "fact.tool.expired.v1",
        "fact.tool.returned.v1",
        "fact.tool.settled.v1",
        "fact.workspace.changed.v1",
        "fact.workspace.created.v1",
        "pieces",
    )
)
"""Every sample that was ever committed. A name is only ever added."""


def encoded(name: str) -> Outgoing:
    """The record of a sample, as today's code writes it."""
    if name == PIECES_NAME:
        return encode_pieces(PARTITION, *PIECES)
    if name in COMMAND_SAMPLES:
        return encode_command(COMMAND_SAMPLES[name], PARTITIONS)
    return encode_fact(FACT_SAMPLES[name], PARTITION)


def as_file(record: Outgoing) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "key": None if record.key is None else record.key.decode(),
        "headers": [[name, value.decode()] for name, value in record.headers],
        "body": json.loads(record.value or b"null"),
    }


def stored(name: str) -> dict[str, Any]:
    path = GOLDEN / f"{name}.json"
    if not path.exists() and os.environ.get("PARLEY_WRITE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(as_file(encoded(name)), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not path.exists():
        pytest.fail(f"{path.name} is missing: PARLEY_WRITE_GOLDEN=1 writes the sample of a new record")
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return whole


def incoming(sample: dict[str, Any]) -> Incoming:
    """The record in a file, as a log would hand it out."""
    return Incoming(
        sample["topic"],
        PARTITION,
        OFFSET,
        RECORD_MS,
        None if sample["key"] is None else sample["key"].encode(),
        orjson.dumps(sample["body"]),
        tuple((name, value.encode()) for name, value in sample["headers"]),
    )


@pytest.mark.parametrize("name", sorted(COMMAND_SAMPLES | FACT_SAMPLES))
def test_a_sample_sets_every_field_of_its_record(name: str) -> None:
    body: Body = (COMMAND_SAMPLES | FACT_SAMPLES)[name].body
    assert set(type(body).model_fields) == body.model_fields_set
    for field in type(body).content:
        assert getattr(body, field) not in (None, "", (), {})


@pytest.mark.parametrize("name", sorted(COMMAND_SAMPLES))
def test_a_command_of_the_catalogue_is_read_and_written_as_it_was(name: str) -> None:
    sample = stored(name)
    record = incoming(sample)
    assert decode_command(record) == COMMAND_SAMPLES[name]
    again = encode_command(decode_command(record), PARTITIONS)
    assert as_file(again) == sample
    assert again.topic == COMMANDS_TOPIC
    assert again.partition == partition_of(sample["key"].encode(), PARTITIONS)


@pytest.mark.parametrize("name", sorted(FACT_SAMPLES))
def test_a_fact_of_the_catalogue_is_read_and_written_as_it_was(name: str) -> None:
    sample = stored(name)
    record = incoming(sample)
    fact = decode_fact(record)
    assert fact == FACT_SAMPLES[name]
    again = encode_fact(fact, PARTITION)
    assert as_file(again) == sample
    assert (again.topic, again.partition) == (EVENTS_TOPIC, PARTITION)
    head = head_of(record)
    assert not head.objects
    shared = set(head._fields) - {"objects", "headers"}
    assert {field: getattr(fact, field) for field in shared} == {field: getattr(head, field) for field in shared}
    assert fact_from(head.headers, record.value or b"", OFFSET, RECORD_MS) == fact


def test_a_record_of_an_old_version_is_read_as_todays() -> None:
    for name, command in OLD_COMMANDS.items():
        assert decode_command(incoming(stored(name))) == command
    for name, fact in OLD_FACTS.items():
        assert decode_fact(incoming(stored(name))) == fact


def test_a_batch_of_pieces_is_read_and_written_as_it_was() -> None:
    sample = stored(PIECES_NAME)
    record = incoming(sample)
    assert (pieces_epoch(record), tuple(decode_pieces(record))) == PIECES
    again = encode_pieces(PARTITION, pieces_epoch(record), decode_pieces(record))
    assert as_file(again) == sample
    assert (again.topic, again.partition, again.key) == (DELTAS_TOPIC, PARTITION, None)


def test_every_class_of_the_catalogue_has_a_sample_of_each_of_its_versions() -> None:
    wanted = {
        f"{prefix}.{body.type}.v{version}"
        for prefix, catalogue in (("command", COMMANDS), ("fact", FACTS))
        for body in catalogue.values()
        for version in range(1, body.version + 1)
    }
    assert wanted | {PIECES_NAME} == set(COMMAND_SAMPLES | FACT_SAMPLES | OLD_COMMANDS | OLD_FACTS) | {PIECES_NAME}
    assert all(type(sample.body) is COMMANDS[sample.type] for sample in COMMAND_SAMPLES.values())
    assert all(type(sample.body) is FACTS[sample.type] for sample in FACT_SAMPLES.values())


def test_no_sample_was_added_unlisted_or_has_vanished() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == LISTED
    assert set(COMMAND_SAMPLES | FACT_SAMPLES | OLD_COMMANDS | OLD_FACTS) | {PIECES_NAME} == LISTED


def test_missing_samples_are_written_on_demand_and_none_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fact.run.completed.v1"
    original = stored(name)
    monkeypatch.setattr("tests.contract.events.test_golden.GOLDEN", tmp_path)
    monkeypatch.delenv("PARLEY_WRITE_GOLDEN", raising=False)
    with pytest.raises(pytest.fail.Exception, match="PARLEY_WRITE_GOLDEN=1"):
        stored(name)
    monkeypatch.setenv("PARLEY_WRITE_GOLDEN", "1")
    assert stored(name) == original
    (tmp_path / f"{name}.json").write_text('{"kept": true}')
    assert stored(name) == {"kept": True}

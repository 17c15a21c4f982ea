"""What readers make of records that they do not know, or that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events import codec, upcast
from parley_events.body import Json
from parley_events.codec import (
    Fact,
    UnknownBody,
    decode_command,
    decode_fact,
    encode_command,
    encode_fact,
    head_of,
    rejected_record,
)
from parley_events.commands import COMMANDS, CancelRun, CommandBody
from parley_events.errors import RecordTooLarge, Undecodable
from parley_events.facts import FACTS, FactBody, RunCompleted
from parley_events.log.port import Headers, Incoming, Outgoing
from parley_events.pieces import decode_pieces, pieces_epoch
from tests.contract.events.samples import COMMAND_SAMPLES, FACT_SAMPLES, PARTITION, PARTITIONS, THREAD
from tests.contract.events.test_golden import encoded, incoming, stored

COMPLETED = "fact.run.completed.v1"
CANCEL = "command.run.cancel.v1"
SECRET = "the-secret-that-somebody-wrote"


def back(record: Outgoing, offset: int = 3) -> Incoming:
    return Incoming(record.topic, record.partition, offset, 1, record.key, record.value, record.headers)


def with_header(record: Incoming, name: str, value: bytes | None) -> Incoming:
    """The record with another value of a header; without it where there is None."""
    kept = tuple(item for item in record.headers if item[0] != name)
    return replace(record, headers=kept if value is None else (*kept, (name, value)))


# ---- unknown types and newer versions


@pytest.mark.parametrize("body", [b'{"b" : 1,\n "a":[1.0, 1e2, "\\u00e9"]}', b"not even JSON \xff\x00", b""])
@pytest.mark.parametrize("kind", ["thread.sung", "run.completed"])
def test_a_fact_of_an_unknown_type_or_a_newer_version_is_kept_byte_for_byte(kind: str, body: bytes) -> None:
    known = encoded(COMPLETED)
    schema = f"urn:parley:{kind}:{9 if kind in FACTS else 1}".encode()
    record = replace(
        with_header(with_header(back(known), "ce_type", kind.encode()), "ce_dataschema", schema), value=body
    )
    fact = decode_fact(record)
    assert isinstance(fact.body, UnknownBody)
    assert fact.body.raw == body
    assert (fact.type, fact.version) == (kind, int(schema.rpartition(b":")[2]))
    again = encode_fact(fact, PARTITION)
    assert again.value == body
    assert again.key == record.key
    assert sorted(again.headers) == sorted(record.headers)


def test_a_field_that_is_not_known_is_passed_over() -> None:
    sample = stored(COMPLETED)
    newer = {**sample, "body": {**sample["body"], "mood": {"deep": [1]}, "usage": {**sample["body"]["usage"], "x": 1}}}
    assert decode_fact(incoming(newer)) == FACT_SAMPLES[COMPLETED]


def test_a_command_of_a_newer_version_is_refused_and_not_read_as_an_old_one() -> None:
    record = with_header(back(encoded(CANCEL)), "ce_dataschema", b"urn:parley:run.cancel:2")
    with pytest.raises(Undecodable, match="version 2 is newer"):
        decode_command(record)


# ---- old versions


class CompletedV3(FactBody):
    """The fact as it might look two versions on."""

    type: ClassVar[str] = "run.completed"
    version: ClassVar[int] = 3
    run_id: str
    why: str
    how_often: int


class CancelV2(CommandBody):
    type: ClassVar[str] = "run.cancel"
    version: ClassVar[int] = 2
    run_ids: tuple[str, ...]


def first_step(body: Json) -> Json:
    return {**body, "why": body["stop_reason"]}


def second_step(body: Json) -> Json:
    return {**body, "how_often": len(body["why"])}


def test_upcasters_are_chained_and_the_oldest_record_is_read_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTS, "run.completed", CompletedV3)
    monkeypatch.setitem(upcast.UPCASTERS, ("run.completed", 1), first_step)
    monkeypatch.setitem(upcast.UPCASTERS, ("run.completed", 2), second_step)
    fact = decode_fact(incoming(stored(COMPLETED)))
    assert fact.body == CompletedV3(run_id=stored(COMPLETED)["body"]["run_id"], why="end_turn", how_often=8)
    assert fact.version == 1
    sample = stored(COMPLETED)
    middle = with_header(incoming({**sample, "body": {**sample["body"], "why": "12345"}}), "ce_dataschema", b"x:2")
    assert decode_fact(middle).body.model_dump()["how_often"] == 5


def test_commands_are_upcast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "run.cancel", CancelV2)
    monkeypatch.setitem(upcast.UPCASTERS, ("run.cancel", 1), lambda body: {**body, "run_ids": [body["run_id"]]})
    command = decode_command(incoming(stored(CANCEL)))
    assert isinstance(command.body, CancelV2)
    assert command.body.run_ids == (stored(CANCEL)["body"]["run_id"],)


def test_a_step_that_is_missing_or_fails_is_said_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTS, "run.completed", CompletedV3)
    monkeypatch.setitem(upcast.UPCASTERS, ("run.completed", 2), second_step)
    record = incoming(stored(COMPLETED))
    with pytest.raises(Undecodable, match="not what its version says"):
        decode_fact(record)
    monkeypatch.setitem(upcast.UPCASTERS, ("run.completed", 1), first_step)
    for body in (b"[]", b"3", b'"text"', b"null", b"{}", b"{", b""):
        with pytest.raises(Undecodable, match=r"run\.completed"):
            decode_fact(replace(record, value=body))
    with pytest.raises(Undecodable, match="not what its version says"):
        decode_fact(with_header(record, "ce_dataschema", b"urn:parley:run.completed:0"))


# ---- what is no record


@pytest.mark.parametrize(
    ("header", "value", "says"),
    [
        ("ce_type", None, "no ce_type"),
        ("ce_type", b"message.sing", "unknown command type"),
        ("ce_type", b"\xff", "not UTF-8"),
        ("ce_id", None, "no ce_id"),
        ("ce_id", b"", "1 to 200"),
        ("ce_id", b"x" * 201, "1 to 200"),
        ("ce_workspaceid", None, "no ce_workspaceid"),
        ("ce_workspaceid", b"default", "not a UUID"),
        ("ce_subject", b"00000000-0000-4000-8000-000000000000", "differ"),
        ("ce_time", b"yesterday", "RFC 3339"),
        ("ce_time", b"2026-04-20T14:30:00", "RFC 3339"),
        ("ce_dataschema", b"urn:parley:run.cancel:new", "version"),
        ("ce_dataschema", b"urn:parley:run.cancel:" + b"9" * 5000, "version"),
    ],
)
def test_a_command_that_is_none_says_why(header: str, value: bytes | None, says: str) -> None:
    record = with_header(back(encoded(CANCEL)), header, value)
    with pytest.raises(Undecodable, match=says):
        decode_command(record)


@pytest.mark.parametrize("name", ["ce_bodyhash", "ce_correlationid", "ce_traceparent"])
def test_a_header_of_a_command_that_has_no_value_says_so(name: str) -> None:
    record = with_header(back(encoded(CANCEL)), name, None)
    no_value: Any = (name, None)
    with pytest.raises(Undecodable, match=f"no {name} header"):
        decode_command(replace(record, headers=(*record.headers, no_value)))


def test_a_workspaces_stream_belongs_to_that_workspace_alone() -> None:
    record = with_header(
        back(encoded("command.agent.put.v1")), "ce_workspaceid", b"00000000-0000-4000-8000-000000000000"
    )
    with pytest.raises(Undecodable, match="differ"):
        decode_command(record)


@pytest.mark.parametrize("key", [b"", b"thread-1", THREAD.upper().encode(), b"ws:", b"\xff"])
def test_a_key_that_names_no_stream_is_refused(key: bytes) -> None:
    with pytest.raises(Undecodable, match="key"):
        decode_command(replace(with_header(back(encoded(CANCEL)), "ce_subject", None), key=key))


def test_a_command_without_a_subject_a_time_or_a_version_is_read_from_its_key_and_the_logs_time() -> None:
    record = back(encoded(CANCEL))
    for name in ("ce_subject", "ce_time", "ce_dataschema", "ce_source", "content-type", "ce_specversion"):
        record = with_header(record, name, None)
    command = decode_command(replace(record, time_ms=77))
    assert (command.stream, command.time_ms, command.source) == (THREAD, 77, "")
    assert command.body == COMMAND_SAMPLES[CANCEL].body
    no_values: Any = (("ce_time", None), ("ce_dataschema", None))
    assert decode_command(replace(record, time_ms=77, headers=(*record.headers, *no_values))) == command


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": "u", "run_id": {"deep": SECRET}},
        {"principal": SECRET, "run_id": "r"},
        {"principal": {"user_id": [SECRET]}, "run_id": "r", "reason": 3},
        [SECRET],
        SECRET,
    ],
)
def test_what_is_wrong_with_a_body_is_said_without_quoting_it(bad: object) -> None:
    with pytest.raises(Undecodable, match=r"run\.cancel") as caught:
        decode_command(replace(back(encoded(CANCEL)), value=orjson.dumps(bad)))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_a_numbered_fact_needs_a_seq_and_a_stream() -> None:
    record = back(encoded(COMPLETED))
    for name in ("ce_seq", "ce_subject", "ce_epoch", "ce_type"):
        with pytest.raises(Undecodable):
            decode_fact(with_header(record, name, None))
        with pytest.raises(Undecodable):
            head_of(with_header(record, name, None))


@pytest.mark.parametrize(
    "name", ["ce_type", "ce_subject", "ce_time", "ce_dataschema", "ce_causationid", "ce_bodyhash", "ce_correlationid"]
)
@pytest.mark.parametrize("value", [b"\xff", None])
def test_a_header_of_a_fact_is_text_and_one_of_others_may_be_anything(name: str, value: bytes | None) -> None:
    record = back(encoded(COMPLETED))
    headers = (*(item for item in record.headers if item[0] != name), (name, value))
    with pytest.raises(Undecodable):
        decode_fact(replace(record, headers=headers))  # type: ignore[arg-type]
    other = replace(record, headers=(*record.headers, ("x-other", value)))  # type: ignore[arg-type]
    assert decode_fact(other) == decode_fact(record)
    assert head_of(other).headers["x-other"] == ("" if value is None else "\ufffd")


HEADER_NAMES = [
    "ce_id",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_dataschema",
    "ce_epoch",
    "ce_seq",
    "ce_call",
    "ce_runid",
    "ce_causationid",
    "ce_workspaceid",
    "ce_bodyhash",
    "ce_fresh",
    "ce_correlationid",
    "ce_traceparent",
    "ce_source",
    "epoch",
]
VALUES = st.one_of(
    st.none(),  # Kafka has headers without a value
    st.binary(max_size=40),
    st.sampled_from([b"1", b"-1", b"--1", b"1" * 5000, b"urn:x:1", b"urn:x:", b"9999-12-31T23:59:59-23:59"]),
    st.sampled_from(sorted(COMMANDS) + sorted(FACTS) + [THREAD, f"ws:{THREAD}"]).map(str.encode),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.one_of(st.none(), st.binary(max_size=60), JSON_VALUES.map(orjson.dumps))


@st.composite
def records(draw: st.DrawFn) -> Incoming:
    """Anything that Kafka can hold; half of them almost a record of ours."""
    headers: dict[str, bytes | None] = dict(
        draw(st.lists(st.tuples(st.sampled_from(HEADER_NAMES) | st.text(max_size=8), VALUES), max_size=8))
    )
    key = draw(st.none() | st.binary(max_size=40) | st.just(THREAD.encode()))
    value = draw(BODIES)
    if draw(st.booleans()):
        base = encoded(draw(st.sampled_from(sorted(COMMAND_SAMPLES | FACT_SAMPLES))))
        headers = {**dict(base.headers), **headers}
        key = draw(st.just(base.key) | st.just(key))
        value = draw(st.just(base.value) | st.just(value))
    made: Headers = tuple(headers.items())  # type: ignore[arg-type]
    return Incoming("parley.events", 0, 5, 6, key, value, made)


@given(records())
def test_whatever_is_read_is_a_record_or_undecodable_and_nothing_else(record: Incoming) -> None:
    for decode in (decode_command, decode_fact, head_of, decode_pieces, pieces_epoch):
        try:
            decode(record)
        except Undecodable as error:
            assert str(error)


@given(records())
def test_what_could_be_read_as_a_fact_can_be_written_again(record: Incoming) -> None:
    try:
        fact = decode_fact(record)
    except Undecodable:
        return
    again = decode_fact(back(encode_fact(fact._replace(time_ms=1), 0), 5))
    assert again._replace(time_ms=0, body=fact.body) == fact._replace(time_ms=0)
    if not isinstance(fact.body, UnknownBody) and fact.version == fact.body.version:
        assert again.body == fact.body


# ---- traces, sizes, rejections


def test_a_trace_that_is_not_valid_is_dropped_and_the_record_is_read() -> None:
    command, fact = back(encoded("command.message.post.v1")), back(encoded(COMPLETED))
    assert decode_command(command).traceparent == COMMAND_SAMPLES["command.message.post.v1"].traceparent
    for bad in (b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"", b"trace", b"ff-" + b"1" * 32 + b"-" + b"1" * 16):
        assert decode_command(with_header(command, "ce_traceparent", bad)).traceparent is None
        assert decode_fact(with_header(fact, "ce_traceparent", bad)).traceparent is None


def test_a_body_that_fits_no_record_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    command = COMMAND_SAMPLES[CANCEL]
    fact = FACT_SAMPLES[COMPLETED]
    whole = encode_command(command, PARTITIONS).value or b""
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", len(whole))
    encode_command(command, PARTITIONS)
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 20)
    assert isinstance(command.body, CancelRun) and isinstance(fact.body, RunCompleted)
    with pytest.raises(RecordTooLarge, match=f"{len(whole)} bytes; 20 fit"):
        encode_command(command, PARTITIONS)
    for body in (fact.body, UnknownBody(raw=b"x" * 21)):
        with pytest.raises(RecordTooLarge):
            encode_fact(Fact(fact.type, fact.stream, 1, 0, fact.workspace_id, 1, body), PARTITION)


def test_a_rejected_record_keeps_its_bytes_and_says_why() -> None:
    record = Incoming("parley.commands", 3, 99, 1, b"\x00key", b"\xffbody", (("any", b"\xfe"), ("any", b"2")))
    refused = rejected_record(record, "parley.rejected", "undecodable", "no ce_type header")
    assert (refused.topic, refused.partition, refused.key, refused.value) == (
        "parley.rejected",
        3,
        b"\x00key",
        b"\xffbody",
    )
    assert refused.headers == (
        ("any", b"\xfe"),
        ("any", b"2"),
        ("rejected_reason", b"undecodable"),
        ("rejected_message", b"no ce_type header"),
        ("rejected_topic", b"parley.commands"),
        ("rejected_partition", b"3"),
        ("rejected_offset", b"99"),
    )

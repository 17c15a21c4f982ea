"""Records and Kafka messages: CloudEvents 1.0, binary mode (Kafka Protocol Binding 1.0.2, §3.2).

Attributes are `ce_*` headers, so that a consumer can filter without parsing a body; the body is JSON. Extensions
carry `epoch`, `seq`, `runid`, `call`, `causationid`, `commandoffset`, `correlationid`, `workspaceid` and `traceparent`.
The mapping is written by hand (the SDK's costs several times as much); a test compares it with the `cloudevents` SDK.

A type that this version does not know is kept whole as `UnknownBody`; an older version of a known type goes through
`upcast`. Size is checked by the writer before anything is numbered (`MAX_VALUE_BYTES`). Large contents that are stored
leave the body (`large`); only a record that `contents` made whole again can be decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import orjson
from pydantic import ValidationError

from parley_events.body import Body
from parley_events.clock import parse_rfc3339, rfc3339
from parley_events.commands import COMMANDS, CommandBody
from parley_events.errors import RecordTooLarge, Undecodable
from parley_events.facts import FACTS, UNNUMBERED, FactBody
from parley_events.ids import is_uuid
from parley_events.large import OBJECTS_HEADER, Reference, Stored, nothing_stored, references_header, referring
from parley_events.log.port import Incoming, Outgoing
from parley_events.partition import partition_of
from parley_events.tracing import traceparent
from parley_events.upcast import upcast

COMMANDS_TOPIC = "parley.commands"
EVENTS_TOPIC = "parley.events"
MAX_VALUE_BYTES = 8 * 1024 * 1024 - 64 * 1024
"""The largest body; the rest of the 8 MiB is left for headers and the batch around them."""

_CONTENT_TYPE = ("content-type", b"application/json")
_SPEC = ("ce_specversion", b"1.0")
_MOST_HEADER_BYTES = 1000
"""The longest optional header of a command: they are copied to its outcome, which must fit whatever came."""
_LONGEST_SCHEMA = 200
"""The longest `ce_dataschema` that is remembered with its version."""


class UnknownBody(FactBody):
    """The body of a type or version that this code does not know, kept as it was read."""

    type: ClassVar[str] = "unknown"
    raw: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command with its envelope. `fresh`: the stream's random id was minted with this very command, so nobody
    else can have written to it. `body_hash` None: the hash of the encoded body is taken. `redrive_of`: the rejected
    record (`<partition>-<offset>` of `parley.commands`) in whose place a person sent this one."""

    id: str
    stream: str
    workspace_id: str
    time_ms: int
    body: CommandBody
    body_hash: str | None = None
    fresh: bool = False
    correlation_id: str | None = None
    traceparent: str | None = None
    source: str = "/parley/gateway"
    redrive_of: str | None = None

    @property
    def type(self) -> str:
        return self.body.type


class Fact(NamedTuple):
    """A fact with its envelope. `seq` counts 1, 2, 3 … within the stream; None for facts outside any story.

    `epoch` is the writer's claim on the partition. `causation_id` is set on the outcome of a command, to its id.
    `body_hash` on that outcome is the command's, so that a repeat with another body is known as such. `call` is set on
    the fact that ends a model call. `command_offset` is the place on `parley.commands` of the command that it answers.
    `offset` is known once it was read from the log.
    """

    type: str
    stream: str
    seq: int | None
    epoch: int
    workspace_id: str
    time_ms: int
    body: FactBody
    run_id: str | None = None
    call: int | None = None
    causation_id: str | None = None
    body_hash: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    offset: int | None = None
    version: int = 1
    command_offset: int | None = None

    @property
    def id(self) -> str:
        """The CloudEvents id: the same bytes sent twice have the same one."""
        if self.seq is not None:
            return f"{self.stream}/{self.seq}@{self.epoch}"
        cause = f"command-{self.command_offset}" if self.causation_id is None else self.causation_id
        return f"{self.stream}/{cause}@{self.epoch}"


class FactHead(NamedTuple):
    """What a fact's headers say, without its body."""

    offset: int
    type: str
    epoch: int
    stream: str
    seq: int | None
    run_id: str | None
    call: int | None
    causation_id: str | None
    workspace_id: str
    command_offset: int | None = None
    objects: bool = False
    """Whether the body leaves contents to the object store."""
    headers: Mapping[str, str] = MappingProxyType({})
    """All that the record has, by name, as text."""


@dataclass(frozen=True, slots=True)
class CommandHead:
    """What a command's headers say, without its body."""

    id: str
    stream: str
    workspace_id: str
    type: str
    body_hash: str | None
    correlation_id: str | None
    traceparent: str | None


def encode_command(command: Command, partitions: int, stored: Stored = nothing_stored) -> Outgoing:
    """The message of a command, placed by its stream. Large contents that are `stored` leave it. Raises
    RecordTooLarge."""
    value, references = referring(command.body, command.workspace_id, stored)
    _check_size(value)
    headers = [
        _CONTENT_TYPE,
        _SPEC,
        ("ce_id", command.id.encode()),
        ("ce_source", command.source.encode()),
        ("ce_type", command.type.encode()),
        ("ce_dataschema", _schema(command.body)),
        ("ce_subject", command.stream.encode()),
        ("ce_time", rfc3339(command.time_ms).encode()),
        ("ce_workspaceid", command.workspace_id.encode()),
    ]
    if command.body_hash is not None:
        headers.append(("ce_bodyhash", command.body_hash.encode()))
    if command.fresh:
        headers.append(("ce_fresh", b"1"))
    if command.redrive_of is not None:
        headers.append(("ce_redriveof", command.redrive_of.encode()))
    if references:
        headers.append((OBJECTS_HEADER, references_header(references)))
    _optional(headers, command.correlation_id, command.traceparent)
    key = command.stream.encode()
    return Outgoing(COMMANDS_TOPIC, partition_of(key, partitions), key, value, tuple(headers))


def command_head(record: Incoming) -> CommandHead:
    """The headers of a command, checked and without its body; Undecodable says what is wrong with them."""
    heads = _heads(record)
    stream = _text(heads, "ce_subject") if "ce_subject" in heads else _key(record)
    if record.key != stream.encode():
        raise Undecodable("ce_subject and the record's key differ")
    check_stream(stream)
    kind = _text(heads, "ce_type")
    if kind not in COMMANDS:
        raise Undecodable(f"unknown command type {kind[:100]!r}")
    command_id = _text(heads, "ce_id")
    if not 1 <= len(command_id) <= 200:
        raise Undecodable("ce_id must have 1 to 200 characters")
    workspace_id = _text(heads, "ce_workspaceid")
    if not is_uuid(workspace_id):
        raise Undecodable("ce_workspaceid is not a UUID")
    if stream.startswith("ws:") and stream != f"ws:{workspace_id}":
        raise Undecodable("the workspace's stream and ce_workspaceid differ")
    for name in ("ce_bodyhash", "ce_correlationid", "ce_traceparent", "ce_redriveof"):
        if len(heads.get(name) or b"") > _MOST_HEADER_BYTES:
            raise Undecodable(f"{name} is longer than {_MOST_HEADER_BYTES} bytes")
    return CommandHead(
        id=command_id,
        stream=stream,
        workspace_id=workspace_id,
        type=kind,
        body_hash=_maybe(heads, "ce_bodyhash"),
        correlation_id=_maybe(heads, "ce_correlationid"),
        traceparent=traceparent(_maybe(heads, "ce_traceparent")),
    )


def decode_command(record: Incoming, head: CommandHead | None = None) -> Command:
    """The command in a message; Undecodable says what is wrong with it, quoting nothing of its content. `head`: its
    headers, where they were read already."""
    head = head or command_head(record)
    heads = _heads(record)
    _check_whole(heads)
    value = record.value or b""
    body = _parse(COMMANDS[head.type], head.type, _version(heads), value)
    return Command(
        id=head.id,
        stream=head.stream,
        workspace_id=head.workspace_id,
        time_ms=_time(heads, record.time_ms),
        body=body,
        body_hash=head.body_hash or hashlib.sha256(value).hexdigest(),
        fresh=heads.get("ce_fresh") == b"1",
        correlation_id=head.correlation_id,
        traceparent=head.traceparent,
        source=_maybe(heads, "ce_source") or "",
        redrive_of=_maybe(heads, "ce_redriveof"),
    )


def encode_fact(fact: Fact, partition: int, stored: Stored = nothing_stored) -> Outgoing:
    """The message of a fact. Large contents that are `stored` leave it. Raises RecordTooLarge; call it before the fact
    is numbered for good."""
    references: tuple[Reference, ...] = ()
    if isinstance(fact.body, UnknownBody):
        value = fact.body.raw
    else:
        value, references = referring(fact.body, fact.workspace_id, stored)
    _check_size(value)
    headers = [
        _CONTENT_TYPE,
        _SPEC,
        ("ce_id", fact.id.encode()),
        ("ce_source", b"/parley/dispatcher"),
        ("ce_type", fact.type.encode()),
        ("ce_dataschema", b"urn:parley:%s:%d" % (fact.type.encode(), fact.version)),
        ("ce_time", rfc3339(fact.time_ms).encode()),
        ("ce_epoch", b"%d" % fact.epoch),
    ]
    if fact.stream:  # CloudEvents knows no empty attributes: a claim has neither
        headers.append(("ce_subject", fact.stream.encode()))
    if fact.workspace_id:
        headers.append(("ce_workspaceid", fact.workspace_id.encode()))
    if fact.seq is not None:
        headers.append(("ce_seq", b"%d" % fact.seq))
    if fact.run_id is not None:
        headers.append(("ce_runid", fact.run_id.encode()))
    if fact.call is not None:
        headers.append(("ce_call", b"%d" % fact.call))
    if fact.causation_id is not None:
        headers.append(("ce_causationid", fact.causation_id.encode()))
    if fact.command_offset is not None:
        headers.append(("ce_commandoffset", b"%d" % fact.command_offset))
    if fact.body_hash is not None:
        headers.append(("ce_bodyhash", fact.body_hash.encode()))
    if references:
        headers.append((OBJECTS_HEADER, references_header(references)))
    _optional(headers, fact.correlation_id, fact.traceparent)
    key = fact.stream.encode() if fact.stream else None
    return Outgoing(EVENTS_TOPIC, partition, key, value, tuple(headers))


def head_of(record: Incoming) -> FactHead:
    """The headers of a fact, read without its body. Undecodable when it is no fact."""
    return _head(_texts(record), record.offset)


def decode_fact(record: Incoming, head: FactHead | None = None) -> Fact:
    """The fact in a message. Unknown types and versions are kept whole; Undecodable when it is no fact at all. `head`:
    what `head_of` said of this record, for who has asked that already."""
    if head is None:
        head = head_of(record)
    return _fact(head.headers, head, record.value or b"", record.time_ms)


def fact_from(heads: Mapping[str, str], value: bytes, offset: int, time_ms: int) -> Fact:
    """A fact from its headers and its body's bytes, wherever they were kept."""
    return _fact(heads, _head(heads, offset), value, time_ms)


def _fact(heads: Mapping[str, str], head: FactHead, value: bytes, time_ms: int) -> Fact:
    _check_whole(heads)
    get = heads.get
    kind = head.type
    schema, time, parent = get("ce_dataschema"), get("ce_time"), get("ce_traceparent")
    version = 1 if schema is None else _version_in(schema)
    body_class = FACTS.get(kind)
    if body_class is None or version > body_class.version:
        body: FactBody = UnknownBody(raw=value)
    else:
        body = _parse(body_class, kind, version, value)
    # By place, and not as arguments: those cost more than all that is done here with the values.
    return Fact._make(
        (
            kind,
            head.stream,
            head.seq,
            head.epoch,
            head.workspace_id,
            time_ms if time is None else _time_in(time),
            body,
            head.run_id,
            head.call,
            head.causation_id,
            get("ce_bodyhash"),
            get("ce_correlationid"),
            None if parent is None else traceparent(parent),
            head.offset,
            version,
            head.command_offset,
        )
    )


def check_stream(stream: str) -> None:
    """Undecodable unless the text names a thread (`<uuid>`) or a workspace (`ws:<uuid>`)."""
    if not is_uuid(stream.removeprefix("ws:")):
        raise Undecodable("the key names neither a thread (<uuid>) nor a workspace (ws:<uuid>)")


def rejected_record(record: Incoming, topic: str, reason: str, message: str) -> Outgoing:
    """The record for `parley.rejected`: the bytes and headers as they came, and why they were refused."""
    headers = (
        *record.headers,
        ("rejected_reason", reason.encode()),
        ("rejected_message", message.encode()),
        ("rejected_topic", record.topic.encode()),
        ("rejected_partition", b"%d" % record.partition),
        ("rejected_offset", b"%d" % record.offset),
    )
    return Outgoing(topic, record.partition, record.key, record.value, headers)


def _schema(body: Body) -> bytes:
    return f"urn:parley:{body.type}:{body.version}".encode()


def _optional(headers: list[tuple[str, bytes]], correlation_id: str | None, traceparent: str | None) -> None:
    if correlation_id is not None:
        headers.append(("ce_correlationid", correlation_id.encode()))
    if traceparent is not None:
        headers.append(("ce_traceparent", traceparent.encode()))


def _check_size(value: bytes) -> None:
    if len(value) > MAX_VALUE_BYTES:
        raise RecordTooLarge(f"a body of {len(value)} bytes; {MAX_VALUE_BYTES} fit")


def _check_whole(heads: Container[str]) -> None:
    """A body that refers to objects would be read as if the references were what somebody wrote."""
    if OBJECTS_HEADER in heads:
        raise Undecodable("contents of the record lie in the object store, and were not fetched")


def _heads(record: Incoming) -> dict[str, bytes]:
    return dict(record.headers)


def _texts(record: Incoming) -> dict[str, str]:
    """The headers of a fact as text. Ours must be text and have a value; Undecodable when one is not. What is no text
    in another's is U+FFFD."""
    try:
        return {name: value.decode() for name, value in record.headers}
    except (UnicodeDecodeError, AttributeError):  # a header may have no value: None
        heads: dict[str, bytes | None] = dict(record.headers)
        for name in _OF_A_FACT & heads.keys():
            _text(heads, name)
        return {name: (value or b"").decode("utf-8", "replace") for name, value in heads.items()}


_OF_A_FACT = frozenset(
    {
        "ce_type",
        "ce_dataschema",
        "ce_subject",
        "ce_time",
        "ce_epoch",
        "ce_seq",
        "ce_call",
        "ce_runid",
        "ce_causationid",
        "ce_commandoffset",
        "ce_workspaceid",
        "ce_bodyhash",
        "ce_correlationid",
        "ce_traceparent",
    }
)
"""The headers of a fact that are read."""


def _head(heads: Mapping[str, str], offset: int) -> FactHead:
    get = heads.get
    try:
        kind = heads["ce_type"]
        seq, call, place = get("ce_seq"), get("ce_call"), get("ce_commandoffset")
        head = FactHead._make(
            (
                offset,
                kind,
                int(heads["ce_epoch"]),
                get("ce_subject", ""),
                None if seq is None else int(seq),
                get("ce_runid"),
                None if call is None else int(call),
                get("ce_causationid"),
                get("ce_workspaceid", ""),
                None if place is None else int(place),
                OBJECTS_HEADER in heads,
                heads,
            )
        )
    except (KeyError, ValueError) as error:
        raise Undecodable(f"not a fact: {type(error).__name__} in its headers") from error
    if seq is None:
        if kind in FACTS and kind not in UNNUMBERED:
            raise Undecodable(f"a {kind} without ce_seq")
    elif not head.stream:
        raise Undecodable("a numbered fact without ce_subject")
    return head


def _parse(body_class: type[Any], kind: str, version: int, value: bytes) -> Any:
    if version > body_class.version:
        raise Undecodable(f"{kind}: version {version} is newer than this code, which knows {body_class.version}")
    try:
        if version < body_class.version:
            return body_class.model_validate(upcast(kind, version, body_class.version, orjson.loads(value)))
        # What `model_validate_json` does, without its way there: it is most of what a record's reading costs.
        return body_class.__pydantic_validator__.validate_json(value)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['type']}"
            for problem in error.errors(include_input=False, include_url=False, include_context=False)[:5]
        )
        raise Undecodable(f"{kind}: {places}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Undecodable(f"{kind}: the body is not what its version says ({type(error).__name__})") from None


def _version(heads: Mapping[str, bytes | None]) -> int:
    return 1 if heads.get("ce_dataschema") is None else _version_in(_text(heads, "ce_dataschema"))


def _version_in(schema: str) -> int:
    return _known_version(schema) if len(schema) <= _LONGEST_SCHEMA else _last_number(schema)


def _last_number(schema: str) -> int:
    number = schema.rpartition(":")[2]
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise Undecodable("ce_dataschema does not end in a version")
    return int(number)


_known_version = lru_cache(maxsize=256)(_last_number)


def _time(heads: Mapping[str, bytes | None], fallback: int) -> int:
    return fallback if heads.get("ce_time") is None else _time_in(_text(heads, "ce_time"))


def _time_in(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise Undecodable("ce_time is not an RFC 3339 time") from None


def _text(heads: Mapping[str, bytes | None], name: str) -> str:
    value = heads.get(name)
    if value is None:
        raise Undecodable(f"no {name} header")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Undecodable(f"{name} is not UTF-8") from None


def _maybe(heads: Mapping[str, bytes | None], name: str) -> str | None:
    # Nearly always there is none: one look tells.
    return _text(heads, name) if heads.get(name) is not None or name in heads else None


def _key(record: Incoming) -> str:
    try:
        return (record.key or b"").decode()
    except UnicodeDecodeError:
        raise Undecodable("the key is not UTF-8") from None

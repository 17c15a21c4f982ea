"""Large contents: a content field whose JSON has more than 256 KiB lies in the object store under its hash, and the
record refers to it (DESIGN §2). Pure; `codec` refers when it encodes, `contents` puts and fetches.

The header `ce_objects` names what is missing in the body as `field=sha256:size`, separated by commas, so that a reader
knows from the headers alone whether a body is whole. `{"$object": sha256, "size": n}` stands in the field's place for
people; the header alone counts, so what somebody wrote may look like a reference and never is one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from parley_events.body import Body, json_bytes
from parley_events.errors import Undecodable
from parley_events.log.port import Incoming

LARGE_BYTES = 256 * 1024
"""A content field with more JSON than this leaves the record, if it was stored."""
OBJECTS_HEADER = "ce_objects"

Stored = Callable[[str, str], bool]
"""(workspace, hash) → whether the object is known to be stored."""

_REFERENCE = re.compile(r"([a-z_]{1,64})=([0-9a-f]{64}):([0-9]{1,12})")


class Reference(NamedTuple):
    """A field of a body that lies in the object store. `size` is that of its JSON."""

    field: str
    sha256: str
    size: int


def nothing_stored(workspace_id: str, sha256: str) -> bool:
    """`Stored` where nothing is: every body stays whole."""
    return False


def large_fields(body: Body, value: bytes) -> dict[str, bytes]:
    """The large content fields of a body, as JSON; `value` is the whole body's."""
    found: dict[str, bytes] = {}
    if len(value) > LARGE_BYTES:
        for name in body.content:
            # {"<name>":<data>}
            data = body.model_dump_json(include={name}).encode()[len(name) + 4 : -1]
            if len(data) > LARGE_BYTES:
                found[name] = data
    return found


def referring(body: Body, workspace_id: str, stored: Stored) -> tuple[bytes, tuple[Reference, ...]]:
    """The body's JSON, with references in the place of those large fields that are stored."""
    value = body.model_dump_json().encode()
    references = []
    for name, data in large_fields(body, value).items():
        sha256 = hashlib.sha256(data).hexdigest()
        if stored(workspace_id, sha256):
            references.append(Reference(name, sha256, len(data)))
    if not references:
        return value, ()
    rest = body.model_dump_json(exclude={reference.field for reference in references}).encode()
    marks = ((r.field, json_bytes({"$object": r.sha256, "size": r.size})) for r in references)
    return _joined(rest, marks), tuple(references)


def references_header(references: Iterable[Reference]) -> bytes:
    """The value of `ce_objects`."""
    return ",".join(f"{r.field}={r.sha256}:{r.size}" for r in references).encode()


def references_of(record: Incoming) -> tuple[Reference, ...]:
    """What a record's body leaves to the object store; Undecodable when its header cannot be read."""
    header = record.header(OBJECTS_HEADER)
    if header is None:
        return ()
    found = []
    for part in header.decode("ascii", "replace").split(","):
        match = _REFERENCE.fullmatch(part)
        if match is None:
            raise Undecodable(f"{OBJECTS_HEADER} is not a list of field=sha256:size")
        found.append(Reference(match[1], match[2], int(match[3])))
    return tuple(found)


def made_whole(record: Incoming, references: Iterable[Reference], contents: Mapping[str, bytes]) -> Incoming:
    """The record with its body whole again, and nothing left that says otherwise. `contents`: JSON by its hash."""
    try:
        fields = json.loads(record.value or b"")  # not orjson: integers beyond 64 bits must stay what they are
        missing = {reference.field for reference in references}
        rest = json_bytes({name: value for name, value in fields.items() if name not in missing})
    except (ValueError, AttributeError, RecursionError) as error:
        raise Undecodable(f"the body is no JSON object ({type(error).__name__})") from None
    value = _joined(rest, ((r.field, contents[r.sha256]) for r in references))
    headers = tuple((name, text) for name, text in record.headers if name != OBJECTS_HEADER)
    return replace(record, value=value, headers=headers)


def _joined(rest: bytes, more: Iterable[tuple[str, bytes]]) -> bytes:
    """A JSON object with more fields, given as JSON."""
    parts = [b'"%s":%s' % (name.encode(), data) for name, data in more]
    if rest != b"{}":
        parts.insert(0, rest[1:-1])
    return b"{" + b",".join(parts) + b"}"

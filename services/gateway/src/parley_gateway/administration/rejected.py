"""Commands that were set aside (`parley.rejected`): listed, shown, and sent again in the shape of a new command.

A record is known by the place of its command, `<partition>-<offset>` of `parley.commands`: a dispatcher that died at
the wrong moment may have set it aside twice, and it is shown once. Whose it is its headers say; where they cannot be
read, it is shown to the first workspace's administrators alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from parley_events.codec import Command, command_head, decode_command
from parley_events.contents import Contents
from parley_events.errors import LogUnavailable, ObjectError, RetentionGap, Undecodable
from parley_events.ids import is_uuid
from parley_events.large import OBJECTS_HEADER
from parley_events.log import Incoming
from parley_gateway.administration import outbound
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Unavailable, invalid, not_found
from parley_gateway.http import REPLAYED, Wire, answer, body_of, idempotency_key, min_position, query_limit
from parley_gateway.reads import check_position

TOPIC = "parley.rejected"
LOOK_BACK = 500
"""How many records of each partition a list looks at, from the newest back."""
READ_S = 20.0
_ID = re.compile(r"([0-9]{1,3})-([0-9]{1,18})")
_OURS = "rejected_"


class Redrive(Wire):
    """What to correct before a record is sent again. `body`: in place of the record's; the others are needed where the
    record's headers cannot be read."""

    body: dict[str, Any] | None = None
    type: str | None = Field(default=None, max_length=100)
    stream: str | None = Field(default=None, max_length=100)
    workspace_id: str | None = Field(default=None, max_length=100)


async def list_rejected(core: Core, request: Request, who: Principal) -> Response:
    """The newest first, without their bodies."""
    who.to_administer()
    limit = query_limit(request)
    check_position(min_position(request))  # the log itself is read, up to its end
    found: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
    async with core.reading_rejected, aclosing(_records(core, None)) as records:
        async for record in records:
            name = _name(record)
            if name is not None and name not in found and _may_see(core, who, record):
                found[name] = ((record.time_ms, record.offset), outbound.rejected(name, record))
    newest = sorted(found.values(), key=lambda item: item[0], reverse=True)
    return answer(200, {"items": [item for _, item in newest[:limit]], "total": len(newest)})


async def show_rejected(core: Core, request: Request, who: Principal) -> Response:
    """One record, its bytes made visible."""
    who.to_administer()
    check_position(min_position(request))
    name, record = await _find(core, request, who)
    return answer(200, outbound.rejected(name, record) | outbound.rejected_bytes(record))


async def redrive(core: Core, request: Request, who: Principal) -> Response:
    """Send the record again, as a new command that names the old one; it is decided as any other."""
    who.to_administer()
    asked = await body_of(request, Redrive, core.settings.body_mb)
    key = idempotency_key(request)
    name, record = await _find(core, request, who)
    try:
        whole = await Contents(core.objects).whole(_corrected(asked, record, who))
        command = decode_command(whole, command_head(whole))
    except Undecodable as error:
        raise invalid(f"this record cannot be sent again as it is: {error}", "cannot_redrive") from None
    except ObjectError:
        raise Unavailable("the record's contents cannot be had from the object store right now") from None
    if command.workspace_id != who.workspace_id and _workspace_of(record) is not None:
        # Whose record can be told stays where it was; the others are the first workspace's to place.
        raise invalid("the record belongs to another workspace", "cannot_redrive")
    if command.type.startswith("timer."):
        raise invalid("a timer's command is the dispatcher's own", "cannot_redrive")
    again = Command(
        id=core.sender.command_id(who, "rejected.redrive", name, key),
        stream=command.stream,
        workspace_id=command.workspace_id,
        time_ms=core.clock(),
        body=command.body,
        body_hash=command.body_hash,
        correlation_id=f"redrive:{name}:{core.new_uuid()}",
        redrive_of=name,
    )
    outcome = await core.sender.ask(who, again)
    told = {
        "id": again.id,
        "redrive_of": name,
        "type": again.type,
        "outcome": None if outcome.pending else outcome.type,
        "position": None if outcome.pending else outcome.position,
    }
    return answer(202 if outcome.pending else 200, told, REPLAYED if outcome.repeated else None)


# ---- inside


async def _records(core: Core, partition: int | None) -> AsyncGenerator[Incoming]:
    """The newest records of every partition, or all of one, oldest first. A Problem 503 when the log does not
    answer."""
    log = core.hub.log
    if log is None:
        raise Unavailable("the log cannot be reached right now")
    try:
        async with asyncio.timeout(READ_S):
            begins, ends = await log.begins(TOPIC), await log.ends(TOPIC)
            starts = {
                p: begins[p] if partition is not None else max(begins[p], end - LOOK_BACK)
                for p, end in ends.items()
                if partition in (None, p) and begins[p] < end
            }
            tail = await log.tail(TOPIC, starts)
            try:
                while starts:
                    for record in await tail.batch(limit=100):
                        if record.offset < ends[record.partition]:
                            yield record
                        if record.offset + 1 >= ends[record.partition]:
                            starts.pop(record.partition, None)
            finally:
                await tail.close()
    except (LogUnavailable, RetentionGap, TimeoutError):
        raise Unavailable("the rejected commands could not be read in time; try again") from None


async def _find(core: Core, request: Request, who: Principal) -> tuple[str, Incoming]:
    """The record of the request's path; a Problem 404, also when it is another workspace's."""
    name = str(request.path_params["rejected_id"])
    place = _ID.fullmatch(name)
    log = core.hub.log
    if place is None or log is None or int(place[1]) >= log.partitions:
        raise not_found("rejected command")
    async with core.reading_rejected, aclosing(_records(core, int(place[1]))) as records:
        async for record in records:
            if _name(record) == name and _may_see(core, who, record):
                return name, record
    raise not_found("rejected command")


def _name(record: Incoming) -> str | None:
    """The place of the command, as the dispatcher noted it; the last header of a name is the dispatcher's own."""
    partition, offset = record.header("rejected_partition"), record.header("rejected_offset")
    name = b"%b-%b" % (partition or b"", offset or b"")
    return name.decode() if _ID.fullmatch(name.decode("ascii", "replace")) else None


def _workspace_of(record: Incoming) -> str | None:
    """The workspace that the record names, if its headers and its key do not contradict each other."""
    workspace_id = (record.header("ce_workspaceid") or b"").decode("ascii", "replace")
    key = (record.key or b"").decode("ascii", "replace")
    if not is_uuid(workspace_id) or (key.startswith("ws:") and key != f"ws:{workspace_id}"):
        return None
    return workspace_id


def _first(core: Core, who: Principal) -> bool:
    return bool(core.settings.workspace_id) and who.workspace_id == core.settings.workspace_id


def _may_see(core: Core, who: Principal, record: Incoming) -> bool:
    workspace_id = _workspace_of(record)
    return _first(core, who) if workspace_id is None else workspace_id == who.workspace_id


def _corrected(asked: Redrive, record: Incoming, who: Principal) -> Incoming:
    """The command as it came, with what the request puts in its place."""
    heads = {name: value for name, value in record.headers if not name.startswith(_OURS)}
    value, key = record.value, record.key
    heads.pop("ce_redriveof", None)
    if asked.body is not None:
        value = orjson.dumps(asked.body)
        for stale in ("ce_dataschema", "ce_bodyhash", OBJECTS_HEADER):
            heads.pop(stale, None)
    heads.setdefault("ce_id", b"redriven")
    if asked.type is not None:
        heads["ce_type"] = asked.type.encode()
    if asked.stream is not None:
        key = asked.stream.encode()
        heads["ce_subject"] = key
    if _workspace_of(record) is None or asked.stream is not None:
        heads["ce_workspaceid"] = (asked.workspace_id or _workspace_of(record) or who.workspace_id).encode()
    return replace(record, key=key, value=value, headers=tuple(heads.items()))

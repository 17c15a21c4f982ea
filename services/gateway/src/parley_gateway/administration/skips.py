"""Where history stands still, and the records that it skips because an administrator said so.

A partition of `parley.events` holds facts of every workspace, so this is the first workspace's alone. A record is known
by its place, `<partition>-<offset>` of `parley.events`; only the one at which a partition stands still can be skipped.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from parley_events import reads
from parley_events.body import Json
from parley_gateway.administration.outbound import visible
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Missing, forbidden, invalid, not_found
from parley_gateway.http import REPLAYED, Wire, answer, body_of, idempotency_key, min_position, query_limit

_PLACE = re.compile(r"([0-9]{1,3})-([0-9]{1,18})")
_MOST_PARTITIONS = 256
_SHOWN = 1000


class Skip(Wire):
    """Why a record is to be skipped; it is kept with the record."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


async def list_stopped(core: Core, request: Request, who: Principal) -> Response:
    """The partitions that stand still, where and why."""
    _to_skip(core, who)
    position = min_position(request)
    found = await core.reads.settle(who, position, core.history.stops)
    return answer(200, {"items": [stopped(view) for view in found.items]})


async def list_skipped(core: Core, request: Request, who: Principal) -> Response:
    """What was skipped, by whom and why, the newest first."""
    _to_skip(core, who)
    limit, position = query_limit(request), min_position(request)
    found = await core.reads.settle(who, position, lambda wanted: core.history.skips(limit, wanted))
    return answer(200, {"items": [skipped(view) for view in found.items], "total": found.total})


async def skip(core: Core, request: Request, who: Principal) -> Response:
    """Have history skip the record at which a partition stands still."""
    _to_skip(core, who)
    asked = await body_of(request, Skip, core.settings.body_mb)
    idempotency_key(request)  # nothing is kept under it: a record is skipped once, whoever asks again
    if not asked.reason.strip():
        raise invalid("say why the record is skipped: reason is empty")
    place = _PLACE.fullmatch(str(request.path_params["record_id"]))
    if place is None or int(place[1]) >= _MOST_PARTITIONS:
        raise not_found("record at which history stands still")
    wanted = reads.Skip(
        partition=int(place[1]),
        offset=int(place[2]),
        reason=asked.reason,
        user_id=who.user_id,
        key_id=who.key_id,
    )
    try:
        found = await core.history.skip(wanted)
    except Missing:
        raise not_found("record at which history stands still") from None
    return answer(200, skipped(found), REPLAYED if found.repeated else None)


def stopped(view: reads.StopView) -> Json:
    """A partition that stands still."""
    return {**_record(view), "skippable": view.skippable, "stopped_at": view.stopped_at}


def skipped(view: reads.SkipView) -> Json:
    """A record that was skipped."""
    return {**_record(view), "reason": view.reason, "skipped_by": view.user_id, "skipped_at": view.skipped_at}


def _record(view: reads.StopView | reads.SkipView) -> Json:
    return {
        "id": f"{view.partition}-{view.offset}",
        "partition": view.partition,
        "offset": view.offset,
        "fault": visible(view.fault.encode(), _SHOWN),
        "type": _visible(view.type),
        "stream": _visible(view.stream),
        "seq": _visible(view.seq),
        "workspace_id": _visible(view.workspace_id),
        "size": view.size,
    }


def _visible(text: str | None) -> str | None:
    return None if text is None else visible(text.encode(), _SHOWN)


def _to_skip(core: Core, who: Principal) -> None:
    who.to_administer()
    if not core.settings.workspace_id or who.workspace_id != core.settings.workspace_id:
        raise forbidden("only the first workspace's admin key sees where history stands still")

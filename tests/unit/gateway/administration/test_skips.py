"""Where history stands still: who may see it, and how a record is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from parley_events.keys import make_key
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import WORKSPACE, World, world

BASE = "/api/v1/history"
OTHER = "22222222-2222-4333-8444-555555555555"
OTHER_ADMIN = make_key(OTHER, b"o" * 32)
STOP = {
    "partition": 3,
    "offset": 1041,
    "fault": "a record cannot be folded: \x1b[31mno JSON",
    "skippable": True,
    "type": "run.completed",
    "stream": "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77",
    "seq": "7",
    "workspace_id": WORKSPACE,
    "size": 212,
    "stopped_at": "2026-04-20T14:30:00Z",
}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False) as made:
        made.past.stops.append(STOP)
        yield made


async def admin(here: World, method: str, path: str, **options: Any) -> Exchange:
    return await ask(here.gateways[0][0], method, BASE + path, key=options.pop("key", here.admin_key), **options)


async def skip(here: World, place: str, reason: str = "spoilt", **options: Any) -> Exchange:
    return await admin(here, "POST", f"/stopped/{place}/skip", body={"reason": reason}, **options)


async def test_what_stands_still_is_told_with_what_a_terminal_would_act_on_spelled_out(here: World) -> None:
    [item] = (await admin(here, "GET", "/stopped")).json()["items"]
    assert item == {**STOP, "id": "3-1041", "fault": "a record cannot be folded: \\x1b[31mno JSON"}


async def test_a_record_is_skipped_once_and_who_and_why_is_told(here: World) -> None:
    made = await skip(here, "3-1041")
    assert made.status == 200 and "idempotency-replayed" not in made.headers
    assert made.json()["reason"] == "spoilt" and made.json()["skipped_by"] == "ann"
    again = await skip(here, "3-1041", headers={"Idempotency-Key": "k"})
    assert again.json() == made.json() and again.headers["idempotency-replayed"] == "true"
    other = await skip(here, "3-1041", "another reason")
    assert (other.status, other.json()["error"]["code"]) == (409, "skipped_before")
    assert (await admin(here, "GET", "/skipped")).json() == {"items": [made.json()], "total": 1}


@pytest.mark.parametrize("place", ["3-1042", "4-1041", "300-1", "3", "x", "3-1041-1"])
async def test_only_where_history_stands_still_is_there_anything_to_skip(here: World, place: str) -> None:
    assert (await skip(here, place)).status == 404
    assert here.past.skips == []


async def test_a_skip_needs_a_reason(here: World) -> None:
    for body in ({}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 1001}, {"reason": 7}):
        refused = await admin(here, "POST", "/stopped/3-1041/skip", body=body)
        assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_request"), body
    assert here.past.skips == []


async def test_only_the_first_workspaces_administrators_see_and_skip(here: World) -> None:
    await here.workspace(OTHER, "second", {"admin": OTHER_ADMIN}, user="bob")
    for key in (OTHER_ADMIN, here.key):
        for path in ("/stopped", "/skipped"):
            assert (await admin(here, "GET", path, key=key)).status == 403
        assert (await skip(here, "3-1041", key=key)).status == 403
    assert here.past.skips == []


async def test_history_away_is_said(here: World) -> None:
    here.past.away = True
    assert (await admin(here, "GET", "/stopped")).status == 503

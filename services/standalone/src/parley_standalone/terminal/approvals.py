"""`parley approvals`: what people are asked in the workspace, and their answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable

from parley_events.clock import Clock, parse_rfc3339, system_clock
from parley_events.ids import NewUuid
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings
from parley_standalone.terminal import story
from parley_standalone.terminal.native import Json, Native
from parley_standalone.terminal.screen import Screen
from parley_standalone.terminal.threads import age

_STYLES = {"open": "magenta", "approved": "green", "denied": "yellow"}


async def listed(
    settings: Settings, new_uuid: NewUuid, *, status: str | None, thread: str | None, limit: int, as_json: bool
) -> int:
    """List them; the exit status."""

    async def show(native: Native) -> None:
        page = await native.approvals(status, thread, limit)
        if as_json:
            for item in page["items"]:
                print(json.dumps(item, ensure_ascii=False))
            return
        table(Screen(sys.stdout), page, system_clock)

    return await _with(settings, new_uuid, show)


def table(screen: Screen, page: Json, clock: Clock) -> None:
    """The approvals of a page, one a row."""
    if not page["items"]:
        screen.say("nothing to approve", "dim")
        return
    now = clock()
    rows = [
        (
            (item["id"], "bold"),
            (story.short(f"{item['tool_call']['name']} {_json(item['tool_call']['arguments'])}", 200), ""),
            (age(item["created_at"], now), "dim"),
            (left(item["expires_at"], now) if item["status"] == "open" else "", "dim"),
            (item["status"], _STYLES.get(item["status"], "dim")),
        )
        for item in page["items"]
    ]
    screen.table(("id", "tool", "asked", "left", "status"), rows, gives=1)
    if page["total"] > len(page["items"]):
        screen.say(f"… {page['total'] - len(page['items'])} more (--limit)", "dim")


async def shown(settings: Settings, new_uuid: NewUuid, approval_id: str, *, as_json: bool) -> int:
    """Show one, whole; the exit status."""

    async def show(native: Native) -> None:
        _print(await native.approval(approval_id), as_json)

    return await _with(settings, new_uuid, show)


async def answered(
    settings: Settings,
    new_uuid: NewUuid,
    approval_id: str,
    decision: str,
    comment: str,
    arguments: str | None,
    *,
    as_json: bool,
) -> int:
    """Answer one; the exit status."""
    edited = None if arguments is None else _object(arguments)

    async def answer(native: Native) -> None:
        found = await native.answer(approval_id, decision, comment, edited)
        if as_json or "status" not in found:
            print(json.dumps(found, ensure_ascii=False))
        else:
            print(f"{approval_id} is {found['status']}")

    return await _with(settings, new_uuid, answer)


def left(expires_at: str, now_ms: int) -> str:
    """How much time is left, in the largest unit that fits."""
    seconds = (parse_rfc3339(expires_at) - now_ms) // 1000
    if seconds <= 0:
        return "none"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def _print(item: Json, as_json: bool) -> None:
    if as_json:
        print(json.dumps(item, ensure_ascii=False))
        return
    call = item["tool_call"]
    lines = [
        ("status", item["status"]),
        ("question", item["question"]),
        ("tool", call["name"]),
        ("arguments", json.dumps(call["arguments"], ensure_ascii=False, indent=2)),
        ("edited", None if item["arguments"] is None else _json(item["arguments"])),
        ("who", ", ".join(item["who"]) or "whoever may approve"),
        ("agent", item["agent_id"]),
        ("run", item["run_id"]),
        ("asked", item["created_at"]),
        ("expires", item["expires_at"]),
        ("answered", None if item["answered_by"] is None else f"{item['answered_at']} by {item['answered_by']}"),
        ("comment", item["comment"]),
    ]
    for name, value in lines:
        if value is not None:
            print(f"{name:10} {story.clean(str(value))}")


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(text: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError("--arguments wants a JSON object")
    return found


async def _with(settings: Settings, new_uuid: NewUuid, work: Callable[[Native], Awaitable[None]]) -> int:
    native = Native(settings, new_uuid)
    try:
        await work(native)
    finally:
        await native.close()
    return 0

"""`parley tail`: facts as they come, of a run, a thread, or all threads of the workspace; readable, or as JSON."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from parley_events.ids import NewUuid
from parley_standalone.settings import Settings
from parley_standalone.terminal import story
from parley_standalone.terminal.native import CHAT, Frame, Json, Native, Place
from parley_standalone.terminal.screen import Screen

_COLOURS = {"run": "green", "tool": "cyan", "model": "blue", "message": "bold"}


async def tail(
    settings: Settings,
    new_uuid: NewUuid,
    *,
    thread: str | None,
    run: str | None,
    start: bool,
    after: str | None,
    as_json: bool,
) -> int:
    """Print facts until Ctrl-C, or until the run has ended; the exit status. `after`: the cursor to go on from, which
    Ctrl-C told."""
    native = Native(settings, new_uuid, _trouble, admin=True)
    loop = asyncio.get_running_loop()
    many, place = run is None and thread is None, Place(after)
    feed = native.follow(f"{CHAT}/events", place) if many else await _feed(native, thread, run, start, after)
    working = asyncio.ensure_future(_print(feed, many, as_json))
    loop.add_signal_handler(signal.SIGINT, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        if many and place.last is not None:
            print(f"[to go on from here: parley tail --after {place.last}]", file=sys.stderr)
        return 130
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await native.close()
    return 0


async def _feed(
    native: Native, thread: str | None, run: str | None, start: bool, after: str | None
) -> AsyncGenerator[Frame, None]:
    thread_id = thread or str(run)[:36]
    if run is not None:
        await native.run(run)
    view = await native.thread(thread_id)
    last = after or (None if start else str(view["position"]).rpartition("@")[2])
    if run is not None:
        return native.follow_run(run, last)
    return native.follow(f"{CHAT}/threads/{quote(thread_id, safe='')}/events", Place(last))


async def _print(frames: AsyncGenerator[Frame, None], many: bool, as_json: bool) -> None:
    screen = Screen(sys.stdout)
    columns = screen.columns if sys.stdout.isatty() else 10_000
    async with aclosing(frames) as following:
        async for frame in following:
            if frame.data["type"].endswith(".delta"):
                continue
            if as_json:
                print(frame.line, flush=True)
            else:
                screen.rows(screen.line(*parts(frame.data, many), columns=columns))


def parts(fact: Json, many: bool) -> list[tuple[str, str]]:
    """A fact on one line, as (text, style). `many`: facts of several threads, so that each names its own."""
    kind = str(fact.get("type"))
    run = str(fact.get("run_id") or "")
    where = f"{str(fact.get('thread_id'))[:8]} " if many else ""
    return [
        (f"{str(fact.get('created_at'))[11:23]} ", "dim"),
        (where, "magenta"),
        (f"{fact.get('seq') or '':>4} ", ""),
        (f"{kind:<18} ", _COLOURS.get(kind.partition(".")[0], "")),
        (f"{run[36:][:9]:<9} ", "dim"),
        (content(fact), "red" if kind in ("run.failed", "model.failed") else ""),
    ]


def content(fact: Json) -> str:
    """What a fact says, in a few words."""
    kind = fact.get("type")
    for event in story.events(fact):
        match event:
            case story.Asked(text):
                return story.short(text, 200)
            case story.Closed(text):
                return story.short(text, 200) or f"({fact.get('stop_reason')})"
            case story.ToolBegan():
                return f"{event.name} {event.arguments}"
            case story.ToolEnded():
                return f"{event.name} {event.status}: {story.short(event.result, 200)}"
            case story.Ended():
                tokens = f"{event.tokens[0]} in, {event.tokens[1]} out"
                return f"{event.text}; {tokens}" if event.text else tokens
            case story.ApprovalAsked():
                return f"{event.name} {event.arguments} {event.question}".rstrip()
            case story.HandedOver():
                return f"{event.name} {event.arguments}, for the client"
            case story.ApprovalOver():
                return event.text
            case story.Waits():
                return f"for {event.what}"
            case story.Note(text):
                return text
            case _:
                pass
    if kind == "model.called":
        return f"{fact.get('model')}, turn {fact.get('turn')}, attempt {fact.get('attempt')}"
    if kind == "thread.created":
        seed = fact.get("seed") or {}
        return story.short(f"{seed.get('agent_id') or 'open'} {seed.get('title') or ''}", 200)
    return ""


def _trouble(text: str | None) -> None:
    if text is not None:
        print(f"[trying again: {text}]", file=sys.stderr)

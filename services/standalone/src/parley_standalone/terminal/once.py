"""`parley chat` for one message: its answer on stdout, everything else on stderr, and an exit status.

On a terminal the answer streams as in a chat. Into a pipe a text is written when its turn is on record, so that an
attempt that came to nothing leaves no trace.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TextIO

from parley_events.ids import NewUuid
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings
from parley_standalone.terminal import story
from parley_standalone.terminal.attach import Attached, encoded
from parley_standalone.terminal.native import DEFAULT_AGENT, ENDED, Frame, Json, Native, runs_of
from parley_standalone.terminal.save import order

Show = Callable[[AsyncGenerator[Frame, None]], Awaitable[int]]
"""Shows an answer to its end; the exit status."""
MOST_BYTES = 1024 * 1024
LEFT = 130


def piped(stdin: TextIO) -> str | None:
    """The message that is piped in; None when a person sits there. Raises CommandError when it is too long."""
    if stdin.isatty():
        return None
    raw = stdin.buffer.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise CommandError("the message has more than 1 MiB; --attach sends a file")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CommandError("the message is not UTF-8; --attach sends a file") from None


async def once(
    settings: Settings,
    new_uuid: NewUuid,
    message: str | None,
    agent: str | None,
    thread: str | None,
    files: list[Attached],
    *,
    as_json: bool,
) -> int:
    """Send the message, or without one follow what runs in the thread; the exit status: 0 when the run completed."""
    native = Native(settings, new_uuid, _trouble)
    loop = asyncio.get_running_loop()
    place = [thread]
    show: Show
    show = partial(_print, as_json=as_json) if as_json or not sys.stdout.isatty() else partial(_watch, native)
    working = asyncio.ensure_future(_work(native, message, agent, place, files, show))
    loop.add_signal_handler(signal.SIGINT, working.cancel)
    try:
        return await working
    except asyncio.CancelledError:
        if place[0] is not None:
            print("the answer goes on; come back with:", file=sys.stderr)
            print(f"parley chat --thread {place[0]}", file=sys.stderr)
        return LEFT
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await native.close()


async def _work(
    native: Native,
    message: str | None,
    agent: str | None,
    place: list[str | None],
    files: list[Attached],
    show: Show,
) -> int:
    thread = place[0]
    if thread is not None:
        await native.thread(thread)
    if message is None or not message.strip():
        assert thread is not None
        return await _last(native, thread, show)
    attachments = encoded(files)
    if thread is None:
        thread = place[0] = str((await native.new_thread(agent or DEFAULT_AGENT, story.short(message, 60)))["id"])
    status = await show(native.post(thread, message, attachments, started=lambda _: None))
    print(f"[parley chat --thread {thread}]", file=sys.stderr)
    return status


async def _last(native: Native, thread: str, show: Show) -> int:
    """The newest run of the thread, whether it runs or has ended."""
    messages = await native.newest_messages(thread, 200)
    ids = runs_of(messages)
    if not ids:
        raise CommandError("nothing was said in this thread yet: give a MESSAGE")
    for run_id in ids[-10:-1]:
        if (await native.run(run_id))["status"] not in ENDED:
            await show(native.follow_run(run_id))
    return await show(native.follow_run(ids[-1]))


async def _watch(native: Native, frames: AsyncGenerator[Frame, None]) -> int:
    """Show an answer as it streams."""
    from parley_standalone.terminal.screen import Screen
    from parley_standalone.terminal.watch import Watch

    watch = Watch(Screen(sys.stdout), asyncio.get_running_loop().time, "Ctrl-C leaves")
    native.trouble = watch.trouble
    try:
        ended = await watch.run(frames)
    finally:
        native.trouble = _trouble
    return 0 if ended is not None and ended.status == "completed" else 1


async def _print(frames: AsyncGenerator[Frame, None], as_json: bool) -> int:
    """Write an answer to its end."""
    unfinished, last = "", "\n"
    async with aclosing(frames) as following:
        async for frame in following:
            data = frame.data
            if as_json:
                print(frame.line, flush=True)
            else:
                text = ""
                if data["type"] == "text.delta":
                    unfinished += data["delta"]
                elif data["type"] in ("run.restarted", "model.failed"):
                    unfinished = ""
                elif data["type"] == "model.returned":
                    text, unfinished = data["content"] or "", ""
                elif data["type"] == "run.cancelled":
                    text = unfinished
                if text:
                    print(text, end="", flush=True)
                    last = text[-1]
            status = _say(data, as_json, last)
            if status is not None:
                return status
    raise CommandError("the answer broke off")


def _say(data: Json, as_json: bool, last: str) -> int | None:
    """Tell stderr what a frame means; the exit status when it is the end."""
    for event in story.events(data):
        match event:
            case story.ToolEnded():
                result = f" → {event.result}" if event.result else ""
                print(f"[{event.name} {event.arguments} {event.status}{result}]", file=sys.stderr)
                for name in event.files:
                    print(f"[made {name}; in the chat, {order(name)}]", file=sys.stderr)
            case story.ApprovalAsked():
                question = f": {event.question}" if event.question else ""
                print(f"[waits for an approval of {event.name} {event.arguments}{question}]", file=sys.stderr)
                print(f"[parley approvals approve {event.id}]", file=sys.stderr)
            case story.HandedOver():
                print(f"[waits for the client to run {event.name} {event.arguments}]", file=sys.stderr)
            case story.ApprovalOver(_, text) | story.Note(text):
                print(f"[{text}]", file=sys.stderr)
            case story.Ended():
                if not as_json and last != "\n":
                    print(flush=True)
                if event.status == "completed":
                    return 0
                print(
                    f"parley: the run {_ENDS[event.status]}" + (f": {event.text}" if event.text else ""),
                    file=sys.stderr,
                )
                return 1
            case _:
                pass
    return None


_ENDS = {"failed": "failed", "cancelled": "was cancelled"}


def _trouble(text: str | None) -> None:
    if text is not None:
        print(f"[trying again: {text}]", file=sys.stderr)

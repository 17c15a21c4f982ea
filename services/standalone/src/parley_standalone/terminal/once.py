"""`parley chat` for scripts: one message, its answer on stdout, everything else on stderr, and an exit status.

Text is written when its turn is on record, so that an attempt that came to nothing leaves no trace in a pipe.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TextIO

from parley_events.ids import NewUuid
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings
from parley_standalone.terminal import story
from parley_standalone.terminal.attach import Attached, encoded
from parley_standalone.terminal.native import ENDED, Frame, Json, Native, Refused

DEFAULT_AGENT = "assistant"
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
    working = asyncio.ensure_future(_work(native, message, agent, place, files, as_json))
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
    as_json: bool,
) -> int:
    thread = place[0]
    if thread is not None:
        await _known(native, thread)
    if message is None or not message.strip():
        assert thread is not None
        return await _last(native, thread, as_json)
    attachments = encoded(files)
    if thread is None:
        thread = place[0] = str((await native.new_thread(agent or DEFAULT_AGENT, story.short(message, 60)))["id"])
    status = await _print(native.post(thread, message, attachments, started=lambda _: None), as_json)
    print(f"[parley chat --thread {thread}]", file=sys.stderr)
    return status


async def _known(native: Native, thread: str) -> None:
    try:
        await native.thread(thread)
    except Refused as refused:
        if refused.status == 404:
            raise CommandError(f"there is no thread {thread} (`parley threads` lists yours)") from None
        raise


async def _last(native: Native, thread: str, as_json: bool) -> int:
    """The newest run of the thread, whether it runs or has ended."""
    messages = await native.newest_messages(thread, 200)
    ids = [message["run_id"] for message in messages if message["role"] == "user" and message["run_id"]]
    if not ids:
        raise CommandError("nothing was said in this thread yet: give a MESSAGE")
    for run_id in list(dict.fromkeys(ids))[-10:-1]:
        if (await native.run(run_id))["status"] not in ENDED:
            await _print(native.follow_run(run_id), as_json)
    return await _print(native.follow_run(ids[-1]), as_json)


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
                    shown = story.clean(text) if sys.stdout.isatty() else text
                    print(shown, end="", flush=True)
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
            case story.Note(text):
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

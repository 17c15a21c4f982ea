"""The contract over HTTP that breaks: nothing is done twice, missed or shown twice, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parley_events.ids import random_uuid
from parley_standalone.client import Api, Refused
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.process import free_port
from parley_standalone.settings import Settings
from parley_standalone.terminal import native as native_
from parley_standalone.terminal.native import Frame, Native, Place, Unknown, frame_of

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
RUN = f"{THREAD}.r1"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


Play = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def gateway(*plays: Play) -> AsyncIterator[tuple[str, list[Request]]]:
    """A server that plays these in turn, one per connection (the last one again and again), and what it was asked."""
    asked: list[Request] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        request = Request(method, path, headers, json.loads(raw) if raw else None)
        asked.append(request)
        try:
            await plays[min(len(asked), len(plays)) - 1](request, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await server.wait_closed()


def says(status: int, body: Any, **headers: str) -> Play:
    async def play(_: Request, writer: asyncio.StreamWriter) -> None:
        raw = json.dumps(body).encode()
        lines = {"Content-Length": str(len(raw)), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw)
        await writer.drain()

    return play


def streams(*frames: tuple[str | None, dict[str, Any]]) -> Play:
    """A stream that breaks off after these frames."""

    return events(*(b": \n\n" + frame(event_id, data) for event_id, data in frames))


def frame(event_id: str | None, data: dict[str, Any]) -> bytes:
    line = b"" if event_id is None else f"id: {event_id}\n".encode()
    return line + b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def events(*parts: bytes) -> Play:
    """The same, of any events."""

    async def play(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            + f"Parley-Run-Id: {RUN}\r\n\r\n".encode()
        )
        for part in parts:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()

    return play


async def breaks(_: Request, writer: asyncio.StreamWriter) -> None:
    """The connection is gone before an answer."""


def client(url: str, limit_s: float = 5.0, told: list[str | None] | None = None) -> Native:
    settings = Settings.from_env({"PARLEY_URL": url, "PARLEY_KEY": "pk_test"})
    return Native(settings, random_uuid, (told if told is not None else []).append, limit_s=limit_s)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_, "PAUSE_S", (0.01,))


def delta(text: str) -> dict[str, Any]:
    return {"type": "text.delta", "delta": text}


END = {"type": "run.completed", "stop_reason": "end_turn"}


async def post(native: Native, text: str = "hi") -> list[Frame]:
    return [frame async for frame in native.post(THREAD, text, [], started=lambda _: None)]


async def test_a_cut_stream_goes_on_after_its_last_id() -> None:
    told: list[str | None] = []
    async with gateway(
        streams(("1", {"type": "message.posted"}), ("2/2.0:3", delta("abc"))),
        breaks,
        streams(("2/2.0:6", delta("def"))),
        says(503, {"error": "unavailable", "message": "starting"}),
        streams(("3", END)),
    ) as (url, asked):
        native = client(url, told=told)
        frames = await post(native)
        await native.close()
    assert [frame.data["type"] for frame in frames] == [
        "message.posted",
        "text.delta",
        "text.delta",
        "run.completed",
    ]
    assert [request.headers.get("last-event-id") for request in asked] == [None, *["2/2.0:3"] * 2, *["2/2.0:6"] * 2]
    assert [request.method for request in asked] == ["POST", *["GET"] * 4]
    assert asked[1].path == f"/api/v1/chat/runs/{RUN}/events"
    assert any(told) and told[-1] is None, "the trouble was told, and that it is over"


async def test_a_post_without_an_answer_is_tried_again_under_the_same_key() -> None:
    async with gateway(
        says(200, {"items": []}), breaks, says(503, {"error": "unavailable", "message": "x"}), streams(("1", END))
    ) as (url, asked):
        native = client(url)
        await native.agents()
        frames = await post(native)
        await native.close()
    assert [frame.data for frame in frames] == [END]
    keys = {request.headers["idempotency-key"] for request in asked[1:]}
    assert len(asked) == 4 and len(keys) == 1
    assert all(request.body == {"content": "hi"} for request in asked[1:])


async def test_an_accepted_message_is_followed_by_its_run() -> None:
    async with gateway(says(202, {"run_id": RUN}), streams(("1", END))) as (url, asked):
        native = client(url)
        assert [frame.data for frame in await post(native)] == [END]
        await native.close()
    assert (asked[1].method, asked[1].path) == ("GET", f"/api/v1/chat/runs/{RUN}/events")


async def test_a_refusal_is_not_tried_again() -> None:
    async with gateway(says(400, {"error": "unsupported", "message": "no\n attachments"})) as (url, asked):
        native = client(url)
        with pytest.raises(Refused, match=r"^no attachments$") as caught:
            await post(native)
        await native.close()
    assert (caught.value.status, caught.value.code, len(asked)) == (400, "unsupported", 1)


async def test_a_file_is_fetched_whole_and_again_when_it_broke_off() -> None:
    async with gateway(says(200, {}), breaks, says(200, "Buy tea.")) as (url, asked):
        native = client(url)
        await native.ask("GET", "/met")
        assert await native.file(THREAD, "a b%.md") == b'"Buy tea."'
        await native.close()
    assert [request.path for request in asked[1:]] == [f"/api/v1/chat/threads/{THREAD}/files/a%20b%25.md"] * 2


async def test_a_file_that_is_not_there_is_said() -> None:
    async with gateway(says(404, {"error": "not_found", "message": "no such file"})) as (url, _):
        native = client(url)
        with pytest.raises(Unknown, match=r"^there is no file a\.md in this thread$"):
            await native.file(THREAD, "a.md")
        await native.close()


async def test_a_gateway_that_never_answered_is_said_at_once() -> None:
    native = client(f"http://127.0.0.1:{free_port()}", limit_s=1000)
    async with asyncio.timeout(5):
        with pytest.raises(CommandError, match="cannot be reached"):
            await native.agents()
    await native.close()


async def test_a_gateway_that_is_gone_for_long_is_given_up() -> None:
    async with gateway(says(200, {"items": []}), breaks) as (url, _):
        native = client(url, limit_s=0.05)
        await native.agents()
        async with asyncio.timeout(5):
            with pytest.raises(CommandError, match="given up after"):
                await native.agents()
        await native.close()


async def test_the_next_gateway_of_the_list_is_tried_and_the_list_is_read_anew(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "data")

    def ready(*urls: str) -> None:
        content = {"gateways": urls, "api_key": "pk_api", "admin_key": "pk_admin"}
        (tmp_path / "data" / "ready.json").write_text(json.dumps(content))

    async with (
        gateway(streams(("5", delta("a")))) as (one, first),
        gateway(streams(("6", delta("b")))) as (two, second),
        gateway(streams(("7", END))) as (three, third),
    ):
        ready(one, two)
        native = Native(Settings.from_env({"DATA": str(tmp_path / "data")}), random_uuid)
        got: list[str] = []
        async for frame in native.follow_run(RUN):
            got.append(frame.data["type"])
            if len(second) == 1:
                # It came back elsewhere.
                ready(three)
        await native.close()
    folder.close()
    assert got == ["text.delta", "text.delta", "run.completed"]
    assert [each[0].headers.get("last-event-id") for each in (first, second, third)] == [None, "5", "6"]
    assert first[0].headers["authorization"] == "Bearer pk_api"


async def test_a_gateway_that_ends_every_stream_at_once_is_given_up() -> None:
    async with gateway(streams()) as (url, asked):
        native = client(url, limit_s=0.2)
        async with asyncio.timeout(10):
            with pytest.raises(CommandError, match="given up after"):
                _ = [frame async for frame in native.follow_run(RUN)]
        await native.close()
    assert len(asked) > 2


async def test_only_a_newline_ends_a_line() -> None:
    odd = "one\u2028two\u0085three\x0bfour"
    async with gateway(streams(("1", delta(odd)), ("2", END))) as (url, _):
        native = client(url)
        frames = await post(native)
        await native.close()
    assert frames[0].data["delta"] == odd


async def test_an_id_that_comes_alone_is_a_place_to_go_on_from_and_no_frame() -> None:
    place, told = Place(), list[str | None]()
    async with gateway(events(b"id: here\n\n"), events(b": \n\n", frame("there", END))) as (url, asked):
        native = client(url, told=told)
        frames = [frame.data async for frame in until_end(native.follow("/api/v1/chat/events", place))]
        await native.close()
    assert frames == [END] and place.last == "there"
    assert [request.headers.get("last-event-id") for request in asked] == [None, "here"]


async def test_a_gateway_that_leaves_says_when_to_come_back_and_that_is_no_trouble() -> None:
    place, told = Place("1"), list[str | None]()
    plays = [events(frame("2", {"type": "message.posted"}), b"retry: 30\n\n"), events(frame("3", END))]
    async with gateway(*plays) as (url, asked):
        native = client(url, told=told)
        began = asyncio.get_running_loop().time()
        frames = [frame.id async for frame in until_end(native.follow("/api/v1/chat/events", place))]
        await native.close()
    assert frames == ["2", "3"] and asked[1].headers["last-event-id"] == "2"
    assert asyncio.get_running_loop().time() - began >= 0.03 and not any(told)


async def test_an_answer_whose_gateway_leaves_is_taken_up_at_the_next_one() -> None:
    told: list[str | None] = []
    async with (
        gateway(events(frame("1", {"type": "message.posted"}), b"retry: 10\n\n"), breaks) as (first, asked),
        gateway(events(frame("2", END))) as (second, then),
    ):
        native = client(first, told=told)
        apis = [native._api(), Api(second, "pk_test")]
        native._apis["", ""] = apis[1]
        native._api = lambda: apis[native._turn % 2]  # type: ignore[method-assign]
        frames = await post(native)
        await native.close()
    assert [frame.id for frame in frames] == ["1", "2"] and not any(told)
    assert len(asked) == 1 and then[0].headers["last-event-id"] == "1"


async def until_end(frames: AsyncGenerator[Frame, None]) -> AsyncIterator[Frame]:
    async with aclosing(frames) as following:
        async for one in following:
            yield one
            if one.data == END:
                return


async def test_what_is_on_its_way_is_told() -> None:
    told: list[tuple[int, int]] = []
    async with gateway(streams(("1", END))) as (url, asked):
        native = client(url)
        files = [{"name": "a", "content_base64": "x" * 300_000}]
        sent = native.post(THREAD, "hi", files, started=lambda _: None, sent=lambda *at: told.append(at))
        assert [frame.data async for frame in sent] == [END]
        await native.close()
    assert asked[0].body["attachments"] == files
    assert told[-1][0] == told[-1][1] == int(asked[0].headers["content-length"])
    assert len(told) > 3 and told == sorted(told)


async def test_a_gateway_that_takes_no_body_of_this_size_is_not_asked_for_ever() -> None:
    async with gateway(says(200, {"items": []}), breaks) as (url, asked):
        native = client(url, limit_s=1000)
        await native.agents()
        files = [{"name": "a", "content_base64": "x" * 3_000_000}]
        async with asyncio.timeout(20):
            with pytest.raises(CommandError, match=r"3 times while 2\.9 MiB were sent"):
                _ = [frame async for frame in native.post(THREAD, "hi", files, started=lambda _: None)]
        await native.close()
    assert len(asked) == 4


def test_a_comment_is_no_frame() -> None:
    assert frame_of([b":"]) is None
    assert frame_of([b"id: 4", b'data: {"type": "x"}']) == Frame("4", {"type": "x"}, '{"type": "x"}')

"""The suite's proxy: what comes through, what is lost, late, cut off or swallowed, and for whom."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from parley_standalone.parts.process import free_port
from tests.faults.proxy import Proxy, Weather

PRODUCE, FETCH = 0, 1
LIMIT_S = 10.0


def request(key: int, correlation: int, client: str) -> bytes:
    name = client.encode()
    frame = struct.pack(">hhih", key, 9, correlation, len(name)) + name + b"body"
    return struct.pack(">i", len(frame)) + frame


class Client:
    """A client of one process, through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader, self._writer, self._name = reader, writer, name

    async def ask(self, key: int, correlation: int) -> None:
        self._writer.write(request(key, correlation, self._name))
        await self._writer.drain()

    async def answer(self) -> int:
        """The correlation id of the next response."""
        async with asyncio.timeout(LIMIT_S):
            (length,) = struct.unpack(">i", await self._reader.readexactly(4))
            frame = await self._reader.readexactly(length)
        return int(struct.unpack_from(">i", frame)[0])

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def between() -> AsyncIterator[Proxy]:
    """A proxy before a broker that answers each request with its correlation id."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                frame = await reader.readexactly(length)
                writer.write(struct.pack(">i", 4) + frame[4:8])
        writer.close()

    broker = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(free_port(), lambda: int(broker.sockets[0].getsockname()[1]))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        broker.close()


async def client(proxy: Proxy, pid: int) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    return Client(reader, writer, f"dispatcher-host-{pid}")


async def test_everything_comes_through_in_order() -> None:
    async with between() as proxy:
        one = await client(proxy, 1)
        for correlation in range(5):
            await one.ask(PRODUCE if correlation % 2 else FETCH, correlation)
        assert [await one.answer() for _ in range(5)] == [0, 1, 2, 3, 4]
        one.close()


async def test_responses_to_produce_requests_are_lost_and_no_others() -> None:
    async with between() as proxy:
        one = await client(proxy, 1)
        proxy.weather = Weather(lose_produced=True)
        await one.ask(PRODUCE, 7)
        await one.ask(FETCH, 8)
        assert await one.answer() == 8
        assert proxy.lost == 1
        one.close()


async def test_one_process_alone_is_cut_off_and_let_back_in() -> None:
    async with between() as proxy:
        cut, other = await client(proxy, 4242), await client(proxy, 77)
        await cut.ask(FETCH, 1)
        assert await cut.answer() == 1
        proxy.weather = Weather(swallow=True, pids=frozenset({4242}))
        await cut.ask(FETCH, 2)
        await other.ask(FETCH, 3)
        assert await other.answer() == 3
        proxy.weather = Weather()
        await cut.ask(FETCH, 4)
        assert await cut.answer() == 4, "what was swallowed does not come later"
        assert proxy.cut(frozenset({4242})) == 1
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await cut.answer()
        await other.ask(FETCH, 5)
        assert await other.answer() == 5
        cut.close()
        other.close()


async def test_latency_delays_each_frame_and_keeps_their_order() -> None:
    async with between() as proxy:
        one = await client(proxy, 1)
        proxy.weather = Weather(latency_s=0.1)
        clock = asyncio.get_running_loop().time
        began = clock()
        for correlation in range(10):
            await one.ask(FETCH, correlation)
        assert [await one.answer() for _ in range(10)] == list(range(10))
        assert 0.2 <= clock() - began < 5, "both ways, and all of them at the same time"
        one.close()

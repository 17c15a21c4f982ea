"""A proxy between the dispatchers and the broker, which tells its clients to come through it (listener PROXIED).

It knows Kafka's frames: a length, then a request (API key, version, correlation id, client id) or a response
(correlation id). So it can be told to lose the responses to produce requests, to be slow, to cut connections, or to
swallow everything, for all clients or for those whose client id ends in a process's id.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

_PRODUCE = 0
_MOST_FRAME = 64 * 1024 * 1024


@dataclass(slots=True)
class Weather:
    """What the network is like. `pids`: only for these processes (empty: for all)."""

    latency_s: float = 0.0
    lose_produced: bool = False
    swallow: bool = False
    pids: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    pid: int = 0
    asked: dict[int, int] = field(default_factory=dict)


class Proxy:
    """Listens on a port of 127.0.0.1 from `start` on; `broker` says where to connect to (it may change its mind)."""

    def __init__(self, port: int, broker: Callable[[], int]) -> None:
        self.port, self._broker = port, broker
        self.weather = Weather()
        self.lost = 0
        """How many responses to produce requests were lost."""
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._server = await asyncio.start_server(serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, pids: frozenset[int] = frozenset()) -> int:
        """Break connections (all, or those of some processes) without a word; how many there were."""
        links = [link for link in self._links if not pids or link.pid in pids]
        for link in links:
            for end in (link.client, link.broker):
                end.transport.abort()
        return len(links)

    def _hit(self, link: _Link) -> Weather | None:
        """The weather, where it concerns a connection."""
        return self.weather if not self.weather.pids or link.pid in self.weather.pids else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker())
        except OSError:
            writer.close()
            return
        link = _Link(writer, to_broker)
        self._links.add(link)
        ways = [
            asyncio.create_task(self._forward(link, reader, to_broker, self._request)),
            asyncio.create_task(self._forward(link, from_broker, writer, self._response)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            for end in (writer, to_broker):
                end.transport.abort()

    async def _forward(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[_Link, bytes], bool],
    ) -> None:
        """Frame after frame, each as late as the latency says; several may be on their way."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)
        clock = asyncio.get_running_loop().time

        async def deliver() -> None:
            while True:
                due, frame = await late.get()
                if (pause_s := due - clock()) > 0:
                    await asyncio.sleep(pause_s)
                writer.write(frame)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while not delivering.done():
                    size = await reader.readexactly(4)
                    (length,) = struct.unpack(">i", size)
                    if not 0 <= length <= _MOST_FRAME:
                        return
                    frame = await reader.readexactly(length)
                    if not passes(link, frame):
                        continue
                    weather = self._hit(link)
                    await late.put((clock() + (weather.latency_s if weather else 0.0), size + frame))
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    def _request(self, link: _Link, frame: bytes) -> bool:
        key, _, correlation, name = struct.unpack_from(">hhih", frame)
        if not link.pid and name > 0:
            client = frame[10 : 10 + name].decode("utf-8", "replace")
            ending = client.rpartition("-")[2]
            link.pid = int(ending) if ending.isdecimal() else -1
        link.asked[correlation] = key
        weather = self._hit(link)
        return not (weather and weather.swallow)

    def _response(self, link: _Link, frame: bytes) -> bool:
        (correlation,) = struct.unpack_from(">i", frame)
        key = link.asked.pop(correlation, None)
        weather = self._hit(link)
        if weather is None:
            return True
        if weather.lose_produced and key == _PRODUCE:
            self.lost += 1
            return False
        return not weather.swallow

"""A stream outlasts the application: it leaves itself to the server, and is whole when it is taken up there."""

from __future__ import annotations

from typing import Any

from parley_events.codec import Fact
from parley_events.lasting import LEFT, lasting
from parley_gateway.feed.follow import Shown
from parley_gateway.feed.sse import EventStream, Terms


class Over:
    """A feed of which nothing is left."""

    over = True
    closed = False
    recalled: list[Fact] = []  # noqa: RUF012 - nobody adds to it

    async def take(self, timeout_s: float) -> list[Shown]:
        raise AssertionError("it is over")

    def end(self) -> None:
        self.over = True

    def close(self) -> None:
        self.closed = True


async def receive() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def test_a_stream_begins_when_the_application_has_returned() -> None:
    feed, sent, returned = Over(), list[dict[str, Any]](), list[int]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await EventStream(feed, lambda item: [], Terms(beat_s=1.0, stall_s=1.0))(scope, receive, send)
        returned.append(len(sent))

    await lasting(app)({"type": "http", "method": "GET"}, receive, send)
    assert returned == [0]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert feed.closed


async def test_without_a_server_that_goes_on_a_stream_is_given_at_once() -> None:
    feed, sent = Over(), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET"}
    await EventStream(feed, lambda item: [], Terms(beat_s=1.0, stall_s=1.0))(scope, receive, send)
    assert len(sent) == 2
    assert LEFT not in scope

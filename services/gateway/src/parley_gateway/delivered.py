"""Whether an answer has come to its client, and what is done once it has. Below: plain ASGI. Beside it: `feed/sse`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


def gone(receive: Receive) -> bool:
    """Whether the client has disconnected: one step of `receive`, taken back when it would wait. Ask before the last
    send: after it a server says that everybody is gone."""
    waiting: Coroutine[Any, Any, Any] = receive()  # type: ignore[assignment]
    try:
        waiting.send(None)
    except StopIteration as answer:
        return bool(answer.value["type"] == "http.disconnect")
    with contextlib.suppress(RuntimeError):
        waiting.close()
    return False


class Delivered(Response):
    """An answer after which something is done, if its client was there to get it."""

    def __init__(self, answer: Response, then: Callable[[], None]) -> None:
        self.status_code, self.background, self.raw_headers = answer.status_code, None, answer.raw_headers
        self.media_type = answer.media_type
        self._answer, self._then = answer, then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        there = not gone(receive)
        await self._answer(scope, receive, send)
        if there:
            self._then()

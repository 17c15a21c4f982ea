"""Answers that outlast the application that gave them: streams that stay open for hours. Plain ASGI.

Used by `serve` around every application. Whoever leaves the rest of an answer finds `LEFT` in the scope; where it is
not there (in a test without a server), the answer is given as usual.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
Rest = Callable[[Any, Any], Awaitable[None]]
"""What is left of an answer: it takes ASGI's `receive` and `send` as the server gave them."""
LEFT = "parley.left"
"""Where in a request's scope an application leaves the rest of its answer, so that it need not last as long."""


def lasting(app: Application) -> Application:
    """An application whose answers may outlast it. An answer that goes on for hours would keep every layer between the
    server and itself in memory, a coroutine and its closures for each; it leaves its rest in `scope[LEFT]` instead and
    returns, and the rest is done here, when the layers are gone."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        left: list[Rest] = []
        scope[LEFT] = left
        await app(scope, receive, send)
        if left:
            # The server holds the scope, too, and looks at nothing but these any more.
            for name in scope.keys() - {"type", "method"}:
                del scope[name]
            await left.pop()(receive, send)

    return served

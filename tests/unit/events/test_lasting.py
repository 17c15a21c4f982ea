"""Answers that outlast the application: the rest is done when the layers around it are gone."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from parley_events.lasting import LEFT, lasting


class Layer:
    """What an application keeps for as long as it runs."""


async def test_the_rest_of_an_answer_is_done_when_the_application_has_let_go_of_everything() -> None:
    kept: list[weakref.ref[Layer]] = []
    going_on, sent = asyncio.Event(), list[Any]()

    async def rest(receive: Any, send: Any) -> None:
        await going_on.wait()
        await send(await receive())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        layer = scope["layer"] = Layer()
        kept.append(weakref.ref(layer))
        await inner(scope, receive, lambda message: send((layer, message)))

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope[LEFT].append(rest)

    async def receive() -> str:
        return "asked"

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    answering = asyncio.create_task(lasting(app)(scope, receive, send))
    async with asyncio.timeout(5):
        while not kept:
            await asyncio.sleep(0)
        gc.collect()
        assert kept[0]() is None
        assert not answering.done()
        going_on.set()
        await answering
    assert sent == ["asked"], "the rest speaks to the server itself"
    assert scope == {"type": "http", "method": "GET"}


async def test_an_application_that_leaves_nothing_answers_as_usual() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope))
        await send("answer")

    async def send(message: Any) -> None:
        seen.append(message)

    await lasting(app)({"type": "lifespan"}, None, send)
    await lasting(app)({"type": "http", "path": "/"}, None, send)
    assert seen == [{"type": "lifespan"}, "answer", {"type": "http", "path": "/", LEFT: []}, "answer"]

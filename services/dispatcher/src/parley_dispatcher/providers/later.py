"""A provider that is made when it is first needed.

The SDK behind Claude takes two seconds of CPU to import, which a start without any Claude should not pay, nor a running
dispatcher all at once: it is imported on a thread, while other runs go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from parley_dispatcher.providers.base import Event, Provider, Request


@runtime_checkable
class Closable(Provider, Protocol):
    """A provider that holds connections."""

    async def close(self) -> None: ...


class Later:
    """`make` is called once, at the first turn."""

    def __init__(self, make: Callable[[], Closable]) -> None:
        self._make, self._making = make, asyncio.Lock()
        self._made: Closable | None = None

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        provider = self._made or await self._first()
        async for event in provider.stream(request):
            yield event

    async def _first(self) -> Closable:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    async def close(self) -> None:
        """Close it, if it was made."""
        if self._made is not None:
            await self._made.close()

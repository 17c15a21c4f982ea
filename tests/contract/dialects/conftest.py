"""A gateway whose clock stands still and whose ids are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.dialects.transcript import clock, counted_uuids
from tests.unit.gateway.world import World, world


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(sockets=False, clock=clock, new_uuid=counted_uuids()) as made:
        yield made

"""A running gateway with everything around it played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.gateway.world import World, world


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made
